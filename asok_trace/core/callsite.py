"""Which code did this: the program's own, or a library's."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FrameType
from typing import Final, NamedTuple

# What a log call or the start of a span goes through, on its way from the program to us.
_WAY_IN = ("asok_trace", "structlog", "logging", "opentelemetry", "contextlib")

# What stands between a call and the one who made it: ourselves, and those who wrap the same
# functions as we do. Not the rest of them: they start threads of their own, in a request.
_BETWEEN = (
    "asok_trace",
    "wrapt",
    "opentelemetry.instrumentation",
    "sentry_sdk.integrations",
    "ddtrace.contrib",
    "ddtrace.vendor",
)

# What runs the program, in the thread in which the program has started it: who called is within.
_RUNNING = (
    "asyncio.events",
    "asyncio.runners",
    "uvloop",
    "socketserver",
    "wsgiref",
    "werkzeug.serving",
    "waitress",
    "gunicorn",
    "uvicorn",
    "hypercorn",
)

_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")

_INSTALLED = ("/site-packages/", "/dist-packages/")

# Installed, and yet the program: the packages that have switched us on.
_own: set[str] = set()


class Callsite(NamedTuple):
    """A place in the program, as cheap to keep as it is to take: resolved when it is told."""

    code: CodeType
    instruction: int
    """The index of the bytecode instruction (``f_lasti``)."""

    @property
    def line(self) -> int:
        """The line number; where the function begins, if the instruction has none."""
        positions = list(self.code.co_positions())
        found = positions[self.instruction // 2][0] if self.instruction >= 0 else None
        return found or self.code.co_firstlineno

    def __str__(self) -> str:
        return where(self.code, self.line)


def caller(frame: FrameType | None = None) -> FrameType | None:
    """Return the frame that called: the first one outside us and those who wrap what we wrap, from
    ``frame`` on, which saves the way there."""
    frame = frame or sys._getframe(1)
    while frame is not None and _is_between(frame.f_globals.get("__name__")):
        frame = frame.f_back
    return frame


def speaker(frame: FrameType) -> FrameType:
    """Return the frame that logged a line or started a span, from ``frame`` on: the first one
    outside of what such calls go through."""
    found: FrameType | None = frame
    while found is not None and _ways_in[found.f_globals.get("__name__")]:
        found = found.f_back
    return found or frame


def program(frame: FrameType) -> FrameType:
    """Return where the program is in ``frame``: the first call below it that no library made; if
    there is none, ``frame``."""
    return in_program(frame) or frame


def in_program(frame: FrameType | None) -> FrameType | None:
    """Return the first call from ``frame`` on that no library made; None if there is none before
    that which runs the program: a server, an event loop."""
    while frame is not None and not _is_program(frame):
        if _is_running(frame.f_globals.get("__name__")):
            return None
        frame = frame.f_back
    return frame


def outermost(frame: FrameType) -> FrameType:
    """Return the program's first call on this stack: what a thread or a loop was given to run."""
    found = frame
    around = frame.f_back
    while around is not None and not _is_running(around.f_globals.get("__name__")):
        if _is_program(around):
            found = around
        around = around.f_back
    return found


def where(code: CodeType, line: int) -> str:
    """A place as text: ``file:line function``; the file relative to the working directory."""
    return f"{relative(code.co_filename)}:{line} {short(code.co_qualname)}"


def relative(filename: str) -> str:
    """``filename`` as seen from the working directory, if it is in there."""
    try:
        here = os.getcwd()
    except OSError:  # it is gone
        return filename
    return filename[len(here) + 1 :] if filename.startswith(here + os.sep) else filename


def short(qualname: str) -> str:
    """A function's name without those around it: ``View.post``, of ``make.<locals>.View.post``.
    Of a lambda with the one around it, and of a comprehension that one's alone."""
    names = qualname.split(".<locals>.")
    while names[-1] in _COMPREHENSIONS:
        names.pop()
        if not names:
            return "<module>"
    return ".".join(names[-2:] if names[-1] == "<lambda>" else names[-1:])


def module(frame: FrameType) -> str:
    """The name of the module that ``frame`` is in."""
    return module_of(frame.f_globals, frame.f_code.co_filename)


def module_of(variables: Mapping[str, object], filename: object) -> str:
    """The name of the module that has the global ``variables``: also of one that was started by its
    name; and by its file of one that nobody could import by its name, as Asok's pages, which get a
    new one each time."""
    name = variables.get("__name__")
    known = name in sys.modules
    if name == "__main__":
        name = getattr(variables.get("__spec__"), "name", name)
    if not isinstance(name, str):
        return "?"
    if known or not isinstance(filename, str) or not filename.endswith(".py"):
        return name
    return relative(filename).removesuffix(".py").strip(os.sep).replace(os.sep, ".")


def _is_program(frame: FrameType) -> bool:
    return not is_library(frame.f_code.co_filename) and not _is_between(
        frame.f_globals.get("__name__")
    )


class _WaysIn(dict[object, bool]):
    """Whether a module is one that such calls go through. A dict: asked for every frame."""

    def __missing__(self, name: object) -> bool:
        if len(self) >= 1024:
            self.clear()
        found = isinstance(name, str) and name.partition(".")[0] in _WAY_IN
        self[name] = found
        return found


_ways_in: Final = _WaysIn()


@lru_cache(maxsize=1024)
def _is_running(name: object) -> bool:
    return isinstance(name, str) and any(
        name == one or name.startswith(one + ".") for one in _RUNNING
    )


@lru_cache(maxsize=1024)
def _is_between(module: object) -> bool:
    return isinstance(module, str) and any(
        module == name or module.startswith(name + ".") for name in _BETWEEN
    )


@lru_cache(maxsize=4096)
def is_library(filename: str) -> bool:
    """Whether the code in ``filename`` was installed: a library, the standard one, or frozen."""
    path = filename.replace("\\", "/")
    if path.startswith(tuple(_own)):
        return False
    return path.startswith(_standard()) or any(folder in path for folder in _INSTALLED)


def claim(filename: str) -> None:
    """Take the installed package that ``filename`` belongs to for the program's own."""
    path = filename.replace("\\", "/")
    for folder in _INSTALLED:
        root, found, below = path.rpartition(folder)
        if found:
            package, slash, _ = below.partition("/")
            _own.add(root + found + package + slash)
            is_library.cache_clear()


@lru_cache(maxsize=1)
def _standard() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {paths[name].replace("\\", "/") + "/" for name in ("stdlib", "platstdlib")}
    return (*roots, "<frozen")

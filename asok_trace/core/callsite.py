"""Which code did this: the program's own, or a library's."""

import sys
import sysconfig
from functools import lru_cache
from types import CodeType, FrameType
from typing import NamedTuple

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
        return f"{self.code.co_filename}:{self.line} {self.code.co_qualname}"


def caller(frame: FrameType | None = None) -> FrameType | None:
    """Return the frame that called: the first one outside us and those who wrap what we wrap, from
    ``frame`` on, which saves the way there."""
    frame = frame or sys._getframe(1)
    while frame is not None and _is_between(frame.f_globals.get("__name__")):
        frame = frame.f_back
    return frame


def program(frame: FrameType) -> FrameType:
    """Return where the program is in ``frame``: the first call below it that no library made."""
    found: FrameType | None = frame
    while found is not None and is_library(found.f_code.co_filename):
        found = found.f_back
    return found or frame


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

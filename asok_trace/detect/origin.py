"""Where a thread or a pool's job came from: who started it, in which request."""

from contextvars import ContextVar
from functools import partial
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType
from typing import Final, NamedTuple

from asok_trace.core.callsite import Callsite, is_library, program, short
from asok_trace.core.scope import ACTIVE


class Origin(NamedTuple):
    """Text and code, never objects: knowing where work came from keeps no request alive. Put
    together when it is told, not when it is noted."""

    code: CodeType
    instruction: int
    request_id: str
    name: str | None
    method: str | None
    path: str | None
    handed: str | None
    """What it was given to run, as one would write it; None if that is not known."""
    meant: bool
    """Whether the program started it, or its web framework: not another library for itself."""

    @property
    def callsite(self) -> Callsite:
        """Where the program started the work."""
        return Callsite(self.code, self.instruction)

    @property
    def what(self) -> str:
        """The method and path of the request, or the name of the unit of work."""
        return self.name or f"{self.method} {self.path}"

    def __str__(self) -> str:
        return f"{self.callsite} during {self.what} ({self.request_id})"


SPAWNED: Final[ContextVar[Origin | None]] = ContextVar("asok_trace_spawned", default=None)
"""Who started what runs in this context, if that was a request that was not carried along."""


class Handed(NamedTuple):
    """What was handed over on purpose without the request: by `wrap` or `detach`."""

    name: str
    outlive: bool
    site: Callsite | None


HANDED: Final[ContextVar[Handed | None]] = ContextVar("asok_trace_handed", default=None)
"""What runs in this context, if that was handed over so: for the text of an error."""

# What a web framework starts is the request's work; most other libraries start threads of their
# own, in whichever request happens to be the first.
_FRAMEWORKS: Final = ("asok", "flask", "quart")

# What the program calls to have something run elsewhere.
_HANDING: Final = ("asyncio", "concurrent")


def origin(frame: FrameType, handed: object = None) -> Origin | None:
    """Return where the program is in ``frame``, and in which request; of work that was lost on its
    way from one, that work's own origin; None outside any.

    Args:
        frame: the one that starts the work.
        handed: what that is to run.
    """
    scope = ACTIVE.get()
    if scope is None:
        return SPAWNED.get()
    place = program(frame)
    starter: FrameType | None = frame
    while starter is not None and _package(starter) in _HANDING:
        starter = starter.f_back
    return Origin(
        place.f_code,
        place.f_lasti,
        scope._request_id,
        scope._name,
        scope._method,
        scope._path,
        _called(handed),
        starter is not None
        and (not is_library(starter.f_code.co_filename) or _package(starter) in _FRAMEWORKS),
    )


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _called(handed: object) -> str | None:
    """The name of a function, as one would write it; of a thread whose class has a method ``run``
    of its own, that."""
    while isinstance(handed, partial):
        handed = handed.func
    # Of these types alone: another one may run code of its own when it is asked.
    if isinstance(handed, FunctionType | MethodType | BuiltinFunctionType):
        name = short(handed.__qualname__)
        return "lambda: ..." if name.endswith("<lambda>") else name
    return None if handed is None else f"{short(type(handed).__qualname__)}(...)"

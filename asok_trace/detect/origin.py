"""Where a thread or a pool's job came from: who started it, in which request."""

from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Final, NamedTuple

from asok_trace.core.callsite import Callsite, program
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
    starter: str
    """The module that started it: the program's, or that of a library on its behalf."""

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


def origin(frame: FrameType) -> Origin | None:
    """Return where the program is in ``frame``, and in which request; None outside any."""
    scope = ACTIVE.get()
    if scope is None:
        return None
    place = program(frame)
    return Origin(
        place.f_code,
        place.f_lasti,
        scope._request_id,
        scope._name,
        scope._method,
        scope._path,
        frame.f_globals.get("__name__", ""),
    )

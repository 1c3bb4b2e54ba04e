"""Where a thread or a pool's job came from: who started it, in which request."""

from contextvars import ContextVar
from types import FrameType
from typing import Final, NamedTuple

from asok_trace.core.callsite import Callsite, place
from asok_trace.core.scope import ACTIVE, Scope


class Origin(NamedTuple):
    """Text and code, never objects: knowing where work came from keeps no request alive."""

    callsite: Callsite
    request_id: str
    what: str
    """The method and path of the request, or the name of the unit of work."""

    def __str__(self) -> str:
        return f"{self.callsite} during {self.what} ({self.request_id})"


SPAWNED: Final[ContextVar[Origin | None]] = ContextVar("asok_trace_spawned", default=None)
"""Who started what runs in this context, if that was a request that was not carried along."""


def origin(frame: FrameType) -> Origin | None:
    """Return where the program is in ``frame``, and in which request; None outside any."""
    scope = ACTIVE.get()
    if scope is None:
        return None
    return Origin(place(frame), scope._request_id, _what(scope))


def _what(scope: Scope) -> str:
    return scope._name or f"{scope._method} {scope._path}"

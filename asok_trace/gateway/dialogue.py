"""The messages of one ASGI WebSocket connection: a scope for each, in the handler's own task."""

from typing import Any, Final

from asok_trace.core import ids, names
from asok_trace.core.errors import Piece, attempted, contained
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.frameworks import otel
from asok_trace.stamp import tracing

receiving: Final = Piece("opening the scope of a WebSocket message")

# Where an ASGI scope carries its dialogue.
CARRIED: Final = "asok_trace.dialogue"


class Dialogue:
    """One connection's message after message: each lasts until the handler asks for the next."""

    __slots__ = ("_connection", "_message", "_span")

    def __init__(self, connection: Scope) -> None:
        self._connection = connection
        self._message: Scope | None = None
        self._span: Any = None

    def received(self) -> None:
        """Begin with the message that has just been received, in this context. Never raises."""
        contained(receiving, self._next)

    def end(self) -> None:
        """End the message that was last received."""
        message, self._message = self._message, None
        if message is None:
            return
        if self._span is not None:
            attempted(tracing.tracing, self._span.end_message, message, message._error)
            self._span = None
        message.close()

    def _next(self) -> None:
        self.end()
        connection = self._connection
        connection.fresh()
        made = Scope(
            ids.make(),
            "message",
            method="message",
            path=connection._path,
            ip=connection._ip,
            live=connection._live,
            line=otel.line(),
            events=connection._events,
            bound={**connection._bound, names.CONNECTION_ID: connection._request_id},
        )
        made._route = connection._route
        made.set_user(connection._user)
        self._message = made
        ACTIVE.set(made)
        spans = tracing.spans()
        if spans is not None:
            contained(tracing.tracing, self._trace, spans, made)

    def _trace(self, spans: Any, message: Scope) -> None:
        # Not detached: the next one takes its place, and the handler's task ends with the last.
        self._span = spans.start_message(message, nested=False)
        spans.attach(self._span.context)

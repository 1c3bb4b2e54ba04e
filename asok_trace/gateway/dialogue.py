"""The messages of one ASGI WebSocket connection: a scope for each, in the task that received it."""

import asyncio
from typing import Any, Final, NamedTuple, Self

from asok_trace.core import ids, names
from asok_trace.core.errors import Piece, attempted, contained
from asok_trace.core.scope import ACTIVE, Fields, Scope
from asok_trace.detect import leaks
from asok_trace.frameworks import otel
from asok_trace.stamp import tracing

receiving: Final = Piece("opening the scope of a WebSocket message")

# Where an ASGI scope carries its dialogue.
CARRIED: Final = "asok_trace.dialogue"


class _Message(NamedTuple):
    """What a task is at."""

    scope: Scope
    before: Scope | None
    span: Any
    token: Any


class Dialogue:
    """One connection's message after message: each lasts until its task asks for the next one, or
    the connection ends."""

    __slots__ = ("_connection", "_messages")

    def __init__(self, connection: Scope) -> None:
        self._connection = connection
        # Of the task that received it: several may serve one connection.
        self._messages: dict[Any, _Message] = {}

    # As with the scope: middlewares deep-copy the ASGI scope that it rides in.
    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def asked(self) -> None:
        """End the message that this task is at: it wants another one. Never raises."""
        if self._messages:
            contained(receiving, self._leave)

    def received(self) -> None:
        """Begin with the message that has just been received, in this context. Never raises."""
        contained(receiving, self._enter)

    def end(self, error: BaseException | None = None) -> None:
        """End what there is, with the connection; ``error`` is what this task has raised."""
        here = _task()
        for task in list(self._messages):
            message = self._messages.pop(task)
            if task is here and isinstance(error, Exception):
                message.scope._error = error
            if task is here and message.token is not None:
                attempted(tracing.tracing, _detach, message.token)
            self._close(message)

    def _leave(self) -> None:
        message = self._messages.pop(_task(), None)
        if message is None:
            return
        if message.token is not None:
            attempted(tracing.tracing, _detach, message.token)
        if ACTIVE.get() is message.scope:
            ACTIVE.set(message.before)
        self._close(message)

    def _close(self, message: _Message) -> None:
        scope = message.scope
        if scope._error is not None:
            self._connection._error = scope._error  # nothing goes on after it
        if message.span is not None:
            attempted(tracing.tracing, message.span.end_message, scope, scope._error)
        scope.close(line=leaks.late(scope._line))

    def _enter(self) -> None:
        self._leave()
        for task in [task for task in self._messages if task is not None and task.done()]:
            self._close(self._messages.pop(task))
        connection = self._connection
        connection.fresh()
        made = Scope(
            ids.make(),
            "message",
            method="message",
            path=connection._path,
            ip=connection._ip,
            live=self._follow,
            line=otel.line(),
            events=connection._events,
            bound={**connection._bound, names.CONNECTION_ID: connection._request_id},
        )
        made._route = connection._route
        made.set_user(connection._user)
        before = ACTIVE.get()
        ACTIVE.set(made)
        spans = tracing.spans()
        span, token = None, None
        if spans is not None:
            span, token = contained(tracing.tracing, _trace, spans, made) or (None, None)
        self._messages[_task()] = _Message(made, before, span, token)

    def _follow(self, message: Scope) -> Fields:
        """Who a message is from, is what the connection knows by now."""
        connection = self._connection
        connection.fresh()
        if connection._user != message._user:
            message.set_user(connection._user)
        return message._fields


def _task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:  # another event loop than asyncio's
        return None


def _trace(spans: Any, message: Scope) -> tuple[Any, Any]:
    span = spans.start_message(message, nested=False)
    return span, spans.attach(span.context)


def _detach(token: Any) -> None:
    """Undo the attachment of a message's span."""
    spans = tracing.spans()
    if spans is not None:
        spans.detach(token)

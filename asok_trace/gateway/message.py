"""The message gateway: a scope per WebSocket message, and for the connection's two ends."""

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from asok_trace.core import findings, ids, names, text
from asok_trace.core.errors import Piece, attempted, contained
from asok_trace.core.hooks import Hook
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect import explain, leaks
from asok_trace.frameworks import base, otel
from asok_trace.frameworks.base import Connection
from asok_trace.gateway.gate import Gate
from asok_trace.stamp import tracing

opening: Final = Piece("opening the scope of a WebSocket message")
activating: Final = Piece("making the request current in a WebSocket handler")
closing: Final = Piece(
    "closing the scope of a WebSocket message", then="the next message is tried again"
)

# The id of each live connection: the one its handshake brought, or made.
_ids: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()


def gateway(hook: Hook, gate: Gate, event: str) -> Callable[..., Any]:
    """Return the replacement of ``hook.original``, which is called with a connection.

    ``event`` is ``connect``, ``message`` or ``disconnect``.
    """

    def handle(*args: Any, **kwargs: Any) -> Any:
        visit = None
        if hook.active:
            visit = contained(opening, _Visit, gate, args, event)
        if visit is None:
            return hook.original(*args, **kwargs)
        return visit.run(partial(hook.original, *args, **kwargs))

    return handle


class _Visit:
    """One event of a connection, and the scope that is open meanwhile."""

    __slots__ = ("_activated", "_gate", "_request", "_span", "_spans", "_token", "scope")

    def __init__(self, gate: Gate, args: tuple[Any, ...], event: str) -> None:
        settings = gate.settings
        connection = gate.framework.connection(gate.app, args, settings.request_id_header)
        findings.serve()
        self._gate = gate
        self._request = connection.request
        self._activated: Any = None
        self._spans = tracing.spans()
        self._span: Any = None
        self._token: Any = None
        self.scope = Scope(
            ids.make(),
            "message",
            method=event,
            path=text.clean(connection.path, text.PATH_LIMIT),
            ip=connection.ip,
            live=gate.live,
            line=otel.line(),
            events=settings.log_events,
            bound={names.CONNECTION_ID: _id(connection, settings.trust_incoming)},
        )
        self.scope._route = connection.route
        self.scope.set_user(connection.user)
        if self._request is not None:
            self._request.environ[names.CARRIED] = self.scope

    def run(self, function: Callable[[], Any]) -> Any:
        """Call ``function``, which handles the event, in this scope."""
        if self._gate.settings.isolate:
            # What a handler leaves in its context must not meet the connection's next message.
            return copy_context().run(self._handle, function)
        before = ACTIVE.get()
        try:
            return self._handle(function)
        finally:
            ACTIVE.set(before if before is not None and before._running else None)

    def _handle(self, function: Callable[[], Any]) -> Any:
        around = ACTIVE.get()
        ACTIVE.set(self.scope)
        if self._spans is not None:
            contained(tracing.tracing, self._trace, around is not None and around._running)
        if self._request is not None:
            contained(activating, self._activate)
        error: BaseException | None = None
        try:
            return function()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._end(error)
            error = None  # it holds this frame

    def _trace(self, nested: bool) -> None:
        self._span = self._spans.start_message(self.scope, nested=nested)
        self._token = self._spans.attach(self._span.context)

    def _activate(self) -> None:
        # Asok's documentation promises `current_request` in these handlers; this keeps it.
        managed = self._gate.framework.activate(self._request)
        managed.__enter__()
        self._activated = managed

    def _end(self, error: BaseException | None) -> None:
        scope = self.scope
        explain.passing(error, base.complaints)
        attempted(closing, scope.fresh)
        if self._span is not None:
            failed = scope._error if error is None else error
            attempted(tracing.tracing, self._span.end_message, scope, failed)
        if self._activated is not None:
            attempted(activating, self._activated.__exit__, None, None, None)
        if self._token is not None:
            attempted(tracing.tracing, self._spans.detach, self._token)
        scope.close(self._gate.live_closed, leaks.late(scope._line))


def _id(connection: Connection, trust_incoming: bool) -> str:
    """The id of a connection, the same for each of its events."""
    known = _ids.get(connection.key)
    if known is not None:
        return known
    incoming = ids.accept(connection.incoming_id) if trust_incoming else None
    return _ids.setdefault(connection.key, incoming or ids.make())

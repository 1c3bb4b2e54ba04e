"""The ASGI gateway: a scope per HTTP request, open until the application returns."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from asok_trace.core import findings
from asok_trace.core.errors import contained
from asok_trace.core.hooks import Hook
from asok_trace.core.names import CARRIED
from asok_trace.core.scope import ACTIVE, SERVED, Scope
from asok_trace.frameworks import asgi_scope
from asok_trace.frameworks.base import Framework
from asok_trace.gateway import dialogue as dialogues
from asok_trace.gateway.dialogue import Dialogue
from asok_trace.gateway.exchange import Exchange, header, opening
from asok_trace.gateway.gate import Gate
from asok_trace.stamp import tracing

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_FORWARDED: Final = b"x-forwarded-for"

# Quart's test client inside `with client:` goes on in the request's context when it is over.
_PRESERVED: Final = "_quart._preserve_context"

# What tells the client how its request fares -> the status, where the message has none.
_STARTS: Final[dict[str | None, int | None]] = {
    "http.response.start": None,
    "websocket.http.response.start": None,
    "websocket.accept": 101,
    "websocket.close": 403,  # of a handshake that was not accepted
}
_UP_AND_DOWN: Final = ("lifespan.startup", "lifespan.shutdown")
_DOWN: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
_BODIES: Final = ("http.response.body", "websocket.http.response.body")


def gateway(hook: Hook, gate: Gate) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Return the ASGI callable that replaces ``hook.original``."""

    served = ("http", "websocket") if gate.framework.websockets else ("http",)

    async def asgi(scope: Message, receive: Receive, send: Send) -> None:
        exchange = None
        if hook.active and opening.working and scope["type"] in served:
            try:
                exchange = _open(gate, scope)
            except Exception as error:
                opening.failed(error)
        if hook.active and scope["type"] == "lifespan":
            receive, send = _resting(receive), _flushing(send)
        if exchange is None:
            await hook.original(scope, receive, send)
        else:
            await _run(exchange, gate, hook.original, scope, receive, send)

    return asgi


def _open(gate: Gate, scope: Message) -> Exchange | None:
    found = scope.get(CARRIED)
    if isinstance(found, Scope) and found is ACTIVE.get() and found._open:
        return None  # the same request, handed on within the application: one scope
    settings = gate.settings
    exchange = Exchange(
        gate,
        incoming=asgi_scope.header(scope, settings.request_id_header),
        method=asgi_scope.method(scope),
        path=asgi_scope.path(scope),
        ip=gate.framework.client_ip(gate.app, asgi_scope.peer(scope), _forwarded(scope)),
        kind=scope["type"],
    )
    scope[CARRIED] = exchange.scope
    if exchange.followed:
        exchange.begin(
            partial(asgi_scope.header, scope),
            scope.get("scheme", "http"),
            scope.get("http_version", "1.1"),
        )
    return exchange


async def _run(
    exchange: Exchange,
    gate: Gate,
    application: Callable[..., Awaitable[None]],
    scope: Message,
    receive: Receive,
    send: Send,
) -> None:
    started = False

    async def respond(message: Message) -> None:
        nonlocal started
        kind = message.get("type")
        starts = kind in _STARTS
        if starts:
            if kind != "websocket.close":
                message = contained(header, _with_id, message, gate, exchange) or message
            if not started:
                exchange.response_started(message.get("status", _STARTS[kind]))
        await send(message)
        if starts:
            started = True  # the client has this one, even if asok tries a second
        if kind in _BODIES and not message.get("more_body", False):
            exchange.last_byte()
            if gate.framework.lingers and kind == "http.response.body":
                exchange.end(early=True)

    exchange.preserved = bool(scope.get(_PRESERVED))
    dialogue = None
    if scope["type"] == "websocket":
        dialogue = scope[dialogues.CARRIED] = Dialogue(exchange.scope)
        if not gate.framework.receives:
            receive = _receiving(receive, dialogue)

    # Servers reuse contexts between requests: whatever is found here is overwritten.
    before = ACTIVE.get()
    if before is None or not before._running:
        # Not for a nested call: the server's line is about the request it serves.
        SERVED.set(exchange.scope)
    ACTIVE.set(exchange.scope)
    token = None if exchange.context is None else exchange.attach()
    error: BaseException | None = None
    try:
        await application(scope, receive, respond)
    except BaseException as raised:
        error = raised
        raise
    finally:
        if dialogue is not None:
            dialogue.end(error)
        exchange.judged()
        exchange.end(error, last=False)
        error = None  # a traceback that holds this frame would be a circle
        exchange.detach(token)
        ACTIVE.set(before if before is not None and before._running else None)
        exchange.returned()


def _receiving(receive: Receive, dialogue: Dialogue) -> Receive:
    """Each message begins in the task that receives it."""

    async def receiving() -> Message:
        dialogue.asked()
        message = await receive()
        if message.get("type") == "websocket.receive":
            dialogue.received()
        return message

    return receiving


def received(hook: Hook, _framework: Framework) -> Callable[[Any], Awaitable[Any]]:
    """A framework's own way to receive a message: its handler is in another task than the one that
    asks the server."""

    async def receive(websocket: Any) -> Any:
        dialogue = websocket.scope.get(dialogues.CARRIED) if hook.active else None
        if dialogue is None:
            return await hook.original(websocket)
        dialogue.asked()
        message = await hook.original(websocket)
        dialogue.received()
        return message

    return receive


def _resting(receive: Receive) -> Receive:
    """What the application logs when its server goes up or down has no request behind it; and it
    may go up again, as for each test."""

    async def resting() -> Message:
        message = await receive()
        if message.get("type") in _UP_AND_DOWN:
            findings.rest()
        return message

    return resting


def _flushing(send: Send) -> Send:
    """Before the server says that it is down, tell how much was found, and export the last spans
    and what was counted: some servers then end the process by a signal, and nothing that was
    registered with atexit runs."""

    async def flushing(message: Message) -> None:
        if message.get("type") in _DOWN:
            findings.tell_totals()  # which may be a line to export
            for piece, last in (
                (tracing.tracing, tracing.spans()),
                (tracing.measuring, tracing.meters()),
            ):
                if last is not None:
                    try:
                        await asyncio.to_thread(last.flush)
                    except Exception as error:
                        piece.failed(error)
        await send(message)

    return flushing


def _with_id(message: Message, gate: Gate, exchange: Exchange) -> Message:
    name = gate.settings.request_id_header.encode("ascii")
    lower = name.lower()
    headers = [pair for pair in message.get("headers") or () if pair[0].lower() != lower]
    headers.append((lower, exchange.scope._request_id.encode("ascii")))
    return {**message, "headers": headers}


def _forwarded(scope: Message) -> str | None:
    # As in the environ that asok makes of it: the last one counts, and a dash is an underscore.
    length = len(_FORWARDED)
    last = {key.lower(): value for key, value in scope["headers"] if len(key) == length}
    found = [value for key, value in last.items() if key.replace(b"_", b"-") == _FORWARDED]
    return found[-1].decode("latin-1") if found else None

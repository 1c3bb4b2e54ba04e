"""The ASGI gateway: a scope per HTTP request, open until the application returns."""

from collections.abc import Awaitable, Callable
from typing import Any

from asok_trace.core import text
from asok_trace.core.errors import contained
from asok_trace.core.hooks import Hook
from asok_trace.core.names import CARRIED
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.gateway.exchange import Exchange, Gate, header, opening

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def gateway(hook: Hook, gate: Gate) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Return the ASGI callable that replaces ``hook.original``."""

    async def asgi(scope: Message, receive: Receive, send: Send) -> None:
        exchange = None
        if hook.active and opening.working and scope["type"] == "http":
            try:
                exchange = _open(gate, scope)
            except Exception as error:
                opening.failed(error)
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
    client = scope.get("client")
    exchange = Exchange(
        gate,
        incoming=_header(scope, settings.request_id_header),
        method=scope["method"],
        path=text.clean(scope["path"] or "/", text.PATH_LIMIT),
        ip=gate.framework.client_ip(
            gate.app, client[0] if client else "", _header(scope, "X-Forwarded-For")
        ),
    )
    scope[CARRIED] = exchange.scope
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
        kind = message["type"]
        if kind == "http.response.start" and not started:
            # The first start is the one the client sees; asok may try a second.
            started = True
            exchange.response_started(message.get("status"))
            message = contained(header, _with_id, message, gate, exchange) or message
        await send(message)
        if kind == "http.response.body" and not message.get("more_body", False):
            exchange.last_byte()

    # Servers reuse contexts between requests: whatever is found here is overwritten.
    before = ACTIVE.get()
    ACTIVE.set(exchange.scope)
    error: BaseException | None = None
    try:
        await application(scope, receive, respond)
    except BaseException as raised:
        error = raised
        raise
    finally:
        exchange.end(error)
        error = None  # a traceback that holds this frame would be a circle
        ACTIVE.set(before if before is not None and before._running else None)


def _with_id(message: Message, gate: Gate, exchange: Exchange) -> Message:
    name = gate.settings.request_id_header.encode("ascii")
    lower = name.lower()
    headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != lower]
    headers.append((lower, exchange.scope._request_id.encode("ascii")))
    return {**message, "headers": headers}


def _header(scope: Message, name: str) -> str | None:
    wanted = name.lower().encode("ascii")
    found = [value for key, value in scope["headers"] if key.lower() == wanted]
    # Doubled headers are joined as WSGI servers do.
    return b",".join(found).decode("latin-1") if found else None

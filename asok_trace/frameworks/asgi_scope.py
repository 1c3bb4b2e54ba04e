"""Facts that an ASGI scope holds, for every framework that builds on one."""

from typing import Any

from asok_trace.core import findings, ids, names, settings, text
from asok_trace.core.scope import Live, Scope
from asok_trace.frameworks import otel


def header(scope: dict[str, Any], name: str) -> str | None:
    """Return the request header ``name``, or None. Doubled ones are joined as WSGI servers do."""
    wanted = name.lower().encode("ascii")
    found = [value for key, value in scope["headers"] if key.lower() == wanted]
    return b",".join(found).decode("latin-1") if found else None


def path(scope: dict[str, Any]) -> str:
    """Return the path of the request, escaped and bounded."""
    return text.clean(scope["path"] or "/", text.PATH_LIMIT)


def peer(scope: dict[str, Any]) -> str:
    """Return the address of the client, as the server says; empty if it says none."""
    client = scope.get("client")
    return (client and client[0]) or ""


def method(scope: dict[str, Any]) -> str:
    """Return the HTTP method; a WebSocket's handshake is a GET."""
    return text.clean(scope.get("method", "GET"), text.METHOD_LIMIT)


def unowned(scope: dict[str, Any], live: Live) -> Scope:
    """Return a scope made for the ASGI ``scope``, which carries none, and leave it there."""
    now = settings.default()
    incoming = header(scope, now.request_id_header) if now.trust_incoming else None
    made = Scope(
        ids.accept(incoming) or ids.make(),
        scope["type"],
        method=method(scope),
        path=path(scope),
        ip=text.address(peer(scope)),
        live=live,
        line=otel.line(),
        events=now.log_events,
    )
    findings.serve()
    made._running = False  # no gateway is ever inside
    # Two threads that see the request may both come here; the first one's scope is everyone's.
    kept: Scope = scope.setdefault(names.CARRIED, made)
    return kept

"""Facts that a WSGI environ holds, for every framework that builds on one."""

from functools import lru_cache
from typing import Any

from asok_trace.core import findings, ids, names, settings, text
from asok_trace.core.scope import Live, Scope
from asok_trace.frameworks import otel


def header(environ: dict[str, Any], name: str) -> str | None:
    """Return the request header ``name``, or None. Doubled headers arrive joined by a comma."""
    value = environ.get(_key(name))
    return value if isinstance(value, str) else None


@lru_cache(maxsize=64)
def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def carried(environ: dict[str, Any]) -> Scope | None:
    """Return the scope that ``environ`` carries, or None."""
    scope = environ.get(names.CARRIED)
    return scope if isinstance(scope, Scope) else None


def unowned(environ: dict[str, Any], ip: str | None, live: Live) -> Scope:
    """Return a scope made for ``environ``, which carries none, and leave it there."""
    now = settings.default()
    incoming = header(environ, now.request_id_header) if now.trust_incoming else None
    made = Scope(
        ids.accept(incoming) or ids.make(),
        "http",
        method=text.clean(environ.get("REQUEST_METHOD", "GET"), text.METHOD_LIMIT),
        path=path(environ),
        ip=ip,
        live=live,
        line=otel.line(),
        events=now.log_events,
    )
    findings.serve()
    made._running = False  # no gateway is ever inside
    # Two threads that see the request may both come here; the first one's scope is everyone's.
    kept = environ.setdefault(names.CARRIED, made)
    if not isinstance(kept, Scope):  # a request built outside any carries None
        kept = environ[names.CARRIED] = made
    return kept


def path(environ: dict[str, Any]) -> str:
    """Return the path of the request, decoded, escaped and bounded."""
    return text.clean(text.wsgi_path(environ.get("PATH_INFO") or "/"), text.PATH_LIMIT)

"""What one Asok request with a trivial page pays for its request id.

All cases run on the same application object, in the same process: what they add is a few per
cent of a request, less than two processes differ by. Each is installed before its slice and
taken out again after it. The floor is a wrapper that makes an id, puts it in a ContextVar and
in a header of the response.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

import asok_trace
from tests.benchmarks import site
from tests.benchmarks.worker import Case, Cases, Serve, Setting

_variable: ContextVar[dict[str, str | None] | None] = ContextVar("floor", default=None)


def floor_wsgi(original: Callable[..., Any]) -> Callable[..., Any]:
    """The least that gives a WSGI call a scope with an id, and the response its header."""

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request_id = environ.get("HTTP_X_REQUEST_ID") or os.urandom(16).hex()
        ip, path = environ.get("REMOTE_ADDR"), environ.get("PATH_INFO")
        token = _variable.set({"request_id": request_id, "ip": ip, "path": path})

        def respond(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            headers.append(("X-Request-ID", request_id))
            return start_response(status, headers, *exc_info)

        try:
            return original(environ, respond)
        finally:
            _variable.reset(token)

    return wsgi


def floor_asgi(original: Callable[..., Any]) -> Callable[..., Any]:
    """The least that does the same for an ASGI call."""

    async def asgi(scope: dict[str, Any], receive: Any, send: Callable[..., Any]) -> None:
        incoming = [value for key, value in scope["headers"] if key == b"x-request-id"]
        request_id = incoming[0].decode("latin-1") if incoming else os.urandom(16).hex()
        token = _variable.set(
            {"request_id": request_id, "ip": scope["client"][0], "path": scope["path"]}
        )

        async def respond(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await original(scope, receive, respond)
        finally:
            _variable.reset(token)

    return asgi


@contextmanager
def floored(app: Any) -> Iterator[None]:
    """Both floors, where our gateways go as well."""
    app._wsgi_call = floor_wsgi(app._wsgi_call)
    app._asgi_call = floor_asgi(app._asgi_call)
    try:
        yield
    finally:
        del app._wsgi_call, app._asgi_call


@contextmanager
def traced(app: Any) -> Iterator[None]:
    """Asok's own TracingMiddleware."""
    from asok.middleware.tracing import TracingMiddleware

    names = ("middleware_handlers", "_has_async_middleware", "_middleware_handlers_reversed")
    before = {name: getattr(app, name) for name in names}
    app.middleware_handlers = list(app.middleware_handlers)
    app.use(TracingMiddleware())
    try:
        yield
    finally:
        vars(app).update(before)


@contextmanager
def instrumented(app: Any, *, access_log: bool) -> Iterator[None]:
    """Ours; the canonical line goes through structlog as JSON to nowhere."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        structlog.configure(
            processors=[asok_trace.inject, structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(nowhere),
        )
        try:
            with asok_trace.instrument(app, access_log=access_log):
                yield
        finally:
            structlog.reset_defaults()


def cases(app: Any, send: Callable[[Any], None]) -> Cases:
    """All of it on one application."""

    def run(requests: int) -> int:
        took = []
        for _ in range(requests):
            start = time.process_time_ns()
            send(app)
            took.append(time.process_time_ns() - start)
        # What is added is a few per cent: one disturbed request of a slice would hide it.
        return round(statistics.median(took) * requests)

    return {
        "nothing": Case(run),
        "floor": Case(run, lambda: floored(app)),
        "ids": Case(run, lambda: instrumented(app, access_log=False)),
        "access_log": Case(run, lambda: instrumented(app, access_log=True)),
        "TracingMiddleware": Case(run, lambda: traced(app)),
    }


def served(client: Callable[[], Callable[[Any], None]]) -> Setting:
    """An application and somebody who calls it."""

    def setting(serve: Serve) -> None:
        serve(cases(site.make(), client()))

    return setting


SETTINGS: dict[str, Setting] = {
    "wsgi": served(lambda: site.wsgi),
    "asgi": served(site.asgi_client),
}

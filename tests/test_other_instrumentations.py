"""Beside OpenTelemetry's own instrumentations, whichever comes first, a request has one server
span, and everything says the same id.

needs: flask, opentelemetry.instrumentation, quart
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
import quart
import structlog
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiMiddleware
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind

import asok_trace

PATHS = {"/plain": 200, "/boom": 500, "/early": 200, "/stream": 200, "/nowhere": 404}

Line = dict[str, Any]
Hook = Callable[[Any], Any]
Replies = dict[str, tuple[int, list[str]]]


class Seen:
    """What was logged, and which spans ended."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.exporter = InMemorySpanExporter()

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """A tracer provider and a structlog chain for one test."""
    made = Seen()
    provider = TracerProvider(sampler=asok_trace.StampingSampler(ALWAYS_ON))
    provider.add_span_processor(SimpleSpanProcessor(made.exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)

    def capture(_logger: Any, _name: str, event: Any) -> Any:
        made.lines.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[asok_trace.inject, capture])
    yield made
    assert not trace.get_current_span().get_span_context().is_valid, "a span was left attached"


def inside() -> None:
    """Log a line, and make a span."""
    structlog.get_logger().info("inside")
    with trace.get_tracer("shop").start_as_current_span("work"):
        pass


def flask_app() -> Any:
    """A site of Flask."""
    app = flask.Flask("shop")

    @app.before_request
    def early() -> str | None:
        return "early" if flask.request.path == "/early" else None

    @app.get("/plain")
    def plain() -> str:
        inside()
        return "plain"

    @app.get("/boom")
    def boom() -> str:
        inside()
        raise LookupError("boom")

    @app.get("/stream")
    def stream() -> Any:
        def parts() -> Iterator[str]:
            yield "a"
            inside()
            yield "b"

        return flask.Response(parts())

    return app


def quart_app() -> Any:
    """The same of Quart."""
    app = quart.Quart("shop")

    @app.before_request
    async def early() -> str | None:
        return "early" if quart.request.path == "/early" else None

    @app.get("/plain")
    async def plain() -> str:
        inside()
        return "plain"

    @app.get("/boom")
    async def boom() -> str:
        inside()
        raise LookupError("boom")

    @app.get("/stream")
    async def stream() -> Any:
        async def parts() -> Any:
            yield b"a"
            inside()
            yield b"b"

        return quart.Response(parts())

    return app


def ask_flask(app: Any) -> Replies:
    """Ask for every path, one after the other on this thread."""
    client = app.test_client()
    found: Replies = {}
    for path in PATHS:
        reply = client.get(path, buffered=True)
        found[path] = (reply.status_code, reply.headers.getlist("X-Request-ID"))
    return found


def ask_quart(app: Any) -> Replies:
    """Ask for every path, one after the other in one task."""

    async def ask() -> Replies:
        client = app.test_client()
        found: Replies = {}
        for path in PATHS:
            reply = await client.get(path)
            found[path] = (reply.status_code, reply.headers.getlist("X-Request-ID"))
        return found

    return asyncio.run(ask())


def flask_instrumentor(app: Any) -> None:
    """OpenTelemetry's own for one application."""
    FlaskInstrumentor().instrument_app(app)


def wsgi_middleware(app: Any) -> None:
    """OpenTelemetry's middleware around the application."""
    app.wsgi_app = WsgiMiddleware(app.wsgi_app)


def asgi_middleware(app: Any) -> None:
    """The same for ASGI."""
    app.asgi_app = AsgiMiddleware(app.asgi_app)


CASES: dict[str, tuple[Callable[[], Any], Hook, Callable[[Any], Replies]]] = {
    "flask": (flask_app, flask_instrumentor, ask_flask),
    "wsgi": (flask_app, wsgi_middleware, ask_flask),
    "asgi": (quart_app, asgi_middleware, ask_quart),
}


def check(seen: Seen, replies: Replies, caplog: pytest.LogCaptureFixture) -> None:
    """Each reply has one id, one SERVER span, and nothing that says otherwise."""
    assert {path: status for path, (status, _) in replies.items()} == PATHS
    servers = [span for span in seen.spans if span.kind is SpanKind.SERVER]
    assert len(servers) == len(PATHS), [(span.name, span.kind) for span in seen.spans]
    for span in seen.spans:
        assert "request.id" in (span.attributes or {}), span.name
    for path, (status, ids) in replies.items():
        [request_id] = ids
        mine = [
            span for span in seen.spans if dict(span.attributes or {})["request.id"] == request_id
        ]
        [server] = [span for span in mine if span.kind is SpanKind.SERVER]
        assert {span.context.trace_id for span in mine} == {server.context.trace_id}
        lines = [line for line in seen.lines if line.get("request_id") == request_id]
        assert {line["trace_id"] for line in lines} == {f"{server.context.trace_id:032x}"}
        [canonical] = [line for line in lines if line["event"] == "request"]
        assert canonical["span_id"] == f"{server.context.span_id:016x}"
        assert (canonical["path"], canonical["status"]) == (path, status)
        works = [span for span in mine if span.name == "work"]
        assert len(works) == (path in ("/plain", "/boom", "/stream"))
        assert all(span.parent is not None for span in works)
        assert server.parent is None
    assert "Failed to detach" not in caplog.text
    assert not [record for record in caplog.records if record.name == "asok_trace"]


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
@pytest.mark.parametrize("case", CASES)
def test_one_server_span(
    seen: Seen, caplog: pytest.LogCaptureFixture, case: str, order: str
) -> None:
    """Exactly one SERVER span a request: plain, failed, answered early, streamed, not found. All
    spans of it carry the id that the header and the lines have, in one trace."""
    make, theirs, ask = CASES[case]
    app = make()
    caplog.set_level(logging.WARNING)
    if order == "theirs first":
        theirs(app)
        asok_trace.instrument(app)
    else:
        asok_trace.instrument(app)
        theirs(app)
    check(seen, ask(app), caplog)


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_the_flask_class_instrumented(
    seen: Seen, caplog: pytest.LogCaptureFixture, order: str
) -> None:
    """The same where OpenTelemetry has replaced flask.Flask: its applications are of a class of its
    own. The other order is an application that was made before."""
    caplog.set_level(logging.WARNING)
    early = flask_app()
    FlaskInstrumentor().instrument()
    try:
        app = flask_app() if order == "theirs first" else early
        asok_trace.instrument(app)
        check(seen, ask_flask(app), caplog)
    finally:
        FlaskInstrumentor().uninstrument()


def test_undo_leaves_theirs(seen: Seen) -> None:
    """After undo() theirs goes on alone."""
    app = flask_app()
    flask_instrumentor(app)
    asok_trace.instrument(app).undo()
    assert ask_flask(app)["/plain"] == (200, [])
    assert [span.kind for span in seen.spans if span.name == "GET /plain"] == [SpanKind.SERVER]

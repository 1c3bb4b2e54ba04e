"""`instrument(callable)`: any WSGI or ASGI application is served behind a gateway of ours.

needs: asok, waitress
"""

import asyncio
import io
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import demo_app
from wsgiref.util import FileWrapper

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind

import asok_trace
from tests.callables import APPS, App, events
from tests.gateway.conftest import lines
from tests.gateway.sites import (
    CLIENTS,
    PEER,
    Line,
    Reply,
    Started,
    asgi_scope,
    canonical,
    environ,
    receiving,
    replied,
    wsgi,
)

__all__ = ["lines"]

Call = Callable[..., Reply]

INTERFACES = ("wsgi", "asgi")


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    """The test runs once for each."""
    found: str = request.param
    return found


@pytest.fixture
def app(interface: str) -> App:
    """An application."""
    return APPS[interface]


@pytest.fixture
def call(interface: str) -> Call:
    """Its client."""
    return CLIENTS[interface]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[ReadableSpan]]:
    """The spans that ended so far, of a global tracer provider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=asok_trace.StampingSampler(ALWAYS_ON))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return lambda: list(exporter.get_finished_spans())


# What is known of a request.


def test_every_line_and_the_response_carry_the_id(app: App, call: Call, lines: list[Line]) -> None:
    """The id is in the header and on every line, with ip and path; the canonical line has the
    method, the status and the duration."""
    reply = call(asok_trace.instrument(app).app, "/there")
    assert (reply.status, reply.body) == (200, b"onetwo")
    assert events(lines) == ["inside", "request"]
    for line in lines:
        assert (line["request_id"], line["ip"], line["path"]) == (*reply.ids, PEER, "/there")
    line = canonical(lines)
    assert (line["method"], line["status"], line["level"]) == ("GET", 200, "info")
    assert line["duration_ms"] >= 0
    assert "user" not in line
    assert "route" not in line


def test_an_id_that_comes_in_is_kept(app: App, call: Call, lines: list[Line]) -> None:
    """X-Request-ID of the request is the id, unless trust_incoming is off."""
    request: dict[str, Any] = {"headers": [("X-Request-ID", "abc-1")]}
    assert call(asok_trace.instrument(app).app, **request).ids == ["abc-1"]
    distrusting = asok_trace.instrument(app, trust_incoming=False)
    [made] = call(distrusting.app, **request).ids
    assert made != "abc-1"


def test_one_server_span(
    app: App, call: Call, lines: list[Line], spans: Callable[[], list[ReadableSpan]]
) -> None:
    """There is one span a request, of kind SERVER; its ids are on the lines, and its trace id is
    the request's id."""
    reply = call(asok_trace.instrument(app).app, "/none")
    [span] = spans()
    assert span.kind is SpanKind.SERVER
    assert span.name == "GET"
    about = dict(span.attributes or {})
    assert about["request.id"] == f"{span.context.trace_id:032x}" == reply.ids[0]
    assert (about["client.address"], about["url.path"]) == (PEER, "/none")
    assert about["http.response.status_code"] == 404
    for line in lines:
        assert line["span_id"] == f"{span.context.span_id:016x}"


def test_an_exception_passes_and_is_told(
    app: App, call: Call, lines: list[Line], spans: Callable[[], list[ReadableSpan]]
) -> None:
    """The server gets the exception; the canonical line names it, at error level, with the status
    that the server will answer; the span has failed."""
    with pytest.raises(LookupError, match="/boom"):
        call(asok_trace.instrument(app).app, "/boom")
    line = canonical(lines)
    assert (line["level"], line["error"], line["status"]) == ("error", "LookupError", 500)
    [span] = spans()
    assert not span.status.is_ok
    assert [event.name for event in span.events] == ["exception"]


def test_a_stream_is_inside(app: App, call: Call, lines: list[Line]) -> None:
    """Lines of a body that is streamed carry the id, and the request ends after the last part."""
    reply = call(asok_trace.instrument(app).app, "/stream")
    assert reply.body == b"onetwo"
    assert events(lines) == ["inside", "streaming", "request"]
    assert {line["request_id"] for line in lines} == set(reply.ids)


def test_the_reply_is_the_same_but_for_the_header(app: App, call: Call, lines: list[Line]) -> None:
    """Status, headers in their order, and body are what they are without us."""
    for path in ("/there", "/none", "/stream"):
        bare = call(app, path)
        assert call(asok_trace.instrument(app).app, path).without_id() == bare.without_id()
        assert bare.ids == []


def test_nothing_is_left_active(app: App, call: Call, lines: list[Line]) -> None:
    """After a request, and after one that failed, there is no scope."""
    served = asok_trace.instrument(app).app
    call(served)
    with pytest.raises(LookupError):
        call(served, "/boom")
    assert asok_trace.current() is None


# Settings.


def test_settings_hold_for_a_callable(app: App, call: Call, lines: list[Line]) -> None:
    """access_log, exclude and request_id_header are those of `instrument`."""
    quiet = asok_trace.instrument(app, access_log=False)
    call(quiet.app)
    assert events(lines) == ["inside"]
    excluding = asok_trace.instrument(app, exclude=["/health"], request_id_header="X-Trace")
    reply = call(excluding.app, "/health")
    assert events(lines) == ["inside", "inside"]
    assert len(reply.all("X-Trace")) == 1
    assert reply.ids == []


def test_the_user_resolver_is_not_asked(app: App, call: Call, lines: list[Line]) -> None:
    """There is no request of a framework to ask about; bind(user=...) is the way."""

    def resolver(request: Any) -> str:
        raise AssertionError(request)

    call(asok_trace.instrument(app, user=resolver).app)
    assert all("user" not in line for line in lines)


def test_bind_tells_the_user(lines: list[Line]) -> None:
    """What the application binds is on the lines from then on."""

    def known(environ: Any, start_response: Any) -> list[bytes]:
        asok_trace.bind(user=7)
        start_response("200 OK", [])
        return []

    wsgi(asok_trace.instrument(known).app)
    assert canonical(lines)["user"] == "7"


def test_threads_are_carried_if_asked(lines: list[Line]) -> None:
    """threads="carry" holds as long as the handle is not undone."""

    def spawning(environ: Any, start_response: Any) -> list[bytes]:
        thread = threading.Thread(target=structlog.get_logger().info, args=("threaded",))
        thread.start()
        thread.join()
        start_response("200 OK", [])
        return []

    with asok_trace.instrument(spawning, threads="carry") as handle:
        reply = wsgi(handle.app)
    assert [line.get("request_id") for line in lines] == reply.ids * 2
    lines.clear()
    spawning(environ(), Started())
    assert [line.get("request_id") for line in lines] == [None]


# WSGI.


def test_the_demo_application_of_the_standard_library(lines: list[Line]) -> None:
    """wsgiref's own is served."""
    reply = wsgi(asok_trace.instrument(demo_app).app, "/there")
    assert reply.body.startswith(b"Hello world!")
    assert canonical(lines)["request_id"] == reply.ids[0]


def test_a_file_wrapper_reaches_the_server_as_it_is(lines: list[Line]) -> None:
    """A server that sends files by itself gets the very object it knows; the request ends when it
    closes that, which closes the file."""
    file = io.BytesIO(b"0123456789")

    def sending(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file)

    asked = environ() | {"wsgi.file_wrapper": FileWrapper}
    body = asok_trace.instrument(sending).app(asked, Started())
    assert type(body) is FileWrapper
    assert lines == []
    assert b"".join(body) == b"0123456789"
    body.close()
    assert file.closed
    assert canonical(lines)["status"] == 200


def test_write_and_exc_info_are_the_server_s(lines: list[Line]) -> None:
    """The write() that start_response returns is handed on, and a second call with exc_info."""
    started = Started()

    def writing(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])(b"text")
        try:
            raise LookupError
        except LookupError as error:
            start_response("503 Oh", [], (type(error), error, None))
        return []

    assert asok_trace.instrument(writing).app(environ(), started) == []
    assert [status for status, _ in started.calls] == ["200 OK", "503 Oh"]
    assert all(
        len([h for h in headers if h[0] == "X-Request-ID"]) == 1 for _, headers in started.calls
    )
    assert canonical(lines)["status"] == 503


# ASGI.


def test_other_scopes_pass(lines: list[Line]) -> None:
    """A lifespan, and types that nobody has heard of, reach the application, and it gets the
    server's own messages."""
    seen: list[Any] = []
    message = {"type": "lifespan.startup"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        assert await receive() is message

    async def receive() -> Any:
        return message

    async def send(message: Any) -> None:
        raise AssertionError(message)

    served = asok_trace.instrument(app).app
    scopes: list[Any] = [{"type": "lifespan"}, {"type": "carrier.pigeon"}]
    for scope in scopes:
        asyncio.run(served(scope, receive, send))
        assert list(scope) == ["type"]
    assert seen == scopes
    assert lines == []


def test_the_scope_of_the_server_is_handed_on(lines: list[Line]) -> None:
    """The application gets the server's dict, which carries our scope besides, and extensions
    such as zero-copy send reach the server as they are."""
    sent: list[Any] = []
    scope = asgi_scope("/file") | {"extensions": {"http.response.pathsend": {}}}

    async def app(got: Any, receive: Any, send: Any) -> None:
        assert got is scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/etc/hosts"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asok_trace.instrument(app).app(scope, receiving(), send))
    assert sent[1] == {"type": "http.response.pathsend", "path": "/etc/hosts"}
    assert replied(sent).ids == [canonical(lines)["request_id"]]


def test_a_start_without_headers(lines: list[Line]) -> None:
    """Headers are optional in ASGI; the id is there all the same."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asok_trace.instrument(app).app(asgi_scope(), receiving(), send))
    assert replied(sent).ids == [canonical(lines)["request_id"]]

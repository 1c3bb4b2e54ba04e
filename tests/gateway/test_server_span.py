"""One server span per request, as OpenTelemetry's HTTP conventions describe it.

needs: asok
"""

import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import asok_trace
from asok_trace.gateway import exchange
from asok_trace.stamp import server_span, tracing
from tests.gateway.sites import (
    PEER,
    Line,
    Reply,
    Site,
    Started,
    asgi,
    canonical,
    environ,
    named,
    say,
    wsgi,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

Call = Callable[..., Reply]


class Traces:
    """What a tracer provider, global for one test, has ended."""

    def __init__(self, sampler: Sampler = ParentBased(ALWAYS_ON)) -> None:  # noqa: B008
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=asok_trace.StampingSampler(sampler))
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def server(self) -> ReadableSpan:
        """The only server span."""
        [found] = [span for span in self.ended if span.kind is SpanKind.SERVER]
        return found


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """A global tracer provider."""
    made = Traces()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made.provider)
    yield made
    assert not trace.get_current_span().get_span_context().is_valid, "a span was left attached"


@pytest.fixture
def instrumented(site: Site) -> Iterator[Site]:
    """A site that is instrumented."""
    with asok_trace.instrument(site.app):
        yield site


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_the_span_of_a_request(
    instrumented: Site, call: Call, traces: Traces, lines: list[Line]
) -> None:
    """Kind, name, attributes and status are those of the stable conventions; no query string."""
    reply = call(
        instrumented.app,
        "/plain",
        query="token=secret",
        headers=[("User-Agent", "Browser/1.0"), ("X-Request-ID", "abc")],
    )
    span = traces.server
    assert span.name == "GET /[name]"
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert about(span) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/[name]",
        "url.path": "/plain",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "localhost",
        "client.address": PEER,
        "user_agent.original": "Browser/1.0",
        "request.id": "abc",
    }
    assert reply.ids == ["abc"]
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("asok_trace", asok_trace.__version__)
    line = canonical(lines)
    assert line["trace_id"] == f"{span.context.trace_id:032x}"
    assert line["span_id"] == f"{span.context.span_id:016x}"


def test_a_made_request_id_is_the_trace_id(instrumented: Site, call: Call, traces: Traces) -> None:
    """One id for the log, the error page and the search box, when we start the root."""
    reply = call(instrumented.app)
    assert reply.ids == [f"{traces.server.context.trace_id:032x}"]
    assert about(traces.server)["request.id"] == reply.ids[0]


def test_also_if_it_is_not_sampled(
    instrumented: Site,
    call: Call,
    lines: list[Line],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trace id of a request that is not recorded is its request id all the same."""
    unsampled = Traces(ALWAYS_OFF)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", unsampled.provider)
    reply = call(instrumented.app)
    assert unsampled.ended == []
    assert [canonical(lines)["trace_id"]] == reply.ids


@pytest.mark.parametrize("trust", [True, False])
def test_the_caller_s_trace_goes_on(
    site: Site, call: Call, traces: Traces, lines: list[Line], trust: bool
) -> None:
    """A valid traceparent is the parent, its tracestate is kept; a made id is an id of its own
    then. Callers that are not trusted are not followed."""
    with asok_trace.instrument(site.app, trust_incoming=trust):
        reply = call(site.app, headers=[("traceparent", TRACEPARENT), ("tracestate", "vendor=x")])
    span = traces.server
    if trust:
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == PARENT
        assert dict(span.context.trace_state) == {"vendor": "x"}
        assert canonical(lines)["trace_id"] == TRACE
        assert reply.ids != [TRACE]
    else:
        assert span.parent is None
        assert reply.ids == [f"{span.context.trace_id:032x}"]


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        TRACEPARENT.upper(),
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
        "x" * 5000,
    ],
)
def test_a_malformed_traceparent_is_ignored(
    instrumented: Site, call: Call, traces: Traces, traceparent: str
) -> None:
    """As the W3C recommendation says: a new trace is started."""
    headers = [("traceparent", traceparent), ("tracestate", "vendor=x")]
    reply = call(instrumented.app, headers=headers)
    assert traces.server.parent is None
    assert reply.ids == [f"{traces.server.context.trace_id:032x}"]


@pytest.mark.parametrize("tracestate", ["", "=", "a" * 5000, "x=1,x=2", "\x7f"])
def test_a_malformed_tracestate_costs_itself_alone(
    instrumented: Site, call: Call, traces: Traces, tracestate: str
) -> None:
    """The traceparent beside it is followed."""
    headers = [("traceparent", TRACEPARENT), ("tracestate", tracestate)]
    assert call(instrumented.app, headers=headers).status == 200
    assert f"{traces.server.context.trace_id:032x}" == TRACE


def test_a_doubled_traceparent_is_ignored(instrumented: Site, call: Call, traces: Traces) -> None:
    """Two parents are none."""
    call(instrumented.app, headers=[("traceparent", TRACEPARENT)] * 2)
    assert traces.server.parent is None


def test_spans_within_are_children_and_stamped(
    instrumented: Site, call: Call, traces: Traces, lines: list[Line]
) -> None:
    """A view's spans, also in a thread that carries the context, hang below the request's; lines
    inside them carry their ids."""

    @instrumented.view
    def cart(request: Any) -> str:
        def work() -> None:
            with traces.tracer.start_as_current_span("in thread"):
                say("working")

        with traces.tracer.start_as_current_span("in view"):
            say("viewing")
            thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
            thread.start()
            thread.join()
        say("outside of it")
        return "done"

    call(instrumented.app, "/cart", headers=[("X-Request-ID", "abc")])
    in_thread, in_view, server = traces.ended
    assert (in_view.parent, in_thread.parent) == (server.context, in_view.context)
    for span in (in_thread, in_view):
        assert about(span) == {"request.id": "abc", "client.address": PEER, "url.path": "/cart"}
    for event, span in (("working", in_thread), ("viewing", in_view), ("outside of it", server)):
        assert named(lines, event)["span_id"] == f"{span.context.span_id:016x}"
        assert named(lines, event)["trace_id"] == f"{server.context.trace_id:032x}"


def test_the_user_is_on_the_span(
    instrumented: Site, call: Call, traces: Traces, users: Any
) -> None:
    """As it was at the end of the request; on later spans from the moment it is known."""

    @instrumented.view
    def login(request: Any) -> str:
        traces.tracer.start_span("before").end()
        request.login(users.find(id=2))
        traces.tracer.start_span("after").end()
        return "welcome"

    call(instrumented.app, "/login")
    before, after, server = traces.ended
    assert "user.id" not in about(before)
    assert about(after)["user.id"] == "2"
    assert about(server)["user.id"] == "2"


def test_an_exception_is_recorded(
    instrumented: Site, call: Call, traces: Traces, lines: list[Line]
) -> None:
    """Asok makes a page of it; the span says what it was, and is an error."""

    @instrumented.view
    def broken(request: Any) -> str:
        raise LookupError("no such cart")

    assert call(instrumented.app, "/broken").status == 500
    span = traces.server
    assert span.status.status_code is StatusCode.ERROR
    assert about(span)["error.type"] == "LookupError"
    assert about(span)["http.response.status_code"] == 500
    [event] = span.events
    assert event.name == "exception"
    assert (event.attributes or {})["exception.message"] == "no such cart"
    assert canonical(lines)["error"] == "LookupError"


def test_an_exception_that_escapes_is_recorded(instrumented: Site, traces: Traces) -> None:
    """One that Asok lets out reaches the server, and is on the span."""
    with pytest.raises(UnicodeDecodeError):
        wsgi(
            instrumented.app,
            method="POST",
            body=b"\xff",
            headers=[("Content-Type", "application/x-www-form-urlencoded")],
        )
    span = traces.server
    assert span.status.status_code is StatusCode.ERROR
    assert about(span)["error.type"] == "UnicodeDecodeError"
    assert about(span)["http.response.status_code"] == 500
    assert span.name == "POST"


def test_what_the_client_got_wrong_is_no_error(
    instrumented: Site, call: Call, traces: Traces
) -> None:
    """404: the status of a server span stays unset, and there is no route to name it by."""
    assert call(instrumented.app, "/no/such/page").status == 404
    span = traces.server
    assert span.name == "GET"
    assert span.status.status_code is StatusCode.UNSET
    assert "http.route" not in about(span)


def test_an_unknown_method_does_not_name_the_span(instrumented: Site, traces: Traces) -> None:
    """Names and methods of spans come from a closed list; the original is kept beside."""
    wsgi(instrumented.app, method="BREW")
    span = traces.server
    assert span.name.split()[0] == "HTTP"
    assert about(span)["http.request.method"] == "_OTHER"
    assert about(span)["http.request.method_original"] == "BREW"


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("shop.example", "shop.example", None),
        ("shop.example:8443", "shop.example", 8443),
        ("[::1]:80", "::1", 80),
        ("[::1]", "::1", None),
        ("x:99999999", "x:99999999", None),
        ("a\x1bb", r"a\x1bb", None),
        ("x" * 300, "x" * 255 + "…", None),
    ],
)
def test_the_host_header(
    instrumented: Site, traces: Traces, host: str, address: str, port: int | None
) -> None:
    """Address and port are told apart; whatever the client sends is bounded and escaped."""
    request = environ()
    request["HTTP_HOST"] = host
    b"".join(instrumented.app(request, Started()))
    found = about(traces.server)
    assert (found["server.address"], found.get("server.port")) == (address, port)


@pytest.mark.parametrize("isolate", [True, False])
def test_a_streamed_body_is_inside_and_the_span_ends_with_it(
    site: Site, traces: Traces, lines: list[Line], isolate: bool
) -> None:
    """Spans of the body are children; the span is open until the last byte; between the steps
    nothing is attached in the server's context."""

    @site.view
    def stream(request: Any) -> Iterator[str]:
        def body() -> Iterator[str]:
            with traces.tracer.start_as_current_span("in body"):
                say("streaming")
            yield "a"

        return body()

    with asok_trace.instrument(site.app, isolate=isolate):
        wsgi(site.app, "/stream")
    in_body, server = traces.ended
    assert in_body.parent == server.context
    assert named(lines, "streaming")["span_id"] == f"{in_body.context.span_id:016x}"
    assert (server.end_time or 0) >= (in_body.end_time or 0)


def test_the_span_of_another_instrumentation_is_stamped(
    instrumented: Site, call: Call, traces: Traces
) -> None:
    """A server span around us is theirs: we start none, and put the id and the user on it."""
    attributes = {"url.path": "/their/own"}
    with traces.tracer.start_as_current_span("theirs", kind=SpanKind.SERVER, attributes=attributes):
        reply = call(instrumented.app)
    assert traces.server.name == "theirs"
    assert about(traces.server) == {
        "request.id": reply.ids[0],
        "client.address": PEER,
        "url.path": "/their/own",
    }


def test_a_span_around_us_that_is_none_of_a_server_is_a_parent(
    instrumented: Site, call: Call, traces: Traces
) -> None:
    """A script that traces its own steps and calls a test client sees the request below."""
    with traces.tracer.start_as_current_span("script") as script:
        call(instrumented.app)
    assert traces.server.parent == script.get_span_context()


def test_a_span_that_was_left_behind_is_no_parent(instrumented: Site, traces: Traces) -> None:
    """An ended span that somebody forgot in the server's context starts nothing."""
    left = traces.tracer.start_span("left", kind=SpanKind.SERVER)
    token = otel_context.attach(trace.set_span_in_context(left))
    left.end()
    wsgi(instrumented.app)
    otel_context.detach(token)
    server = traces.ended[-1]
    assert server.name == "GET /[name]"
    assert server.parent is None


def test_a_request_within_a_request_is_a_child(
    instrumented: Site, traces: Traces, lines: list[Line]
) -> None:
    """A test client inside a view: its own server span and its own id, below the outer one."""

    @instrumented.view
    def outer(request: Any) -> str:
        wsgi(instrumented.app, "/inner")
        return "done"

    @instrumented.view
    def inner(request: Any) -> str:
        say("inside")
        return "done"

    reply = wsgi(instrumented.app, "/outer")
    below, above = traces.ended
    assert below.parent == above.context
    assert about(above)["request.id"] == reply.ids[0]
    assert about(below)["request.id"] == named(lines, "inside")["request_id"] != reply.ids[0]
    assert about(below)["url.path"] == "/inner"


def test_without_a_provider_nothing_is_traced(
    instrumented: Site, call: Call, lines: list[Line]
) -> None:
    """No span is started and no id is added, however much of OpenTelemetry is imported."""
    assert tracing.spans() is None
    call(instrumented.app)
    assert "trace_id" not in canonical(lines)


def test_a_provider_that_is_set_later_is_used(
    instrumented: Site, call: Call, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether to trace is asked per request: programs set their provider when they like."""
    call(instrumented.app)
    late = Traces()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", late.provider)
    call(instrumented.app)
    assert late.server.name == "GET /[name]"


@pytest.mark.parametrize("part", ["start", "attributes", "extract", "end", "ids", "tracer"])
def test_a_fault_in_tracing_costs_the_span_alone(
    instrumented: Site,
    call: Call,
    traces: Traces,
    lines: list[Line],
    faults: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """The request is answered, stamped and logged as ever; the fault is reported once."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise LookupError("ours")

    owner, name = {
        "start": (server_span, "start"),
        "attributes": (server_span, "_attributes"),
        "extract": (TraceContextTextMapPropagator, "extract"),
        "end": (server_span.ServerSpan, "end"),
        "ids": (server_span.ServerSpan, "ids"),
        "tracer": (server_span, "_tracer"),
    }[part]
    monkeypatch.setattr(owner, name, broken)
    for _ in range(2):
        reply = call(instrumented.app, headers=[("traceparent", TRACEPARENT)])
        assert reply.status == 200
        assert lines[-1]["request_id"] == reply.ids[0]
    assert len(faults) == 1
    assert "tracing requests failed" in faults[0].getMessage()


def test_nothing_is_held_after_the_request(instrumented: Site, call: Call, traces: Traces) -> None:
    """A closed scope that somebody keeps holds neither span nor OpenTelemetry context."""
    kept: list[Any] = []

    @instrumented.view
    def page(request: Any) -> str:
        say("here")
        kept.append(asok_trace.current())
        return "done"

    call(instrumented.app, "/page")
    assert kept[0]._traced is None
    assert exchange.closing.working


def test_log_lines_become_events(site: Site, call: Call, traces: Traces, lines: list[Line]) -> None:
    """With log_events=True each line is an event of the span it was logged in."""

    @site.view
    def page(request: Any) -> str:
        say("viewing", cart=5)
        return "done"

    with asok_trace.instrument(site.app, log_events=True):
        call(site.app, "/page")
    [event] = traces.server.events
    assert event.name == "viewing"
    assert dict(event.attributes or {}) == {"level": "info", "cart": 5}


def test_asgi_spans_end_with_the_last_byte(
    instrumented: Site, traces: Traces, lines: list[Line]
) -> None:
    """What the application does after it is not part of the response."""
    asgi(instrumented.app)
    span = traces.server
    seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
    assert seconds > 0
    assert canonical(lines)["duration_ms"] > 0

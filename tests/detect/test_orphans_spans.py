"""Spans outside any request: found by sampler and processor alike, and none that begin something.

needs: httpx, opentelemetry.instrumentation.httpx
"""

import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

import asok_trace
from asok_trace.core import findings
from tests.detect.places import SECONDS, found, in_pool, in_thread, place, the_only

FINDING = "asok_trace.finding"


@pytest.fixture(params=["sampler", "processor"])
def exported(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> InMemorySpanExporter:
    """What a global tracer provider, that stamps either way, has ended; a request was served."""
    findings.serve()
    exporter = InMemorySpanExporter()
    if request.param == "sampler":
        provider = TracerProvider(sampler=asok_trace.StampingSampler(ALWAYS_ON))
    else:
        provider = TracerProvider()
        provider.add_span_processor(asok_trace.SpanStamper())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def span(name: str = "work", **started: Any) -> None:
    with trace.get_tracer("shop").start_as_current_span(name, **started):  # the span
        pass


def the_span(exported: InMemorySpanExporter) -> ReadableSpan:
    [span] = exported.get_finished_spans()
    return span


def test_a_span_with_no_request_behind_it(exported: InMemorySpanExporter) -> None:
    """It is found where it was started, and can be searched by what it is."""
    span()
    span()
    assert found() == [("outside", 2)]
    finding = the_only()
    assert finding.callsite == f"{place('the span')} span"
    assert finding.message == "span 'work' started with no request behind it"
    attributes = [dict(span.attributes or {}) for span in exported.get_finished_spans()]
    said = {f"{FINDING}.{fact}": getattr(finding, fact) for fact in ("key", "callsite", "message")}
    assert attributes == [{FINDING: "outside", **said}] * 2


def test_a_span_that_was_lost(exported: InMemorySpanExporter) -> None:
    """It names who started the thread; a child of it is lost as well."""

    def work() -> None:
        with trace.get_tracer("shop").start_as_current_span("outer"):
            span()

    with asok_trace.propagate_threads("watch"), asok_trace.scope("a"):
        exported.clear()
        in_pool(work)
    assert found() == [("lost", 1), ("lost", 1)]
    assert all("started at " in (one.origin or "") for one in findings.findings())
    marks = {s.name: dict(s.attributes or {}).get(FINDING) for s in exported.get_finished_spans()}
    assert (marks["outer"], marks["work"]) == ("lost", "lost")


def test_before_the_first_request_spans_are_counted(exported: InMemorySpanExporter) -> None:
    """And not marked."""
    findings.clear()
    span()
    assert (found(), findings.totals()) == ([], "startup 1")
    assert FINDING not in dict(the_span(exported).attributes or {})


@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.CONSUMER])
def test_what_begins_something_is_no_orphan(kind: SpanKind, exported: InMemorySpanExporter) -> None:
    """Nor is anything within it: there is something behind it."""
    with trace.get_tracer("server").start_as_current_span("GET /", kind=kind):
        span()
    assert findings.totals() == ""


def test_a_span_of_a_trace_from_elsewhere(exported: InMemorySpanExporter) -> None:
    """Its parent is in another process: that is what it belongs to."""
    parent = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    span(context=trace.set_span_in_context(parent))
    assert findings.totals() == ""


def test_an_ignored_span_is_not_marked(exported: InMemorySpanExporter) -> None:
    """As long as the rule holds."""
    with asok_trace.ignore(module=__name__):
        span()
        assert FINDING not in dict(the_span(exported).attributes or {})
    exported.clear()
    span()
    assert dict(the_span(exported).attributes or {})[FINDING] == "outside"


def test_our_own_spans_are_none(exported: InMemorySpanExporter) -> None:
    """A unit of work, a task that outlives it, a request of any application."""

    def app(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [b""]

    with asok_trace.scope("nightly"):
        in_thread(asok_trace.wrap(lambda: None, outlive=True))
    served = asok_trace.instrument(app, interface="wsgi").app
    body = served({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None)
    assert list(body) == [b""]
    assert {str(span.kind) for span in exported.get_finished_spans()} == {
        "SpanKind.INTERNAL",
        "SpanKind.SERVER",
    }
    assert findings.totals() == ""


def test_a_callback_that_starts_a_span(exported: InMemorySpanExporter) -> None:
    """What it does is no finding."""
    asok_trace.on_finding(lambda _: span("of the callback"))
    with trace.get_tracer("shop").start_as_current_span("first"):
        pass
    assert found() == [("outside", 1)]


@pytest.fixture
def url() -> Iterator[str]:
    """Of a server that answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join(SECONDS)
    server.server_close()


def test_an_instrumented_client_in_a_plain_thread(exported: InMemorySpanExporter, url: str) -> None:
    """One finding, at the program's call, though two libraries stand between."""
    logging.getLogger("httpx").setLevel(logging.WARNING)

    def poll() -> None:
        with httpx.Client(trust_env=False) as client:
            client.get(url)  # the call of the client

    HTTPXClientInstrumentor().instrument()
    try:
        in_thread(poll)
        in_thread(poll)
    finally:
        HTTPXClientInstrumentor().uninstrument()
    assert found() == [("outside", 2)]
    assert the_only().callsite == f"{place('the call of the client')} poll"
    assert {dict(s.attributes or {})[FINDING] for s in exported.get_finished_spans()} == {"outside"}

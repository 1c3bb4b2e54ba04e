"""Which span is marked with what was found: that of the request whose it is.

needs: asok, flask
"""

import gc
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any, NamedTuple

import flask
import pytest
from asok.context import request_var
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from asok_trace.core import findings
from asok_trace.core.scope import Scope
from tests.detect.strict import strict_context
from tests.gateway import sites
from tests.gateway.found import leak, leaks, nothing_found
from tests.gateway.sites import Site, Started

__all__ = ["nothing_found"]

MARK = "asok_trace.finding"


class Marked(NamedTuple):
    """The spans that carry a mark, each with its attribute and its events."""

    name: str
    attribute: Any
    events: list[str]


class Traced:
    """A tracer, and the spans that have ended."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.tracer = provider.get_tracer("shop")
        self._exporter = exporter

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        """In the order in which they have."""
        return self._exporter.get_finished_spans()

    @property
    def marked(self) -> list[Marked]:
        """Those with a mark of either kind."""
        found = [
            Marked(
                span.name,
                (span.attributes or {}).get(MARK),
                [str((e.attributes or {})[MARK]) for e in span.events if e.name == MARK],
            )
            for span in self.ended
        ]
        return [one for one in found if one.attribute is not None or one.events]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """Somebody traces."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield Traced(provider, exporter)
    provider.shutdown()


@pytest.fixture
def app(traced: Traced) -> Iterator[flask.Flask]:
    """An instrumented application."""
    made = flask.Flask("shop")
    made.testing = True
    handle = asok_trace.instrument(made)
    yield made
    handle.undo()


def ask(app: flask.Flask, path: str) -> bytes:
    """One call, as a server does it, in a context of its own; the body."""
    return copy_context().run(sites.wsgi, app, path).body


def test_what_bleeds_marks_the_request(app: flask.Flask, traced: Traced) -> None:
    """The server span of each that does; not the span that is current since it was leaked."""
    left = []

    @app.get("/leaky")
    def leaky() -> str:
        left.append(traced.tracer.start_span("charge"))
        otel_context.attach(trace.set_span_in_context(left[-1]))
        return "leaky"

    for _ in range(2):
        assert ask(app, "/leaky") == b"leaky"
    for span in left:
        span.end()
    assert leak("bleed").count == 2
    assert traced.marked == [Marked("GET /leaky", "bleed", ["bleed"])] * 2


def test_a_dropped_body_marks_its_own_request(app: flask.Flask, traced: Traced) -> None:
    """Although it is the next request that finds it, within a span of somebody else's."""

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(iter(["x", "y"]))

    @app.get("/next")
    def following() -> str:
        return "next"

    def sloppy() -> None:
        body = app(sites.environ("/stream"), Started())
        assert next(iter(body)) == b"x"

    copy_context().run(sloppy)
    gc.collect()
    with traced.tracer.start_as_current_span("batch"):
        assert ask(app, "/next") == b"next"
    assert leak("unclosed").path == "GET /stream"
    assert {span.name for span in traced.ended} == {"GET /stream", "GET /next", "batch"}
    assert traced.marked == [Marked("GET /stream", "unclosed", ["unclosed"])]


def test_a_request_left_in_place_marks_nobody_else(site: Site, traced: Traced) -> None:
    """Its own span has ended when the next one begins, which has done nothing wrong."""
    handle = asok_trace.instrument(site.app, isolate=False)
    kept: list[Any] = []

    @site.view
    def kind(request: Any) -> str:
        kept.append(request)
        return "kind"

    def thread() -> None:
        sites.wsgi(site.app, "/kind")
        request_var.set(kept[0])  # a middleware around the application
        with traced.tracer.start_as_current_span("batch"):
            assert sites.wsgi(site.app, "/plain").status == 200

    copy_context().run(thread)
    handle.undo()
    assert leak("bleed").path == "GET /kind"
    assert len(traced.ended) == 3
    assert traced.marked == []


def test_what_goes_on_in_its_trace_stands_for_it(app: flask.Flask, traced: Traced) -> None:
    """Once the request's own span has ended, with the last byte: what the body has not put away
    by then may be so when it is closed."""
    left = []

    class Body:
        def __init__(self) -> None:
            self._environ = flask.request.environ

        def __iter__(self) -> Iterator[bytes]:
            app.request_context(self._environ).push()
            yield b"x"

        def close(self) -> None:
            left.append(traced.tracer.start_span("closing"))
            otel_context.attach(trace.set_span_in_context(left[-1]))

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(Body())

    def call() -> None:
        body: Any = app(sites.environ("/stream"), Started())
        assert b"".join(body) == b"x"
        body.close()

    copy_context().run(call)
    [span] = left
    span.end()
    assert [found.path for found in leaks()] == ["GET /stream"] * 2
    assert traced.marked == [Marked("closing", "bleed", ["bleed"])]
    assert len({one.context.trace_id for one in traced.ended}) == 1


def test_a_foreign_detach_marks_the_request_that_attached(app: flask.Flask, traced: Traced) -> None:
    """Wherever it is detached."""

    @app.get("/moved")
    def moved() -> str:
        span = traced.tracer.start_span("moved")
        token = otel_context.attach(trace.set_span_in_context(span))

        def elsewhere() -> None:
            with traced.tracer.start_as_current_span("elsewhere", otel_context.Context()):
                otel_context.detach(token)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        span.end()
        return "moved"

    with strict_context():
        assert ask(app, "/moved") == b"moved"
        found = {finding.slug for finding in findings.findings()}
    assert "foreign" in found
    marks = {one.name: one.events for one in traced.marked}
    assert set(marks) == {"GET /moved"}
    assert "foreign" in marks["GET /moved"]


def _never_left() -> None:
    asok_trace.scope("nightly").__enter__()


def _thrown_away(tracer: Any) -> Callable[[], None]:
    def attach() -> None:
        otel_context.attach(trace.set_span_in_context(tracer.start_span("thrown away")))

    return attach


@pytest.mark.parametrize("what", ["a unit", "a token"])
def test_what_is_told_later_marks_nobody(app: flask.Flask, traced: Traced, what: str) -> None:
    """What was thrown away is told by whoever looks next: their request has nothing to do with
    it, and is not on the finding's line."""
    seen: list[Any] = []

    @app.get("/look")
    def look() -> str:
        found = asok_trace.findings()
        seen.extend(found)
        return "look"

    with strict_context():
        copy_context().run(_never_left if what == "a unit" else _thrown_away(traced.tracer))
        gc.collect()
        assert ask(app, "/look") == b"look"
    [found] = seen
    assert found.slug == "unclosed"
    assert [span.name for span in traced.ended] == ["GET /look"]
    assert traced.marked == []


def test_what_is_kept_alive_marks_nobody(app: flask.Flask, traced: Traced) -> None:
    """Its request is over, and who asks for the findings is another one."""
    kept: list[Any] = []
    strict = flask.Flask("strict")
    handle = asok_trace.instrument(strict, level="strict", grace=0.0)

    @strict.get("/kept")
    def keep() -> str:
        _KEPT.append(flask.request._get_current_object())  # type: ignore[attr-defined]
        return "kept"

    @app.get("/look")
    def look() -> str:
        kept.extend(asok_trace.findings())
        return "look"

    try:
        assert ask(strict, "/kept") == b"kept"
        assert ask(app, "/look") == b"look"
    finally:
        _KEPT.clear()
        handle.undo()
    assert [found.slug for found in kept] == ["retained"]
    assert traced.marked == []


_KEPT: list[Any] = []


def test_a_closed_scope_holds_no_span(app: flask.Flask, traced: Traced) -> None:
    """As it holds no request: whoever keeps the scope keeps nothing with it."""
    scopes: list[Scope] = []

    @app.get("/page")
    def page() -> str:
        scope = asok_trace.current()
        assert scope is not None
        assert scope._span.is_recording()
        scopes.append(scope)
        return "page"

    ask(app, "/page")
    assert scopes[0]._span is None

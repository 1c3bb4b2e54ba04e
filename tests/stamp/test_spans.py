"""Every span of a unit of work is stamped, by a processor or by a sampler."""

from collections.abc import Callable
from contextvars import copy_context
from threading import Thread

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased
from opentelemetry.trace import Tracer

import asok_trace
from asok_trace.stamp import spans

Started = Callable[[], tuple[ReadableSpan, ...]]


@pytest.fixture(params=["processor", "sampler"])
def tracing(request: pytest.FixtureRequest) -> tuple[Tracer, Started]:
    """A tracer whose spans are stamped, and what has ended."""
    exporter = InMemorySpanExporter()
    if request.param == "sampler":
        provider = TracerProvider(sampler=asok_trace.StampingSampler(ParentBased(ALWAYS_ON)))
    else:
        provider = TracerProvider()
        provider.add_span_processor(asok_trace.SpanStamper())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter.get_finished_spans


def test_spans_of_a_unit_carry_its_facts(tracing: tuple[Tracer, Started]) -> None:
    """The request id, the bound facts, by their names on spans; null facts are left out."""
    tracer, ended = tracing
    with asok_trace.scope("nightly", tenant="acme", user=7, plan=None, ip="1.2.3.4") as scope:
        tracer.start_span("work").end()
    [span] = ended()
    assert dict(span.attributes or {}) == {
        "request.id": scope.request_id,
        "asok_trace.task": "nightly",
        "tenant": "acme",
        "user.id": "7",
        "client.address": "1.2.3.4",
    }


def test_spans_outside_are_left_alone(tracing: tuple[Tracer, Started]) -> None:
    """Nothing is added where no request is."""
    tracer, ended = tracing
    tracer.start_span("work").end()
    assert not ended()[0].attributes


def test_attributes_that_are_there_win(tracing: tuple[Tracer, Started]) -> None:
    """Whoever starts a span with a user.id meant that one."""
    tracer, ended = tracing
    with asok_trace.scope("nightly", user=7) as scope:
        tracer.start_span("work", attributes={"user.id": "other"}).end()
    attributes = ended()[0].attributes or {}
    assert attributes["user.id"] == "other"
    assert attributes["request.id"] == scope.request_id


def test_facts_bound_later_are_on_later_spans(tracing: tuple[Tracer, Started]) -> None:
    """bind() reaches every span started after it."""
    tracer, ended = tracing
    with asok_trace.scope("nightly"):
        tracer.start_span("before").end()
        asok_trace.bind(tenant="acme")
        tracer.start_span("after").end()
    before, after = ended()
    assert "tenant" not in (before.attributes or {})
    assert (after.attributes or {})["tenant"] == "acme"


def test_a_thread_with_a_copied_context_is_inside(tracing: tuple[Tracer, Started]) -> None:
    """Whoever carries the context starts stamped spans."""
    tracer, ended = tracing
    with asok_trace.scope("nightly") as scope:
        work = Thread(
            target=copy_context().run, args=(lambda: tracer.start_span("in thread").end(),)
        )
    work.start()
    work.join()
    assert (ended()[0].attributes or {})["request.id"] == scope.request_id


def test_the_sampler_decides_as_the_one_within() -> None:
    """What the sampler within drops stays dropped, and is not stamped."""
    sampler = asok_trace.StampingSampler(ALWAYS_OFF)
    with asok_trace.scope("nightly"):
        result = sampler.should_sample(None, 1, "x")
    assert result.decision is Decision.DROP
    assert not result.attributes
    assert sampler.get_description() == "StampingSampler{AlwaysOffSampler}"


def test_a_fault_costs_the_stamp_alone(
    tracing: tuple[Tracer, Started],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The span is made without it; the fault is reported once."""
    tracer, ended = tracing
    monkeypatch.setattr(spans.lookup, "here", lambda: 1 / 0)
    tracer.start_span("one").end()
    tracer.start_span("two").end()
    assert [span.name for span in ended()] == ["one", "two"]
    assert caplog.text.count("stamping spans failed") == 1

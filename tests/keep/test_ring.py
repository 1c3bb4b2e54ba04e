"""Recent requests are kept in memory, bounded, and printed as trees."""

import gc
import os
import re
import threading
import weakref

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Status, StatusCode, Tracer

import asok_trace
from asok_trace.keep import ring as rings
from asok_trace.keep.ring import Ring


def tracer_of(ring: Ring) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(ring)
    return provider.get_tracer("test")


def without_times(text: str) -> str:
    return re.sub(r"trace [0-9a-f]{32}", "trace T", re.sub(r"\d+\.\d ms", "N ms", text))


def test_a_trace_is_a_tree_with_durations() -> None:
    """Children stand below their parents in the order they started; errors show."""
    ring = Ring()
    tracer = tracer_of(ring)
    with tracer.start_as_current_span(
        "GET /cart", attributes={"request.id": "id1", "user.id": "7"}
    ):
        with (
            tracer.start_as_current_span("load", attributes={"request.id": "id1"}),
            tracer.start_as_current_span("query") as query,
        ):
            query.set_status(Status(StatusCode.ERROR))
        tracer.start_span("render").end()
    [found] = ring.traces()
    assert without_times(found.tree()) == (
        "GET /cart  N ms  request.id=id1  user.id=7  trace T\n"
        "├─ load  N ms\n"
        "│  └─ query  N ms  ERROR\n"
        "└─ render  N ms"
    )


def test_a_span_whose_parent_is_elsewhere_is_a_root() -> None:
    """A remote caller's span, or one that has not ended, is not needed to print the rest."""
    ring = Ring()
    tracer = tracer_of(ring)
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    tracer.start_span("GET /", context, attributes={"request.id": "id1"}).end()
    assert without_times(ring.traces()[0].tree()) == "GET /  N ms  request.id=id1  trace T"


def test_the_ring_is_bounded() -> None:
    """The oldest trace goes first; a trace keeps so many spans and counts the rest."""
    ring = Ring()
    tracer = tracer_of(ring)
    for number in range(rings.TRACES + 5):
        tracer.start_span(f"request {number}").end()
    assert len(ring.traces()) == rings.TRACES
    assert ring.traces()[0].spans[0].name == "request 5"
    with tracer.start_as_current_span("long"):
        for _ in range(rings.SPANS + 9):
            tracer.start_span("step").end()
    assert ring.traces()[-1].tree().endswith("(+10 more spans)")


def test_nothing_of_a_span_is_held() -> None:
    """Only text and numbers: what a span's attributes referred to is free."""
    ring = Ring()
    span = tracer_of(ring).start_span("work")
    alive = weakref.ref(span)
    span.end()
    del span
    gc.collect()
    assert alive() is None
    assert ring.traces()


def test_unsampled_spans_are_not_kept() -> None:
    """What is not sampled is not for show."""
    ring = Ring()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(ring)
    provider.get_tracer("test").start_span("work").end()
    assert ring.traces() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child starts empty, whatever thread of the parent held the lock."""
    ring = Ring()
    tracer = tracer_of(ring)
    tracer.start_span("parent").end()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ring._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        tracer.start_span("child").end()
        names = [span.name for found in ring.traces() for span in found.spans]
        os._exit(0 if names == ["child"] else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_fault_is_contained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The span ends as ever; the fault is reported once."""
    ring = Ring()
    monkeypatch.setattr(rings, "_about", lambda span: 1 / 0)
    tracer = tracer_of(ring)
    tracer.start_span("one").end()
    tracer.start_span("two").end()
    assert caplog.text.count("keeping spans in memory failed") == 1


def test_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """report() prints the process's ring, or says how to get one."""
    monkeypatch.setattr(rings, "_ring", None)
    assert "asok_trace.setup() keeps spans in memory" in asok_trace.report()
    tracer = tracer_of(rings.ring())
    tracer.start_span("one").end()
    tracer.start_span("two").end()
    assert without_times(asok_trace.report()) == "one  N ms  trace T\n\ntwo  N ms  trace T"

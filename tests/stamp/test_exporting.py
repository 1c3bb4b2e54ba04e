"""What is exported is watched: the queues are bounded, what is lost is counted, and told once.

needs: opentelemetry.exporter.otlp.proto.http
"""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExportResult
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, StaticSampler

from asok_trace.core import findings
from asok_trace.stamp import exporting, metrics, outgoing
from asok_trace.stamp.line_queue import LineQueue
from asok_trace.stamp.metric_push import MetricPush
from asok_trace.stamp.span_queue import SpanQueue
from tests.metrics.conftest import Measured
from tests.metrics.conftest import measured as measured
from tests.programs import run

SECONDS = 30.0
ROOM = 8
BATCH = 2


class Exporter:
    """An exporter whose collector does as it is told."""

    _preferred_temporality: Any = dict.fromkeys((), AggregationTemporality.CUMULATIVE)
    _preferred_aggregation: Any = dict.fromkeys(())

    def __init__(self, results: Any) -> None:
        self.results = results
        self.answer: Callable[[], str] = lambda: "SUCCESS"
        self.attempts = self.taken = self.shut = 0
        self.may_end = threading.Event()
        self.may_end.set()

    def export(self, batch: Any, **_options: Any) -> Any:
        """Answer as told, when it may."""
        self.attempts += 1
        self.may_end.wait(SECONDS)
        if self.shut:
            return self.results.FAILURE
        said = self.answer()
        if said == "SUCCESS" and hasattr(batch, "__len__"):
            self.taken += len(batch)
        return self.results[said] if said else None

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Hold nothing back."""
        return True

    def shutdown(self, **_options: Any) -> None:
        """Be shut down."""
        self.shut += 1


def fails() -> str:
    """Log as the official ones do, and fail."""
    logging.getLogger(__name__).warning("Transient error: %s", "refused")
    logging.getLogger(__name__).error("Failed to export.")
    return "FAILURE"


class Way:
    """A queue, what fills it, and the exporter at its end."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.signal = exporting.SPANS if kind == "spans" else exporting.LINES
        self.things = self.signal.things
        self.exporter = Exporter(SpanExportResult if kind == "spans" else LogRecordExportResult)
        if kind == "spans":
            self.queue: Any = SpanQueue(self.exporter)
            self.provider: Any = TracerProvider(shutdown_on_exit=False)
            self.provider.add_span_processor(self.queue)
            tracer = self.provider.get_tracer("test")
            self.add: Callable[[], None] = lambda: tracer.start_span("x").end()
        else:
            self.queue = LineQueue(self.exporter)
            self.provider = LoggerProvider(shutdown_on_exit=False)
            self.provider.add_log_record_processor(self.queue)
            logger = self.provider.get_logger("test")
            self.add = lambda: logger.emit(severity_number=SeverityNumber.INFO, body="x")

    @property
    def depth(self) -> int:
        """How many wait."""
        return len(self.queue._batch_processor._queue)

    @property
    def lost(self) -> tuple[int, int]:
        """How many found the queue full, and how many were given up by the exporter."""
        counted = exporting.dropped()
        full, failed = ((self.signal.name, why) for why in ("queue_full", "export_failed"))
        return counted[full], counted[failed]

    def fill(self, number: int) -> None:
        """Add so many."""
        for _ in range(number):
            self.add()

    def flush(self) -> bool:
        """Export them all."""
        return bool(self.provider.force_flush(int(SECONDS * 1000)))

    def hold(self) -> None:
        """Have an export begin that does not end, and wait until it has begun."""
        self.exporter.may_end.clear()
        before = self.exporter.attempts
        self.fill(BATCH)
        waiting = threading.Event()
        while self.exporter.attempts == before:
            waiting.wait(0.005)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues of eight, which are exported when a batch is full, or flushed; nothing lost yet."""
    for prefix in ("OTEL_BSP", "OTEL_BLRP"):
        monkeypatch.setenv(f"{prefix}_MAX_QUEUE_SIZE", str(ROOM))
        monkeypatch.setenv(f"{prefix}_MAX_EXPORT_BATCH_SIZE", str(BATCH))
        monkeypatch.setenv(f"{prefix}_SCHEDULE_DELAY", "3600000")
    monkeypatch.setattr(exporting, "_dropped", {})


@pytest.fixture(params=["spans", "lines"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """The way out of spans, and of lines."""
    made = Way(request.param)
    yield made
    made.exporter.may_end.set()
    made.provider.shutdown()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged since it was asked last, by whomever."""

    def since() -> list[str]:
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return said

    return since


def test_a_queue_is_bounded(way: Way) -> None:
    """While the collector does not answer, 20,000 from several threads cost the memory of as many
    as there is room for; nobody waits for the export that is under way, and each is counted."""
    way.hold()
    threads = [threading.Thread(target=way.fill, args=(5000,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert way.depth == ROOM
    assert way.exporter.attempts == 1
    assert way.lost == (20_000 - ROOM, 0)
    if way.kind == "spans":
        gc.collect()
        alive = [one for one in gc.get_objects() if type(one).__mro__[1:2] == (ReadableSpan,)]
        assert len(alive) <= ROOM + BATCH + 4  # and the last of each thread
    way.exporter.may_end.set()
    assert way.flush()
    assert way.exporter.taken == ROOM + BATCH
    assert way.lost == (20_000 - ROOM, 0)


def test_nothing_is_lost_where_there_is_room(way: Way, told: Callable[[], list[str]]) -> None:
    """Nothing is counted, and nothing said."""
    for _ in range(20):
        way.fill(ROOM)
        assert way.flush()
    assert way.exporter.taken == 20 * ROOM
    assert way.lost == (0, 0)
    assert told() == []


def test_failures_are_told_once(way: Way, told: Callable[[], list[str]]) -> None:
    """With the cause that the exporter gave, whose own lines are not logged; and when it works
    again, with how many were lost."""
    way.exporter.answer = fails
    for _ in range(5):
        way.fill(BATCH)
        way.flush()
    [said] = told()
    assert said == (
        f"asok_trace: {way.things} are being lost: Transient error: refused. 2 so far; requests "
        f"go on as ever. Start the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, or correct "
        f"the variable. Further ones are counted by the metric asok_trace.export.dropped; this is "
        f"said once, until {way.things} are exported again."
    )
    assert way.lost == (0, 10)
    way.exporter.answer = lambda: "SUCCESS"
    for _ in range(3):
        way.fill(BATCH)
        assert way.flush()
    assert told() == [f"asok_trace: {way.things} are exported again. 10 were lost meanwhile."]
    assert way.lost == (0, 10)


def test_a_collector_that_comes_and_goes(
    way: Way, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told no more than once a minute; what was lost untold is told with the next."""
    for _ in range(5):
        way.exporter.answer = fails
        way.fill(BATCH)
        way.flush()
        way.exporter.answer = lambda: "SUCCESS"
        way.fill(BATCH)
        way.flush()
    assert [line.partition(": ")[2][:20] for line in told()] == [
        f"{way.things} are being lost"[:20],
        f"{way.things} are exported again"[:20],
    ]
    monkeypatch.setattr(exporting, "_QUIET_SECONDS", 0.0)
    way.exporter.answer = fails
    way.fill(BATCH)
    way.flush()
    [said] = told()
    assert "10 so far" in said
    assert way.lost == (0, 12)


def test_more_than_can_be_exported(way: Way, told: Callable[[], list[str]]) -> None:
    """Where the exports work and the queue overflows meanwhile, that is said, and what helps."""
    way.hold()
    way.fill(ROOM + 3)
    assert told() == []
    way.exporter.may_end.set()
    assert way.flush()
    first, last = told()
    assert "are being lost: there are more than can be exported. 3 so far" in first
    assert f"Raise OTEL_{'BSP' if way.kind == 'spans' else 'BLRP'}_MAX_QUEUE_SIZE" in first
    assert last == f"asok_trace: {way.things} are exported again. 3 were lost meanwhile."


def test_an_export_that_does_not_end(
    way: Way, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector may answer a byte at a time, for ever: it is told by whoever looks next, not
    where a span ends, which may be amid somebody's logging."""
    way.hold()
    way.fill(ROOM)
    monkeypatch.setattr(exporting, "_STUCK_SECONDS", -1.0)
    way.fill(5)
    assert told() == []
    assert len(findings._waiting) == 1
    findings.settle()
    [said] = told()
    assert f"{way.things} are being lost: an export does not come to its end. 5 so far" in said
    way.exporter.may_end.set()
    assert way.flush()
    assert told() == [f"asok_trace: {way.things} are exported again. 5 were lost meanwhile."]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit()], ids=repr)
def test_an_exporter_that_raises(
    way: Way, told: Callable[[], list[str]], error: BaseException
) -> None:
    """It is counted as one that fails, and its traceback is not logged each time."""

    def raises() -> str:
        raise error

    way.exporter.answer = raises
    for _ in range(2):
        try:
            way.queue._watched.export([None] * BATCH)
        except SystemExit:
            assert isinstance(error, SystemExit)
    [said] = told()
    assert way.lost == (0, 4)
    assert ("ValueError('no')" in said) == isinstance(error, ValueError)


def test_an_exporter_that_says_nothing(way: Way, told: Callable[[], list[str]]) -> None:
    """Without a result it has not failed; and a failure it gives no reason for is one."""
    way.exporter.answer = lambda: ""
    way.fill(BATCH)
    assert way.flush()
    assert told() == []
    way.exporter.answer = lambda: "FAILURE"
    way.fill(BATCH)
    way.flush()
    assert "are being lost: the exporter does not say why. 2 so far" in told()[0]


def test_an_exporter_that_is_a_function(told: Callable[[], list[str]]) -> None:
    """Whatever it is made of, it can be watched."""

    class Made:
        def __init__(self) -> None:
            self.export = lambda batch: SpanExportResult.FAILURE

    watched = exporting.Watched(Made(), exporting.SPANS, 5)
    assert watched.export([None]) is SpanExportResult.FAILURE
    assert len(told()) == 1


def test_others_go_on_logging(way: Way, told: Callable[[], list[str]]) -> None:
    """Lines of the exporter's logger are kept back in the thread that exports, while it does."""
    way.hold()
    logging.getLogger(__name__).error("another's")
    assert told() == ["another's"]
    way.exporter.may_end.set()
    way.flush()


def test_what_is_not_sampled_takes_no_room() -> None:
    """Spans that are recorded for others alone are neither queued nor counted."""

    class ForOthers(StaticSampler):
        def __init__(self) -> None:
            super().__init__(Decision.RECORD_ONLY)

    provider = TracerProvider(sampler=ForOthers(), shutdown_on_exit=False)
    exporter = Exporter(SpanExportResult)
    provider.add_span_processor(queue := SpanQueue(exporter))
    for _ in range(ROOM * 2):
        provider.get_tracer("test").start_span("x").end()
    assert queue._watched.takes()
    provider.force_flush()
    assert exporter.attempts == 0
    assert set(exporting.dropped().values()) == {0}
    provider.shutdown()


def test_a_span_that_ends_amid_the_counting(way: Way) -> None:
    """As one does that a collection ends: the thread does not wait for itself."""

    def within() -> None:
        with exporting._lock:
            way.add()

    thread = threading.Thread(target=within, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert way.depth == 1


@pytest.mark.parametrize("name", ["takes", "_count"])
def test_our_own_fault(way: Way, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """If the counting breaks, the queue takes what there is, as the SDK's own."""

    def breaks(_self: exporting.Watched, *_: object) -> None:
        raise ValueError

    monkeypatch.setattr(exporting.Watched, name, breaks)
    way.fill(BATCH)
    assert way.flush()
    assert way.exporter.taken == BATCH


def test_a_flush_lasts_as_long_as_it_may(way: Way) -> None:
    """It gives up in time, however long the export takes; one that was given up is waited for by
    the next, so that there are never more than one."""
    way.hold()
    way.add()
    before = threading.active_count()
    assert [way.queue.force_flush(1) for _ in range(20)] == [False] * 20
    assert threading.active_count() <= before + 1
    way.exporter.may_end.set()
    assert way.flush()
    assert way.exporter.taken == BATCH + 1


def test_a_flush_when_no_thread_can_be_started(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter ends: it exports all the same."""

    def refuses(_self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    way.add()
    monkeypatch.setattr(threading.Thread, "start", refuses)
    assert way.flush()
    assert way.exporter.taken == 1


def test_the_end_exports_what_is_left(way: Way) -> None:
    """Everything, over as many batches as that takes."""
    way.fill(BATCH - 1)
    way.provider.shutdown()
    assert way.exporter.taken == BATCH - 1
    assert way.exporter.shut == 1
    assert way.lost == (0, 0)


def test_the_end_tries_once(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first export at the end fails, the others are not waited for: they are given up,
    and counted."""
    way.queue._batch_processor._max_export_batch_size = ROOM  # none before
    way.fill(ROOM - 1)
    way.queue._batch_processor._max_export_batch_size = BATCH
    tried: list[str] = []

    def answer() -> str:
        tried.append("")
        return "FAILURE"

    way.exporter.answer = answer
    way.provider.shutdown()
    assert len(tried) == 1
    assert way.lost == (0, ROOM - 1)


def test_the_end_after_failures(way: Way) -> None:
    """Where exports have failed already, none is tried."""
    way.exporter.answer = fails
    way.fill(BATCH)
    way.flush()
    tried: list[str] = []
    way.exporter.answer = lambda: tried.append("") or "SUCCESS"
    way.add()
    way.provider.shutdown()
    assert tried == []
    assert way.lost == (0, BATCH + 1)


def test_the_end_waits_for_nobody(
    way: Way, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the collector does not answer: what is under way and what waits counts as lost, once,
    and so does what comes later."""
    monkeypatch.setattr(outgoing, "_END_MILLIS", 1)
    way.hold()
    way.fill(3)
    way.provider.shutdown()
    assert not way.exporter.may_end.is_set()
    assert way.lost == (0, BATCH + 3)
    assert "are being lost: the process ended. 5 so far" in told()[0]
    way.exporter.may_end.set()
    way.queue._batch_processor._worker_thread.join(SECONDS)
    way.queue._watched.takes()
    assert way.lost == (1, BATCH + 3)


def test_what_is_lost_is_measured(measured: Measured) -> None:
    """From nothing on, so that the first loss is an increase; by signal and reason, of what is
    queued here and of nothing else."""
    metrics.Instruments(measured.provider)
    assert measured.points("asok_trace.export.dropped") == []
    way = Way("lines")
    way.exporter.answer = fails

    def values() -> dict[tuple[str, str], int]:
        return {
            (point.attributes["asok_trace.signal"], point.attributes["error.type"]): point.value
            for point in measured.points("asok_trace.export.dropped")
        }

    assert values() == {("logs", "queue_full"): 0, ("logs", "export_failed"): 0}
    way.fill(BATCH)
    way.flush()
    assert values() == {("logs", "queue_full"): 0, ("logs", "export_failed"): BATCH}
    way.provider.shutdown()


@pytest.fixture
def push() -> Iterator[tuple[MetricPush, Exporter]]:
    """What pushes metrics when it is flushed, and its exporter."""
    exporter = Exporter(MetricExportResult)
    reader = MetricPush(exporter)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("test").create_counter("works").add(1)
    yield reader, exporter
    exporter.may_end.set()
    provider.shutdown()


def test_metrics_that_are_not_taken(
    push: tuple[MetricPush, Exporter], told: Callable[[], list[str]]
) -> None:
    """It is told once, and when they are taken again; none was lost, since they are totals."""
    reader, exporter = push
    exporter.answer = fails
    for _ in range(5):
        reader.force_flush()
    assert exporter.attempts == 5
    assert told() == [
        "asok_trace: metrics are not exported: Transient error: refused. Requests go on as ever. "
        "Start the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, or correct the variable. "
        "This is said once, until they are again."
    ]
    exporter.answer = lambda: "SUCCESS"
    for _ in range(2):
        assert reader.force_flush()
    assert told() == ["asok_trace: metrics are exported again."]
    assert exporting.dropped() == {}


def test_the_end_of_metrics(
    push: tuple[MetricPush, Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush and the end wait no longer than they may for the push that is under way."""
    monkeypatch.setattr(outgoing, "_END_MILLIS", 1)
    reader, exporter = push
    exporter.may_end.clear()
    assert not reader.force_flush(1)
    reader.shutdown()
    assert not exporter.may_end.is_set()
    assert exporter.shut == 1


FORKED = """
import os, threading
from asok_trace.stamp import exporting
from opentelemetry import trace

class Exporter:
    export = lambda self, batch: exec("raise ValueError('away')")
    shutdown = lambda self: None

from asok_trace.stamp.span_queue import SpanQueue
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
provider.add_span_processor(queue := SpanQueue(Exporter()))

def work(number):
    for _ in range(number):
        provider.get_tracer("shop").start_span("x").end()

def lost():
    return dict((why, number) for (_, why), number in exporting.dropped().items())

work(3)
provider.force_flush()
held, forked = threading.Event(), threading.Event()

def hold():
    with exporting._lock:
        held.set()
        forked.wait(30)

with queue._batch_processor._export_lock:
    work(10)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
forked.set()
if child == 0:
    print(lost(), queue._watched.failing)
    with queue._batch_processor._export_lock:
        work(10)
    provider.force_flush()
    print(lost(), queue._watched.failing, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
provider.force_flush()
print(lost(), queue._watched.failing)
"""


def test_a_forked_child_counts_from_nothing() -> None:
    """What its parent lost, and had waiting, is its parent's; and a lock that was held then is not
    in its way."""
    out = run(
        FORKED,
        OTEL_BSP_MAX_QUEUE_SIZE="8",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8",
        OTEL_BSP_SCHEDULE_DELAY="3600000",
    )
    assert out.splitlines() == [
        "{'queue_full': 0, 'export_failed': 0} False",
        "{'queue_full': 2, 'export_failed': 8} True",
        "{'queue_full': 2, 'export_failed': 11} True",
    ]

"""Each run of a scheduled function is a unit of work of its own, of kind ``cron``, without a
request; and the function runs as it does without us.

needs: asok, redis
"""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asok import current_request
from asok.scheduler import ScheduledTask, schedule
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import asok_trace
from asok_trace.core.scope import Scope
from tests.gateway.sites import Line, Reply, Site, say

SECONDS = 30

Call = Callable[..., Reply]
Records = list[logging.LogRecord]


class Clock:
    """Scheduled functions, called a few times each, all cancelled at the end."""

    def __init__(self) -> None:
        self.tasks: list[ScheduledTask] = []

    def run(self, function: Callable[[], object], times: int, start: Any = schedule) -> None:
        """Have ``function`` called so many times; its thread has ended when this returns."""
        begin, calls = threading.Event(), []
        tasks: list[ScheduledTask] = []

        @functools.wraps(function)
        def counted() -> None:
            assert begin.wait(SECONDS)
            calls.append(1)
            if len(calls) == times:
                tasks[0].cancel()
            function()

        tasks.append(start(0.01, counted))
        self.tasks += tasks
        begin.set()
        tasks[0]._thread.join(SECONDS)
        assert len(calls) == times


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    monkeypatch.delenv("ASOK_QUEUE_BACKEND", raising=False)
    made = Clock()
    yield made
    for task in made.tasks:
        task.cancel()
        task._thread.join(SECONDS)


def noted(event: str, seen: list[Scope | None] | None = None) -> Callable[[], None]:
    """A function called ``nightly`` that logs, and tells of its scope."""

    def nightly() -> None:
        say(event, known=bool(current_request))
        if seen is not None:
            scope = asok_trace.current()
            assert scope is not None
            assert scope.open
            seen.append(scope)

    return nightly


def stamp(line: dict[str, Any]) -> dict[str, Any]:
    """What we have put on a line, but for its id."""
    return {key: line[key] for key in ("ip", "user", "path", "task", "run") if key in line}


@pytest.mark.parametrize("way", ["schedule", "app.schedule", "as a decorator"])
def test_each_run_is_a_unit_of_work(shop: Site, clock: Clock, lines: list[Line], way: str) -> None:
    """However it is scheduled: each run has an id of its own, its function's name and its number;
    its scope is open meanwhile and closed after; there is no current request."""
    start = {
        "schedule": schedule,
        "app.schedule": shop.app.schedule,
        "as a decorator": lambda interval, function: schedule(interval)(function),
    }[way]
    seen: list[Scope | None] = []
    clock.run(noted("tick", seen), 3, start)
    assert [stamp(line) for line in lines] == [{"task": "nightly", "run": run} for run in "123"]
    assert len({line["request_id"] for line in lines}) == 3
    assert not any(line["known"] for line in lines)
    for scope, line in zip(seen, lines, strict=True):
        assert scope is not None
        assert (scope.kind, scope.name, scope.open) == ("cron", "nightly", False)
        assert scope.request_id == line["request_id"]


def test_each_function_counts_its_own_runs(shop: Site, clock: Clock, lines: list[Line]) -> None:
    """Two scheduled functions of one name are two."""
    clock.run(noted("one"), 2)
    clock.run(noted("other"), 2)
    assert [(line["event"], line["run"]) for line in lines] == [
        ("one", "1"),
        ("one", "2"),
        ("other", "1"),
        ("other", "2"),
    ]


@pytest.mark.parametrize("threads", ["off", "carry"])
def test_scheduled_in_a_page(
    site: Site, clock: Clock, call: Call, lines: list[Line], threads: str
) -> None:
    """It has nothing of the request, whatever is done about threads: another id, no user, and
    `current_request` raises as it does without us."""
    raised: list[str] = []

    def nightly() -> None:
        with pytest.raises(RuntimeError) as error:
            print(current_request.path)
        raised.append(str(error.value))
        say("tick")

    @site.view
    def page(request: Any) -> str:
        clock.run(nightly, 2)
        return "page"

    with asok_trace.instrument(site.app, threads=threads):
        reply = call(site.app, "/page")
    ticks = [line for line in lines if line["event"] == "tick"]
    assert [stamp(line) for line in ticks] == [{"task": "nightly", "run": run} for run in "12"]
    assert len({reply.ids[0], *(line["request_id"] for line in ticks)}) == 3
    assert all("outside of request context" in text for text in raised)


def test_a_run_in_the_context_of_a_page(
    shop: Site, clock: Clock, call: Call, lines: list[Line]
) -> None:
    """As where a Python's threads inherit contexts: no current request in the run all the same,
    and the page has its own again afterwards."""

    @shop.view
    def page(request: Any) -> str:
        before = asok_trace.current()
        task = ScheduledTask(3600.0, noted("tick"))
        clock.tasks.append(task)
        task._execute_task_safe()
        assert asok_trace.current() is before
        assert bool(current_request)
        return "page"

    reply = call(shop.app, "/page")
    assert reply.body == b"page"
    tick, canonical = lines
    assert not tick["known"]
    assert stamp(tick) == {"task": "nightly", "run": "1"}
    assert [canonical["request_id"]] == reply.ids != [tick["request_id"]]


def test_a_run_that_fails(
    shop: Site, clock: Clock, lines: list[Line], records: Records, spans: InMemorySpanExporter
) -> None:
    """Asok logs it and goes on: its line carries the run, from asok's own place; the run's span
    has failed with the exception, and the next one has not."""
    runs: list[int] = []

    def nightly() -> None:
        runs.append(1)
        say("tick")
        if len(runs) == 1:
            raise LookupError("no such night")

    clock.run(nightly, 2)
    [record] = [record for record in records if record.name == "asok.scheduler"]
    assert record.getMessage() == "Scheduled task nightly failed"
    assert record.funcName == "_execute_task_safe"
    stamped = vars(record)
    assert (stamped["task"], stamped["run"]) == ("nightly", "1")
    assert stamped["request_id"] == lines[0]["request_id"] != lines[1]["request_id"]

    failed, fine = sorted(spans.get_finished_spans(), key=lambda span: span.start_time or 0)
    assert (failed.name, failed.parent, failed.status.status_code) == (
        "nightly",
        None,
        StatusCode.ERROR,
    )
    [event] = failed.events
    assert (event.attributes or {})["exception.message"] == "no such night"
    assert dict(failed.attributes or {}) == {
        "request.id": lines[0]["request_id"],
        "asok_trace.task": "nightly",
        "asok_trace.cron.run": "1",
        "error.type": "LookupError",
    }
    assert fine.status.status_code is StatusCode.UNSET
    # A root span's trace id is the id of its run.
    assert [f"{span.context.trace_id:032x}" for span in (failed, fine)] == [
        line["request_id"] for line in lines
    ]


def test_what_asok_does_not_catch(shop: Site, spans: InMemorySpanExporter, clock: Clock) -> None:
    """SystemExit goes through, as without us; the span of that run has failed."""

    def last() -> None:
        raise SystemExit

    task = ScheduledTask(3600.0, last)
    clock.tasks.append(task)
    with pytest.raises(SystemExit):
        task._execute_task_safe()
    [span] = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "SystemExit"


@pytest.mark.parametrize("by", ["keyword", "environment"])
def test_the_setting_cron(
    site: Site, clock: Clock, lines: list[Line], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Off: asok's scheduler is left as it is, and its lines have no id."""
    before = dict(vars(ScheduledTask))
    settings: dict[str, Any] = {}
    if by == "keyword":
        settings["cron"] = False
    else:
        monkeypatch.setenv("ASOK_TRACE_CRON", "0")
    with asok_trace.instrument(site.app, **settings):
        assert dict(vars(ScheduledTask)) == before
        clock.run(noted("tick"), 2)
    assert len(lines) == 2
    for line in lines:
        assert not {"request_id", "task", "run"} & line.keys()


def test_after_undo(shop: Site, clock: Clock, lines: list[Line]) -> None:
    """A function that is scheduled goes on, without us."""
    goes_on, done = threading.Event(), threading.Event()

    def nightly() -> None:
        say("tick")
        if len(lines) == 1:
            assert goes_on.wait(SECONDS)
        else:
            done.set()

    task = schedule(0.01, nightly)
    clock.tasks.append(task)
    while not lines:
        assert task._thread.is_alive()
    asok_trace.instrument(shop.app).undo()
    goes_on.set()
    assert done.wait(SECONDS)
    assert lines[0]["run"] == "1"
    assert not {"request_id", "task", "run"} & lines[1].keys()


def test_another_process_has_the_lock(
    shop: Site, queue: Any, lines: list[Line], spans: InMemorySpanExporter
) -> None:
    """With the Redis backend one process runs each turn: where it is not this one's there is no
    run, no number and no span."""
    ran = threading.Event()

    def nightly() -> None:
        say("tick")
        ran.set()

    # Not started by the clock: asok's own thread calls the same method.
    task = ScheduledTask(3600.0, nightly)
    try:
        key = f"asok:lock:scheduler:{nightly.__module__}:nightly"
        for expected in ("1", "2"):
            queue.set(key, "another process")
            for _ in range(3):
                task._execute_task_safe()
            assert not ran.is_set()
            queue.delete(key)
            task._execute_task_safe()
            assert ran.is_set()
            assert lines[-1]["run"] == expected
            ran.clear()
    finally:
        task.cancel()
        task._thread.join(SECONDS)
    assert len(lines) == 2
    assert [span.name for span in spans.get_finished_spans()] == ["nightly"] * 2
    assert asok_trace.current() is None

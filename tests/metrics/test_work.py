"""Units of work are measured by their kind and their function; findings and late lines by what
they are.

needs: asok
"""

import asyncio
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from asok_trace.core import finding
from asok_trace.core.scope import Scope
from asok_trace.propagate.work import Work
from asok_trace.stamp import metrics
from tests.gateway import sites
from tests.gateway.sites import Site
from tests.metrics.conftest import FINDINGS, JOBS, LATE, Measured
from tests.metrics.test_requests import broken

KIND, TASK, ERROR = "asok_trace.kind", "asok_trace.task", "error.type"


def counted(measured: Measured) -> dict[tuple[Any, ...], int]:
    """Kind, task and error -> how many units of work."""
    return {
        tuple(point.attributes.get(key) for key in (KIND, TASK, ERROR)): point.count
        for point in measured.points(JOBS)
    }


def charge(fails: bool = False) -> None:
    """Work for somebody's request."""
    if fails:
        raise LookupError("charge")


async def charge_later() -> None:
    """The same in an event loop."""
    await asyncio.sleep(0)


def test_what_outlives_its_request(measured: Measured) -> None:
    """Each run of it, by the function's name; what it raises is its error."""
    with asok_trace.scope("nightly"):
        wrapped = asok_trace.wrap(charge, outlive=True)
        later = asok_trace.wrap(charge_later, outlive=True)
    for _ in range(3):
        wrapped()
    with pytest.raises(LookupError):
        wrapped(fails=True)
    asyncio.run(later())
    assert counted(measured) == {
        ("task", "charge", None): 3,
        ("task", "charge", "LookupError"): 1,
        ("task", "charge_later", None): 1,
    }


def test_the_exemplar_is_the_span_of_the_work(
    measured: Measured, spans: InMemorySpanExporter
) -> None:
    """Which is current until it has ended."""
    with asok_trace.scope("nightly"):
        asok_trace.wrap(charge, outlive=True)()
    [span] = spans.get_finished_spans()
    [point] = measured.points(JOBS)
    [exemplar] = point.exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (span.context.trace_id, span.context.span_id)


def test_what_comes_from_a_carrier_is_called_anything(measured: Measured) -> None:
    """The name is the program's own text, which may have a number in it: it is no label."""
    for number in range(5):
        with asok_trace.from_carrier({"asok-trace-user": str(number)}, f"import {number}"):
            pass
    assert counted(measured) == {("job", None, None): 5}


def test_work_that_was_never_entered(measured: Measured) -> None:
    """Or that ends twice, is counted once it has begun."""
    work = Work(Scope("1", "cron", name="tick"))
    work.__exit__(None, None, None)
    assert not measured.points(JOBS)
    work = Work(Scope("2", "cron", name="tick"))
    work.__enter__()
    for _ in range(2):
        work.__exit__(None, None, None)
    assert counted(measured) == {("cron", "tick", None): 1}


def test_a_job_of_asok(measured: Measured, site: Site) -> None:
    """Each attempt in a background thread, of which the request knows no more."""
    ended = threading.Event()

    def reindex() -> None:
        ended.set()

    from asok.background import background

    @site.view
    def page(request: Any) -> str:
        background(reindex)
        return "page"

    asok_trace.instrument(site.app)
    assert sites.wsgi(site.app, "/page").status == 200
    assert ended.wait(20)
    until(lambda: counted(measured))
    assert counted(measured) == {("job", "reindex", None): 1}


def until(condition: Any) -> None:
    """Wait for what another thread does after the last thing that can be seen of it."""
    waiting = threading.Event()
    for _ in range(2000):
        if condition():
            return
        waiting.wait(0.01)


def test_a_scheduled_run(measured: Measured, site: Site) -> None:
    """By the name of its function."""
    asok_trace.instrument(site.app)
    from asok import scheduler

    done = threading.Event()

    def tidy() -> None:
        done.set()

    task = scheduler.schedule(0.01, tidy)
    try:
        assert done.wait(20)
        until(lambda: counted(measured))
    finally:
        task.cancel()
    assert list(counted(measured)) == [("cron", "tidy", None)]


def test_findings_are_counted_by_what_they_are(measured: Measured, site: Site) -> None:
    """From nothing on, for all of them: the first one is an increase."""
    asok_trace.instrument(site.app)
    handler = logging.NullHandler()
    logging.getLogger("asok_trace").addHandler(handler)

    held: list[Any] = []

    @site.view
    def page(request: Any) -> str:
        held.append(asok_trace.wrap(lambda: structlog.get_logger().info("late")))
        return "page"

    structlog.configure(
        processors=[asok_trace.inject, lambda *_: (_ for _ in ()).throw(structlog.DropEvent)]
    )
    assert sites.wsgi(site.app, "/page").status == 200
    found = {p.attributes["asok_trace.finding"]: p for p in measured.points(FINDINGS)}
    assert found.keys() == finding.KINDS.keys()
    assert {slug: p.attributes["asok_trace.finding.kind"] for slug, p in found.items()} == dict(
        finding.KINDS
    )
    assert not any(point.value for point in found.values())
    for _ in range(3):
        held[0]()
    found = {p.attributes["asok_trace.finding"]: p for p in measured.points(FINDINGS)}
    assert {slug: p.value for slug, p in found.items() if p.value} == {"late": 3}
    [late] = measured.points(LATE)
    assert late.value == 3
    assert not late.attributes


def test_a_broken_part(
    measured: Measured, faults: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work goes on, and its end is still seen; it is reported once."""
    monkeypatch.setattr(metrics.Instruments, "worked", broken)
    with asok_trace.scope("nightly"):
        wrapped = asok_trace.wrap(charge, outlive=True)
    for _ in range(3):
        wrapped()
    [record] = faults
    assert "measuring requests and jobs failed" in record.getMessage()


def test_what_a_flush_does() -> None:
    """It asks a provider that can, and no other."""
    asked: list[int] = []
    made = metrics.Instruments.__new__(metrics.Instruments)
    made._provider = SimpleNamespace(force_flush=asked.append)  # type: ignore[assignment]
    made.flush()
    made._provider = object()  # type: ignore[assignment]
    made.flush()
    assert asked == [5000]

"""Each attempt of a background job is a span of its own: a child while its request is open, a
root with a link to it when it starts later.

needs: asok
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asok.background import background
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.gateway.sites import PEER, Reply, Site

SECONDS = 30

Call = Callable[..., Reply]


def called(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """The ended spans of this name, in the order they started in."""
    found = [span for span in spans.get_finished_spans() if span.name == name]
    return sorted(found, key=lambda span: span.start_time or 0)


def server(spans: InMemorySpanExporter) -> ReadableSpan:
    """The only server span."""
    [found] = [span for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER]
    return found


def flaky(failures: int) -> Callable[[], None]:
    """A job that fails so many times."""
    left = [LookupError("not yet")] * failures

    def flaky() -> None:
        if left:
            raise left.pop()

    return flaky


def test_attempts_while_the_request_is_open(
    shop: Site, call: Call, spans: InMemorySpanExporter
) -> None:
    """Children of the server span, with what the log lines carry; the one that failed says so."""
    jobs: list[Any] = []

    @shop.view
    def page(request: Any) -> str:
        jobs.append(background(flaky(1), _queue="low", _retries=1, _backoff=0))
        jobs[0].result(SECONDS)
        return "page"

    reply = call(shop.app, "/page")
    first, second = called(spans, "flaky")
    for number, span in enumerate((first, second), 1):
        assert span.kind is SpanKind.INTERNAL
        assert span.parent is not None
        assert span.parent.span_id == server(spans).context.span_id
        assert not span.links
        assert dict(span.attributes or {}) == {
            "request.id": reply.ids[0],
            "client.address": PEER,
            "url.path": "/page",
            "asok_trace.task": "flaky",
            "messaging.destination.name": "low",
            "asok_trace.job.attempt": str(number),
            "messaging.message.id": jobs[0].job_id,
            **({"error.type": "LookupError"} if number == 1 else {}),
        }
    assert first.status.status_code is StatusCode.ERROR
    [event] = first.events
    assert (event.name, (event.attributes or {})["exception.message"]) == ("exception", "not yet")
    assert second.status.status_code is StatusCode.UNSET
    assert not second.events


def test_attempts_that_start_when_the_request_is_over(
    shop: Site, call: Call, spans: InMemorySpanExporter
) -> None:
    """The first began in time and is a child, however long it takes; the retry is a root with a
    link to the server span, and the request's id."""
    began, goes_on, jobs = threading.Event(), threading.Event(), []
    failing = flaky(1)

    def slow() -> None:
        began.set()
        assert goes_on.wait(SECONDS)
        failing()

    @shop.view
    def page(request: Any) -> str:
        jobs.append(background(slow, _retries=1, _backoff=0))
        assert began.wait(SECONDS)
        return "page"

    reply = call(shop.app, "/page")
    goes_on.set()
    jobs[0].result(SECONDS)
    first, second = called(spans, "slow")
    around = server(spans).context
    assert first.parent is not None
    assert first.parent.span_id == around.span_id
    assert second.parent is None
    [link] = second.links
    assert (link.context.trace_id, link.context.span_id) == (around.trace_id, around.span_id)
    assert second.context.trace_id != around.trace_id
    assert (second.attributes or {})["request.id"] == reply.ids[0]


def test_the_job_of_a_job(shop: Site, call: Call, spans: InMemorySpanExporter) -> None:
    """Its span is a child of the attempt that queued it; when that is over, linked to it."""
    jobs: list[Any] = []
    pool = ThreadPoolExecutor(1)

    def inside() -> None:
        pass

    def later() -> None:
        pass

    def outer() -> None:
        background(inside).result(SECONDS)
        jobs.append(background(later, executor=pool))  # whose only thread is taken

    @shop.view
    def page(request: Any) -> str:
        background(outer, executor=pool).result(SECONDS)
        jobs[0].result(SECONDS)
        return "page"

    with pool:
        call(shop.app, "/page")
    [of_outer], [of_inside], [of_later] = (
        called(spans, name) for name in ("outer", "inside", "later")
    )
    assert of_inside.parent is not None
    assert of_inside.parent.span_id == of_outer.context.span_id
    assert of_later.parent is None
    [link] = of_later.links
    assert link.context.span_id == of_outer.context.span_id


def test_lines_carry_the_span_of_their_attempt(
    shop: Site, call: Call, spans: InMemorySpanExporter, records: list[logging.LogRecord]
) -> None:
    """Each line of an attempt has its span's ids, and nothing is left attached in the pool."""
    jobs: list[Any] = []

    def charge() -> None:
        logging.getLogger("shop").warning("charging")
        with trace.get_tracer("shop").start_as_current_span("paying"):
            logging.getLogger("shop").warning("paying")

    @shop.view
    def page(request: Any) -> str:
        jobs.append(background(charge))
        return "page"

    call(shop.app, "/page")
    jobs[0].result(SECONDS)
    [charging], [paying] = called(spans, "charge"), called(spans, "paying")
    assert paying.parent is not None
    assert paying.parent.span_id == charging.context.span_id
    said = {record.getMessage(): vars(record)["span_id"] for record in records}
    assert said["charging"] == f"{charging.context.span_id:016x}"
    assert said["paying"] == f"{paying.context.span_id:016x}"


def test_a_job_that_nobodys_request_queued(shop: Site, spans: InMemorySpanExporter) -> None:
    """Each attempt is a root without a link, under the id of the job's lines."""
    background(flaky(1), _retries=1, _backoff=0).result(SECONDS)
    first, second = called(spans, "flaky")
    for span in (first, second):
        assert span.parent is None
        assert not span.links
    ids = {(span.attributes or {})["request.id"] for span in (first, second)}
    assert len(ids) == 1


def test_what_asok_does_not_catch(shop: Site, call: Call, spans: InMemorySpanExporter) -> None:
    """SystemExit of a job ends it, its scope and its span, and is in its future, as without us."""
    jobs: list[Any] = []

    def leave() -> None:
        raise SystemExit(3)

    @shop.view
    def page(request: Any) -> str:
        jobs.append(background(leave, _retries=2))
        return "page"

    call(shop.app, "/page")
    assert isinstance(jobs[0].exception(SECONDS), SystemExit)
    [span] = called(spans, "leave")
    assert span.status.status_code is StatusCode.ERROR

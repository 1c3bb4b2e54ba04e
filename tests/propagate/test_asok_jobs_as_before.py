"""Asok's background jobs do what they do without us: results, records, the dead-letter queue,
context variables; and after `undo` we are gone. needs: asok"""

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

import asok.background  # noqa: F401  # its attribute of this name is a function
import pytest
from asok import current_request
from asok.background import (
    background,
    get_dlq_count,
    get_dlq_jobs,
    get_queue_counts,
    retry_dlq_job,
    task,
)

import asok_trace
from tests.gateway import sites
from tests.gateway.sites import Line, Reply, Site, named, say

SECONDS = 30

Call = Callable[..., Reply]

basket: ContextVar[tuple[str, ...]] = ContextVar("basket", default=())


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASOK_QUEUE_BACKEND", raising=False)


def local() -> Any:
    """Asok's module; `asok.background` as an attribute is the function."""
    return sys.modules["asok.background"]


_failures_left = [0]


def fragile(amount: int, *, currency: str = "eur", context: str = "") -> str:
    """A job that `retry_dlq_job` finds by its name; its keyword is called as one of asok's."""
    if _failures_left[0]:
        _failures_left[0] -= 1
        raise LookupError(f"{amount} {currency}")
    return f"{amount} {currency} {context}"


def without_what_differs(entry: dict[str, Any]) -> dict[str, Any]:
    """A job without its id and its times."""
    return {key: value for key, value in entry.items() if key not in ("id", "ts", "failed_at")}


def day_of(site: Site, call: Call) -> list[Any]:
    """What a page, its jobs and those who ask about them see of each other."""
    seen: list[Any] = []
    jobs = local()

    def collects() -> tuple[str, ...]:
        basket.set((*basket.get(), "job"))
        if len(basket.get()) < 4:
            raise LookupError("more")
        return basket.get()

    def asks() -> tuple[str, int, bool]:
        return current_request.path, len(current_request.args), bool(current_request)

    def leaves() -> None:
        raise SystemExit(3)

    def sends(text: str) -> Future[Any]:
        return background(fragile, 1, context=text)

    def page(request: Any) -> str:
        basket.set(("page",))
        _failures_left[0] = 2
        seen.append(background(fragile, 7, _retries=1, _backoff=0, currency="usd").result(SECONDS))
        seen.append(background(fragile, 8, context="c").result(SECONDS))
        seen.append(background(collects, _retries=5, _backoff=0, _queue="low").result(SECONDS))
        seen.append(basket.get())
        seen.append(site.app.background(asks, *()) is not None)
        seen.append(background(asks).result(SECONDS))
        seen.append(repr(background(leaves, _retries=3).exception(SECONDS)))
        seen.append(background(sends, "inner").result(SECONDS).result(SECONDS))
        seen.append(task(queue="high")(fragile).delay(9, currency="chf").result(SECONDS))
        seen.append(sorted(vars(background(asks)).keys()))
        background(asks).result(SECONDS)
        return "page"

    site.views["page"] = page
    seen.append(call(site.app, "/page").without_id().body)
    seen.append(get_queue_counts())
    seen.append([without_what_differs(job) for job in get_dlq_jobs()])
    [dead] = get_dlq_jobs()
    seen.append(retry_dlq_job(dead["id"]))
    site.app._executor = None
    local()._get_executor().shutdown(wait=True)
    local()._executor = None
    seen.append(get_dlq_count())
    records = [without_what_differs(job) for job in jobs._LOCAL_JOBS if "sends" not in str(job)]
    seen.append(sorted(records, key=repr))
    jobs._LOCAL_JOBS.clear()
    jobs._LOCAL_DLQ.clear()
    return seen


def test_as_without_us(make_site: Callable[[], Site], call: Call) -> None:
    """Results, exceptions, futures, the records of jobs and of dead ones with exactly asok's keys,
    counts, a retry from the dead-letter queue, and context variables from attempt to attempt."""
    without_us = day_of(make_site(), call)
    site = make_site()
    with asok_trace.instrument(site.app):
        with_us = day_of(site, call)
    assert with_us == without_us
    assert ("page", "job", "job", "job") in with_us
    assert with_us[0] is None  # failed for good


def test_a_job_that_was_queued_before_undo(shop: Site, lines: list[Line]) -> None:
    """It runs, without us if it has not begun; and so do the attempts that are left."""
    began, goes_on = threading.Event(), threading.Event()

    def first() -> str:
        say("attempt", known=bool(current_request))
        if not goes_on.is_set():
            began.set()
            assert goes_on.wait(SECONDS)
            raise LookupError("once more")
        return "done"

    job = background(first, _retries=1, _backoff=0)
    assert began.wait(SECONDS)
    asok_trace.instrument(shop.app).undo()
    goes_on.set()
    assert job.result(SECONDS) == "done"
    first_line, second_line = lines
    assert (first_line["task"], first_line["attempt"]) == ("first", "1")
    assert "attempt" not in second_line


def test_after_undo(shop: Site, call: Call, lines: list[Line]) -> None:
    """A job has no scope of ours, and asok's module is as it was."""
    asok_trace.instrument(shop.app).undo()
    jobs: list[Future[Any]] = []

    @shop.view
    def page(request: Any) -> str:
        jobs.append(background(say, "plain"))
        return "page"

    call(shop.app, "/page")
    jobs[0].result(SECONDS)
    assert not {"task", "queue", "attempt"} & named(lines, "plain").keys()
    assert not [name for name in vars(local()) if "asok_trace" in name]


def test_the_request_lives_as_long_as_its_jobs(shop: Site) -> None:
    """Asok promises them a current request, so it stays; when they are over nothing of ours
    keeps it."""
    goes_on = threading.Event()
    requests: list[weakref.ref[Any]] = []
    jobs: list[Future[Any]] = []

    def charge() -> str:
        assert goes_on.wait(SECONDS)
        path: str = current_request.path
        return path

    @shop.view
    def page(request: Any) -> str:
        requests.append(weakref.ref(request))
        jobs.append(background(charge))
        return "page"

    sites.wsgi(shop.app, "/page")
    gc.collect()
    assert requests[0]() is not None
    goes_on.set()
    assert jobs.pop().result(SECONDS) == "/page"
    # The pool's thread drops the finished job when it takes the next.
    background(str).result(SECONDS)
    local()._get_executor().shutdown(wait=True)
    local()._executor = None
    gc.collect()
    assert requests[0]() is None

"""Asok's background jobs, run in this process, go on from the request that queued them: each
attempt is a unit of work with a scope of its own, in which `current_request` still works.

needs: asok
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from asok import current_request
from asok.background import background, task
from asok.context import request_context, request_var
from asok.request import Request

import asok_trace
from asok_trace.core.scope import Scope
from tests.gateway import sites
from tests.gateway.sites import PEER, Line, Reply, Site, named, say

SECONDS = 30

Call = Callable[..., Reply]
Queue = Callable[..., "Future[Any]"]

WAYS: dict[str, Callable[[Any], Queue]] = {
    "background": lambda app: background,
    "app.background, called": lambda app: app.background,
    "app.background, as a decorator": lambda app: lambda fn, *args: app.background(fn)(*args),
    "task.delay": lambda app: lambda fn, *args: task(fn).delay(*args),
}


class Queued:
    """Queues jobs from the page ``/page`` of a site, for the user 7."""

    def __init__(self, site: Site, call: Call) -> None:
        self._site = site
        self._call = call
        self.requests: list[Scope | None] = []

    def __call__(self, queue: Callable[[], "Future[Any]"], *, wait: bool = False) -> "Future[Any]":
        """Return the future of what ``queue`` queues, when the response has come; with ``wait``
        the page waits for the job."""
        futures: list[Future[Any]] = []

        def page(request: Any) -> str:
            request.user = SimpleNamespace(id=7)
            self.requests.append(asok_trace.current())
            futures.append(queue())
            if wait:
                futures[0].exception(SECONDS)
            return "page"

        self._site.views["page"] = page
        self.reply = self._call(self._site.app, "/page")
        assert self.reply.body == b"page"
        return futures[0]

    @property
    def id(self) -> str:
        [request_id] = self.reply.ids
        return request_id


@pytest.fixture
def queued(shop: Site, call: Call) -> Queued:
    return Queued(shop, call)


def stamp(line: Line) -> dict[str, Any]:
    """What we have put on a line."""
    own = ("request_id", "ip", "user", "path", "task", "queue", "attempt")
    return {key: line[key] for key in own if key in line}


def expected(request_id: str, name: str, attempt: int, **others: str) -> dict[str, Any]:
    """The stamp of one attempt of a job that `Queued` has queued."""
    return {
        "request_id": request_id,
        "ip": PEER,
        "user": "7",
        "path": "/page",
        "task": name,
        "queue": "default",
        "attempt": str(attempt),
        **others,
    }


@pytest.mark.parametrize("wait", [True, False], ids=["meanwhile", "afterwards"])
@pytest.mark.parametrize("way", WAYS)
def test_a_job_is_a_unit_of_work_of_its_request(
    shop: Site, queued: Queued, lines: list[Line], way: str, wait: bool
) -> None:
    """However it is queued: its lines carry the request and its own name, queue and attempt; its
    scope is open while it runs and closed after; asok's request is the current one."""
    goes_on, seen = threading.Event(), []

    def charge(amount: int) -> int:
        assert wait or goes_on.wait(SECONDS)
        seen.append((asok_trace.current(), current_request.path, current_request.user.id))
        seen.append(asok_trace.current().open)  # type: ignore[union-attr]
        say("charging")
        return amount + 1

    future = queued(lambda: WAYS[way](shop.app)(charge, 41), wait=wait)
    goes_on.set()
    assert future.result(SECONDS) == 42
    (scope, path, user), was_open = seen
    assert (scope.kind, scope.name, scope.request_id) == ("job", "charge", queued.id)
    assert (path, user, was_open, scope.open) == ("/page", 7, True, False)
    assert scope is not queued.requests[0]
    assert stamp(named(lines, "charging")) == expected(queued.id, "charge", 1)


def test_each_attempt_is_one_of_its_own(queued: Queued, lines: list[Line]) -> None:
    """A job that fails twice: three scopes one after the other, numbered, one request; the request
    is over, and still asok's current one in each."""
    goes_on = threading.Event()
    seen: list[Scope] = []

    @task(queue="low", retries=2, backoff=0)
    def flaky() -> str:
        goes_on.wait(SECONDS)
        assert all(not scope.open for scope in seen)
        scope = asok_trace.current()
        assert scope is not None
        seen.append(scope)
        say(f"attempt {len(seen)}", at=current_request.path)
        if len(seen) < 3:
            raise LookupError("not yet")
        return "done"

    future = queued(flaky.delay)
    assert not queued.requests[0].open  # type: ignore[union-attr]
    goes_on.set()
    assert future.result(SECONDS) == "done"
    assert len({id(scope) for scope in seen}) == 3
    assert [scope.open for scope in seen] == [False] * 3
    for attempt in (1, 2, 3):
        line = named(lines, f"attempt {attempt}")
        assert stamp(line) == expected(queued.id, "flaky", attempt, queue="low")
        assert line["at"] == "/page"


def test_the_line_about_a_job_that_failed_for_good(
    queued: Queued, records: list[logging.LogRecord]
) -> None:
    """Asok logs it after the last attempt: it carries the request and the job."""

    def hopeless() -> None:
        raise LookupError("never")

    future = queued(lambda: background(hopeless, _retries=1, _backoff=0))
    assert future.result(SECONDS) is None
    [record] = [record for record in records if record.name == "asok.background"]
    assert record.getMessage() == "Background task hopeless failed permanently: never"
    wanted = expected(queued.id, "hopeless", 2)
    del wanted["attempt"]
    assert stamp(vars(record)) == wanted


def test_what_is_current_meanwhile_and_afterwards(shop: Site, lines: list[Line]) -> None:
    """A job that runs on the thread of the page itself leaves the page's scope and request as
    they were."""

    class Inline(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    @shop.view
    def page(request: Any) -> str:
        scope = asok_trace.current()
        with Inline() as pool:
            background(say, "inline", executor=pool)
        assert asok_trace.current() is scope
        assert request_var.get() is request
        say("after")
        return "page"

    reply = sites.wsgi(shop.app, "/page")
    assert reply.status == 200
    assert {line["request_id"] for line in lines} == set(reply.ids)
    assert named(lines, "inline")["task"] == "say"
    assert "task" not in named(lines, "after")


def test_an_executor_of_the_applications_own(queued: Queued, lines: list[Line]) -> None:
    """``executor=``: the job runs there, in its scope; the pool's threads keep nothing of it."""
    with ThreadPoolExecutor(1, thread_name_prefix="own") as pool:
        where: list[str] = []

        def charge() -> None:
            where.append(threading.current_thread().name)
            say("charging")

        queued(lambda: background(charge, executor=pool)).result(SECONDS)
        assert where == ["own_0"]
        assert stamp(named(lines, "charging")) == expected(queued.id, "charge", 1)
        assert pool.submit(asok_trace.current).result(SECONDS) is None
        assert pool.submit(request_var.get).result(SECONDS) is None


def test_a_job_that_a_job_queued(queued: Queued, lines: list[Line]) -> None:
    """It is the same request's, under its own name, queue and attempts."""

    def inner() -> None:
        say("inner", at=current_request.path)

    def outer() -> None:
        say("outer")
        background(inner, _queue="low").result(SECONDS)
        say("outer again")

    queued(lambda: background(outer)).result(SECONDS)
    assert stamp(named(lines, "inner")) == expected(queued.id, "inner", 1, queue="low")
    assert named(lines, "inner")["at"] == "/page"
    for event in ("outer", "outer again"):
        assert stamp(named(lines, event)) == expected(queued.id, "outer", 1)


def test_a_job_that_nobodys_request_queued(
    shop: Site, lines: list[Line], records: list[logging.LogRecord]
) -> None:
    """It has an id of its own, the same for all its attempts and the line about its failure, and
    no other job's; there is no current request in it."""

    def hopeless() -> None:
        say("trying", known=bool(current_request))
        raise LookupError("never")

    for _ in range(2):
        background(hopeless, _retries=1, _backoff=0).result(SECONDS)
    wanted = {"task": "hopeless", "queue": "default"}
    ids = [line.pop("request_id") for line in lines]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert [stamp(line) for line in lines] == [{**wanted, "attempt": n} for n in "1212"]
    assert not any(line["known"] for line in lines)
    failed = [stamp(vars(record)) for record in records if record.name == "asok.background"]
    assert failed == [{**wanted, "request_id": request_id} for request_id in ids[::2]]


def test_what_an_attempt_binds_is_its_own(queued: Queued, lines: list[Line]) -> None:
    """`bind` in one attempt reaches neither the next nor the request; what the request has bound
    when the job starts is on all of them."""
    queue_it = task(retries=1, backoff=0)
    attempts: list[int] = []

    def flaky() -> None:
        say("trying")
        attempts.append(1)
        asok_trace.bind(tried=len(attempts))
        say("bound")
        assert len(attempts) == 2

    def queue() -> "Future[Any]":
        asok_trace.bind(tenant="t1")
        future: Future[Any] = queue_it(flaky).delay()
        return future

    queued(queue, wait=True).result(SECONDS)
    of_job = [line for line in lines if line.get("task")]
    assert [(line["event"], line.get("tried")) for line in of_job] == [
        ("trying", None),
        ("bound", "1"),
        ("trying", None),
        ("bound", "2"),
    ]
    assert {line["tenant"] for line in lines} == {"t1"}
    assert "tried" not in named(lines, "request")


def test_another_request_made_current_in_a_job(queued: Queued, lines: list[Line]) -> None:
    """The job keeps its own facts, and asok its request."""

    def charge() -> str:
        with request_context(Request(sites.environ("/other"))):
            say("inside")
            path: str = current_request.path
            return path

    assert queued(lambda: background(charge)).result(SECONDS) == "/other"
    assert stamp(named(lines, "inside")) == expected(queued.id, "charge", 1)


def test_many_requests_at_once(shop: Site, lines: list[Line]) -> None:
    """Each line of each attempt of each job has exactly the id of its own request."""
    futures: list[Future[Any]] = []
    everybody = threading.Barrier(8)

    @shop.view
    def page(request: Any) -> str:
        number = request.environ["HTTP_X_REQUEST_ID"]
        tries: list[int] = []

        def job() -> None:
            tries.append(1)
            say("job", wanted=number)
            if len(tries) < 3:
                raise LookupError("not yet")

        everybody.wait(SECONDS)
        futures.append(background(job, _retries=2, _backoff=0))
        return "page"

    def ask(number: int) -> None:
        for again in range(5):
            sites.wsgi(shop.app, "/page", headers=[("X-Request-ID", f"r-{number}-{again}")])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    for future in futures:
        future.result(SECONDS)
    of_jobs = [line for line in lines if line["event"] == "job"]
    assert len(of_jobs) == 8 * 5 * 3
    assert all(line["request_id"] == line["wanted"] for line in of_jobs)
    for number in range(8):
        for again in range(5):
            mine = [line for line in of_jobs if line["wanted"] == f"r-{number}-{again}"]
            assert [line["attempt"] for line in mine] == ["1", "2", "3"]

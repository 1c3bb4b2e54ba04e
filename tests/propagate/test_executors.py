"""`ContextExecutor` runs each job in the context of whoever submitted it, keeps none of these
contexts, and is a `ThreadPoolExecutor` in everything else."""

import asyncio
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import copy_context

import pytest

import asok_trace
from asok_trace import ContextExecutor
from tests.propagate.hops import HELD, SECONDS, Held, current_id, freed, hold


@pytest.fixture(params=[None, "carry", "watch"], ids=["alone", "carried", "watched"])
def pool(request: pytest.FixtureRequest) -> Iterator[ContextExecutor]:
    """A pool of one thread; also while `propagate_threads` is in force."""
    handle = None if request.param is None else asok_trace.propagate_threads(request.param)
    with ContextExecutor(1) as made:
        yield made
    if handle is not None:
        handle.undo()


def test_each_job_works_for_whoever_submitted_it(pool: ContextExecutor) -> None:
    """On one thread: of one request, of another, and of none."""
    for name in ("a", "b"):
        with asok_trace.scope(name) as scope:
            assert pool.submit(current_id).result(SECONDS) == scope.request_id
    assert pool.submit(current_id).result(SECONDS) is None


def test_the_jobs_of_a_map(pool: ContextExecutor) -> None:
    """Each of them, with its arguments."""
    with asok_trace.scope("a") as scope:
        found = list(pool.map(lambda a, b: (a + b, current_id()), [1, 2], [3, 4]))
    assert found == [(4, scope.request_id), (6, scope.request_id)]


def test_jobs_of_an_event_loop(pool: ContextExecutor) -> None:
    """``loop.run_in_executor(pool, ...)`` from two tasks at once: each its own."""

    async def request(name: str) -> bool:
        with asok_trace.scope(name) as scope:
            found = await asyncio.get_running_loop().run_in_executor(pool, current_id)
            return found == scope.request_id

    async def main() -> list[bool]:
        return await asyncio.gather(*(request(name) for name in "abcd"))

    assert asyncio.run(main()) == [True] * 4


def test_many_jobs_of_many_requests() -> None:
    """Eight requests at once with fifty jobs each on three threads: each job sees its own."""
    barrier = threading.Barrier(8)

    def request(name: str) -> tuple[str, list[str | None]]:
        with asok_trace.scope(name) as scope:
            barrier.wait(SECONDS)
            jobs = [pool.submit(current_id) for _ in range(50)]
            return scope.request_id, [job.result(SECONDS) for job in jobs]

    with ContextExecutor(3) as pool, ThreadPoolExecutor(8) as clients:
        done = list(clients.map(request, "abcdefgh"))
    assert len({request_id for request_id, _ in done}) == 8
    for request_id, found in done:
        assert found == [request_id] * 50


def test_a_job_does_not_see_what_another_has_set(pool: ContextExecutor) -> None:
    """Each has a copy: two jobs of one request share no variable, and the request sees none."""

    def work() -> Held | None:
        before = HELD.get()
        HELD.set(Held())
        return before

    with asok_trace.scope("a"):
        assert [pool.submit(work).result(SECONDS) for _ in range(3)] == [None] * 3
    assert HELD.get() is None


def test_the_pools_thread_keeps_no_request(pool: ContextExecutor) -> None:
    """What the submitter holds is freed after the job, though the thread lives, and whoever
    submitted the first job has started it."""

    def request() -> "weakref.ref[Held]":
        with asok_trace.scope("a"):
            held = hold()
            assert pool.submit(HELD.get).result(SECONDS) is held()
            return held

    for _ in range(2):
        held = copy_context().run(request)
        pool.submit(int).result(SECONDS)  # the thread is past the job
        assert freed(held)


def test_what_is_bound_keeps_its_context(pool: ContextExecutor) -> None:
    """A function from `wrap` runs where it was wrapped, one from `detach` without a request,
    and neither is given the submitter's context to hold."""
    go = threading.Event()

    def request() -> "weakref.ref[Held]":
        with asok_trace.scope("b"):
            held = hold()
            pool.submit(asok_trace.detach(go.wait), SECONDS)
            return held

    with asok_trace.scope("a") as scope:
        wrapped, detached = asok_trace.wrap(current_id), asok_trace.detach(current_id)
        with asok_trace.scope("b"):
            assert pool.submit(wrapped).result(SECONDS) == scope.request_id
            assert pool.submit(detached).result(SECONDS) is None
    held = copy_context().run(request)
    try:
        assert freed(held)
    finally:
        go.set()


def test_the_initializer_runs_for_nobody() -> None:
    """Once per thread, not for the request whose job starts the thread."""
    seen: list[str | None] = []
    with (
        ContextExecutor(1, initializer=lambda: seen.append(current_id())) as pool,
        asok_trace.scope("a"),
    ):
        pool.submit(int).result(SECONDS)
        pool.submit(int).result(SECONDS)
    assert seen == [None]


def test_it_is_a_thread_pool_executor(pool: ContextExecutor) -> None:
    """Arguments, results, exceptions, callbacks, cancelling, and the end of it are the base
    class's."""
    assert isinstance(pool, ThreadPoolExecutor)
    assert pool.submit(int, "ff", base=16).result(SECONDS) == 255
    assert pool.submit(dict, fn=1, self=2).result(SECONDS) == {"fn": 1, "self": 2}
    failed = pool.submit(int, "x")
    assert isinstance(failed.exception(SECONDS), ValueError)
    called = threading.Event()
    pool.submit(int).add_done_callback(lambda _: called.set())
    assert called.wait(SECONDS)

    go, begun = threading.Event(), threading.Event()
    running = pool.submit(lambda: (begun.set(), go.wait(SECONDS)))
    assert begun.wait(SECONDS)
    waiting = pool.submit(int)
    assert waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    go.set()
    running.result(SECONDS)

    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    with pytest.raises(TypeError):
        pool.submit()  # type: ignore[call-arg]

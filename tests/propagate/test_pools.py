"""`propagate_threads("carry")`: every job of a pool runs in the context it was submitted in, and
the pool's threads keep none."""

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context

import pytest

import asok_trace
from asok_trace.detect.origin import SPAWNED
from asok_trace.propagate import threads
from tests.propagate.hops import HELD, SECONDS, current_id, freed, hold


@pytest.fixture(autouse=True)
def carried() -> Iterator[None]:
    with asok_trace.propagate_threads():
        yield


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread, which every job of a test meets."""
    with ThreadPoolExecutor(1) as made:
        yield made


def both(pool: ThreadPoolExecutor, ask: Callable[[], object]) -> list[object]:
    """What ``ask`` finds in three jobs on one thread: of one request, another, and of none."""
    found = []
    for name in ("a", "b"):
        with asok_trace.scope(name) as scope:
            found.append(pool.submit(ask).result(SECONDS) == scope.request_id)
    return [*found, pool.submit(ask).result(SECONDS)]


def test_each_job_works_for_whoever_submitted_it(pool: ThreadPoolExecutor) -> None:
    """The pool's thread is started by the first request's job; the second request's job sees
    the second's id, and a job of nobody sees none."""
    assert both(pool, current_id) == [True, True, None]


def test_the_jobs_of_a_map(pool: ThreadPoolExecutor) -> None:
    """Each of them."""
    with asok_trace.scope("a") as scope:
        assert list(pool.map(lambda _: current_id(), range(3))) == [scope.request_id] * 3


def test_the_event_loops_own_pool() -> None:
    """``run_in_executor(None, ...)`` and ``asyncio.to_thread``, from two requests in turn."""

    async def main() -> list[tuple[object, object, object]]:
        loop, found = asyncio.get_running_loop(), []
        for name in ("a", "b"):
            with asok_trace.scope(name) as scope:
                in_pool = await loop.run_in_executor(None, current_id)
                in_thread = await asyncio.to_thread(current_id)
                found.append((scope.request_id, in_pool, in_thread))
        return found

    for one in asyncio.run(main()):
        assert len(set(one)) == 1


def test_the_pools_thread_keeps_no_request(pool: ThreadPoolExecutor) -> None:
    """Neither that of the request which made it start, nor that of the last job."""

    def request() -> object:
        with asok_trace.scope("a"):
            held = hold()
            assert pool.submit(HELD.get).result(SECONDS) is held()
            return held

    for _ in range(2):
        held = copy_context().run(request)
        pool.submit(int).result(SECONDS)
        assert freed(held)  # type: ignore[arg-type]


@pytest.mark.parametrize("bind", [lambda fn: fn, functools.partial], ids=["itself", "partial"])
def test_what_is_bound_is_not_bound_again(
    bind: Callable[[Callable[[], object]], Callable[[], object]], pool: ThreadPoolExecutor
) -> None:
    """A job from `detach` has no request, one from `wrap` has the one it was wrapped in."""
    with asok_trace.scope("a") as scope:
        wrapped, detached = asok_trace.wrap(current_id), asok_trace.detach(current_id)
        with asok_trace.scope("b"):
            assert pool.submit(bind(wrapped)).result(SECONDS) == scope.request_id
            assert pool.submit(bind(detached)).result(SECONDS) is None


def test_a_detached_job_holds_no_request(pool: ThreadPoolExecutor) -> None:
    """A job that waits in the queue, or runs for long, does not keep what submitted it."""
    go = threading.Event()

    def request() -> object:
        with asok_trace.scope("a"):
            held = hold()
            jobs.append(pool.submit(asok_trace.detach(go.wait), SECONDS))
            return held

    jobs: list[object] = []
    held = copy_context().run(request)
    try:
        assert freed(held)  # type: ignore[arg-type]
    finally:
        go.set()


def test_the_result_and_the_exception_are_as_before(pool: ThreadPoolExecutor) -> None:
    """Arguments reach the job, its result and its exception reach the future."""
    with asok_trace.scope("a"):
        assert pool.submit(int, "ff", base=16).result(SECONDS) == 255
        assert isinstance(pool.submit(int, "x").exception(SECONDS), ValueError)
        with pytest.raises(TypeError):
            pool.submit()  # type: ignore[call-arg]
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


def test_a_pool_where_python_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is bound once, and the pool's thread is started in an empty context, which it
    would inherit."""
    monkeypatch.setattr(threads, "_INHERITS", True)
    started_in: list[int] = []

    class Pool(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            started_in.append(len(copy_context()))
            super()._adjust_thread_count()  # type: ignore[misc]  # private

    with Pool(1) as pool, asok_trace.scope("a") as scope:
        assert pool.submit(current_id).result(SECONDS) == scope.request_id
        assert pool.submit(asok_trace.detach(current_id)).result(SECONDS) is None
    assert started_in == [0, 0]


def test_the_threads_of_a_pool_came_from_nobody(pool: ThreadPoolExecutor) -> None:
    """What is remembered of who spawned it is not left on a thread that many use."""
    with asok_trace.scope("a"):
        pool.submit(int).result(SECONDS)
    assert pool.submit(asok_trace.detach(SPAWNED.get)).result(SECONDS) is None
    with asok_trace.propagate_threads("off"):
        assert pool.submit(SPAWNED.get).result(SECONDS) is None
        assert pool.submit(lambda: len(copy_context())).result(SECONDS) == len(Context())


@pytest.mark.parametrize("broken", ["copy_context", "is_bound", "_job"])
def test_a_fault_of_ours_keeps_no_job_from_running(
    broken: str,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It runs without the context; that is said once."""

    def fail(*_args: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(threads, broken, fail)
    with asok_trace.scope("a"):
        found = [pool.submit(current_id).result(SECONDS) for _ in range(3)]
    assert found == [None] * 3
    [record] = caplog.records
    assert "carrying the context into a thread failed: LookupError('ours')" in record.getMessage()

"""What asyncio carries by itself is carried, without anything of ours around it; what it does not
carry, `wrap`, `ContextExecutor` and `propagate_threads` do."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import asok_trace
from asok_trace import current, scope, wrap
from tests.propagate.lines import SECONDS, Line, ids, say

Hop = Callable[[], Awaitable[object]]


async def work() -> None:
    await asyncio.sleep(0)
    say("ran")


async def _create_task() -> None:
    await asyncio.create_task(work())


async def _ensure_future() -> None:
    await asyncio.ensure_future(work())


async def _gather() -> None:
    await asyncio.gather(work(), work())


async def _task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        group.create_task(work())


async def _wait_for() -> None:
    await asyncio.wait_for(work(), SECONDS)


async def _as_completed() -> None:
    for next_one in asyncio.as_completed([work(), work()]):
        await next_one


async def _shield() -> None:
    await asyncio.shield(work())


async def _callback(schedule: Callable[[Callable[[], None]], object]) -> None:
    ran = asyncio.Event()

    def callback() -> None:
        say("ran")
        ran.set()

    schedule(callback)
    await asyncio.wait_for(ran.wait(), SECONDS)


async def _call_soon() -> None:
    await _callback(asyncio.get_running_loop().call_soon)


async def _call_later() -> None:
    await _callback(lambda run: asyncio.get_running_loop().call_later(0.001, run))


async def _call_at() -> None:
    loop = asyncio.get_running_loop()
    await _callback(lambda run: loop.call_at(loop.time(), run))


async def _call_soon_threadsafe() -> None:
    await _callback(asyncio.get_running_loop().call_soon_threadsafe)


async def _add_done_callback() -> None:
    future = asyncio.get_running_loop().create_future()

    def schedule(run: Callable[[], None]) -> None:
        future.add_done_callback(lambda _: run())
        future.set_result(None)

    await _callback(schedule)


async def _to_thread() -> None:
    await asyncio.to_thread(say, "ran")


async def _tasks_below_tasks() -> None:
    async def below(depth: int) -> None:
        say("ran")
        if depth:
            await asyncio.create_task(below(depth - 1))

    await asyncio.create_task(below(5))


HOPS: list[Hop] = [
    _create_task,
    _ensure_future,
    _gather,
    _task_group,
    _wait_for,
    _as_completed,
    _shield,
    _call_soon,
    _call_later,
    _call_at,
    _call_soon_threadsafe,
    _add_done_callback,
    _to_thread,
    _tasks_below_tasks,
]


def expect(lines: list[Line], wanted: str) -> None:
    """There are lines, and all are of the request."""
    assert set(ids(lines, "ran")) == {wanted}


async def requests(hop: Hop, lines: list[Line]) -> None:
    """Three requests at once in one event loop, each with a hop of its own."""

    async def request() -> None:
        with scope("order") as order:
            await hop()
            say("after")
            assert current() is order

    await asyncio.gather(*(request() for _ in range(3)))
    after = ids(lines, "after")
    assert len(set(after)) == 3
    each = len(ids(lines, "ran")) // 3
    assert each > 0
    assert sorted(map(str, ids(lines, "ran"))) == sorted(map(str, after * each))


@pytest.mark.parametrize("hop", HOPS, ids=lambda hop: hop.__name__.strip("_"))
def test_asyncio_carries_it(lines: list[Line], hop: Hop) -> None:
    """Every line is of the request that scheduled it, though others are in flight."""
    asyncio.run(requests(hop, lines))


if sys.version_info >= (3, 12):

    def test_eager_tasks(lines: list[Line]) -> None:
        """One that begins while it is made is in the request, and leaves nothing behind."""

        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            await requests(_create_task, lines)
            lines.clear()
            await requests(_gather, lines)

        asyncio.run(main())


async def _in_default_pool(function: Callable[..., Any]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function, "ran")


async def _bare() -> None:
    await _in_default_pool(say)


async def _wrapped() -> None:
    await _in_default_pool(wrap(say))


async def _context_executor() -> None:
    with asok_trace.ContextExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, say, "ran")


async def _propagate_threads() -> None:
    with asok_trace.propagate_threads("carry"):
        await _in_default_pool(say)


@pytest.mark.parametrize("hop", [_wrapped, _context_executor, _propagate_threads])
def test_run_in_executor_is_carried_by_each_way(lines: list[Line], hop: Hop) -> None:
    """A pool's thread has one request after the other, and always the right one."""
    asyncio.run(requests(hop, lines))


if not getattr(sys.flags, "thread_inherit_context", 0):

    def test_run_in_executor_alone_is_not_carried(lines: list[Line]) -> None:
        """The test above can tell."""

        async def main() -> None:
            with scope("order"):
                await _bare()

        asyncio.run(main())
        assert ids(lines, "ran") == [None]


@pytest.fixture
def other_loop() -> Any:
    """An event loop in another thread, which no request has started."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(SECONDS)
    loop.close()


@pytest.mark.parametrize("wrapping", [False, True])
def test_run_coroutine_threadsafe(
    lines: list[Line], other_loop: asyncio.AbstractEventLoop, wrapping: bool
) -> None:
    """The other thread's loop runs it in the request that handed it over."""
    wanted = []
    for _ in range(2):
        with scope("order") as order:
            coroutine: Coroutine[Any, Any, None] = wrap(work)() if wrapping else work()
            asyncio.run_coroutine_threadsafe(coroutine, other_loop).result(SECONDS)
        wanted.append(order.request_id)
    assert ids(lines, "ran") == wanted


def test_a_task_that_outlives_its_request(lines: list[Line]) -> None:
    """It stays with its request, whatever else its loop serves by then."""

    async def main() -> None:
        go_on = asyncio.Event()

        async def late() -> None:
            await go_on.wait()
            say("ran")

        with scope("order") as order:
            task = asyncio.create_task(late())
        with scope("another"):
            go_on.set()
            await task
        expect(lines, order.request_id)

    asyncio.run(main())


def test_outlive_in_a_task(lines: list[Line]) -> None:
    """A task of a unit of work of its own; the one who made it is not in there."""

    async def main() -> None:
        with scope("order") as order:
            task = asyncio.create_task(wrap(work, outlive=True)())
            await asyncio.sleep(0)
            assert current() is order
        await task
        expect(lines, order.request_id)

    asyncio.run(main())
    assert [line["task"] for line in lines] == ["work"]


def test_the_task_that_wrap_was_called_in_may_be_over(lines: list[Line]) -> None:
    """What is bound to a request runs in another event loop as well."""

    async def first() -> tuple[str, Callable[[], Coroutine[Any, Any, None]]]:
        with scope("order") as order:
            return order.request_id, wrap(work)

    request_id, wrapped = asyncio.run(first())
    asyncio.run(wrapped())
    expect(lines, request_id)


def test_nothing_of_ours_is_around_a_task(lines: list[Line]) -> None:
    """Neither asyncio's functions nor its tasks are replaced, threads carried or not."""
    loop_class = asyncio.SelectorEventLoop
    before = {
        (owner, name): getattr(owner, name)
        for owner, name in (
            (asyncio, "Task"),
            (asyncio, "create_task"),
            (asyncio, "gather"),
            (asyncio, "ensure_future"),
            (asyncio, "to_thread"),
            (asyncio, "run_coroutine_threadsafe"),
            (asyncio, "TaskGroup"),
            (asyncio.TaskGroup, "create_task"),
            (loop_class, "create_task"),
            (loop_class, "call_soon"),
            (loop_class, "call_later"),
            (loop_class, "run_in_executor"),
        )
    }

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert loop.get_task_factory() is None
        with scope("order"):
            coroutine = work()
            task = asyncio.create_task(coroutine)
            assert type(task) is asyncio.Task
            assert task.get_coro() is coroutine
            async with asyncio.TaskGroup() as group:
                another = work()
                assert group.create_task(another).get_coro() is another
            await task
        assert loop.get_task_factory() is None

    with asok_trace.propagate_threads("carry"):
        asyncio.run(main())
        assert {key: getattr(*key) for key in before} == before
    assert len(ids(lines, "ran")) == 2


def test_a_pool_that_carries_may_be_the_default_one(lines: list[Line]) -> None:
    """``loop.set_default_executor``; asyncio takes it for what it is."""

    async def main() -> None:
        pool = asok_trace.ContextExecutor(1)
        assert isinstance(pool, ThreadPoolExecutor)
        asyncio.get_running_loop().set_default_executor(pool)
        await requests(_bare, lines)

    asyncio.run(main())

"""A wrapped coroutine function is awaited as if nobody had wrapped it: in the same task, with its
cancellation, its timeouts and its exceptions."""

import asyncio
import functools
import gc
from collections.abc import Callable
from typing import Any

import pytest

from asok_trace import scope, wrap
from tests.propagate.lines import SECONDS, Line, elsewhere, ids, say
from tests.propagate.test_wrap import CalledLater, later, two_later


@pytest.mark.parametrize("outlive", [False, True])
def test_the_task_is_the_callers(outlive: bool) -> None:
    """A wrapped coroutine function is awaited in the task that calls it."""

    async def run() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main() -> bool:
        with scope("order"):
            wrapped = wrap(run, outlive=outlive)
        return await wrapped() is asyncio.current_task()

    assert asyncio.run(main())


@pytest.mark.parametrize("outlive", [False, True])
def test_a_cancellation_passes_through(lines: list[Line], outlive: bool) -> None:
    """The function sees it in its own context, and may refuse it for a while; the task ends
    cancelled."""

    async def run(started: asyncio.Event) -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            say("cleaned up")

    async def main(wrapped: Callable[..., Any]) -> bool:
        started = asyncio.Event()
        task = asyncio.create_task(wrapped(started))
        await asyncio.wait_for(started.wait(), SECONDS)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        return task.cancelled()

    with scope("order") as order:
        wrapped = wrap(run, outlive=outlive)
    assert elsewhere(asyncio.run, main(wrapped))
    assert ids(lines, "cleaned up") == [order.request_id]


@pytest.mark.parametrize("outlive", [False, True])
def test_a_timeout_passes_through(outlive: bool) -> None:
    """Both one around it and one inside it."""

    async def run(seconds: float | None) -> str:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            return "inner"
        return "none"

    async def main() -> None:
        with scope("order"):
            wrapped = wrap(run, outlive=outlive)
        assert await wrapped(0) == "inner"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wrapped(None)

    asyncio.run(main())


def test_a_task_that_is_cancelled_before_it_starts_warns_of_nothing() -> None:
    """There is no coroutine yet that could have been left unawaited."""

    async def main() -> None:
        for function in (later, functools.partial(two_later, "x"), CalledLater()):
            task = asyncio.create_task(wrap(function)("ada"))  # type: ignore[arg-type]
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    asyncio.run(main())
    gc.collect()


@pytest.mark.parametrize("outlive", [False, True])
def test_an_exception_of_a_coroutine_passes_unchanged(outlive: bool) -> None:
    """The same after it has waited."""
    error = LookupError("x")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    with scope("order"):
        wrapped = wrap(fail, outlive=outlive)
    with pytest.raises(LookupError) as raised:
        asyncio.run(wrapped())
    assert raised.value is error
    assert error.__context__ is None
    assert not hasattr(error, "__notes__")

"""`detach` binds long-lived work to an empty context, whoever starts it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import structlog

from asok_trace import current, detach, scope, wrap
from tests.propagate.lines import Line, elsewhere, ids, mine, say


def look() -> tuple[Any, str, dict[str, Any]]:
    """The scope, a variable of the program's own, and structlog's."""
    say("ran")
    return current(), mine.get(), structlog.contextvars.get_contextvars()


NOTHING = (None, "nobody's", {})


def test_it_runs_in_an_empty_context(lines: list[Line]) -> None:
    """Inside the request, in a thread, and from a partial."""
    with scope("order"), structlog.contextvars.bound_contextvars(cart=5):
        token = mine.set("the order's")
        detached = detach(look)
        assert look()[0] is not None
        assert detached() == NOTHING
        assert elsewhere(detached) == NOTHING
        assert detach(functools.partial(look))() == NOTHING
        mine.reset(token)
    assert ids(lines, "ran")[1:] == [None] * 3


def test_each_run_has_a_context_of_its_own() -> None:
    """What one run sets, the next does not see, nor does the caller."""

    def run(value: str) -> str:
        seen = mine.get()
        mine.set(value)
        return seen

    detached = detach(run)
    assert [detached("first"), detached("second")] == ["nobody's"] * 2
    assert mine.get() == "nobody's"


def test_a_coroutine_function_is_detached_across_its_awaits(lines: list[Line]) -> None:
    """Its task is still the caller's; what it starts itself is detached too."""

    async def run() -> tuple[Any, Any, Any]:
        await asyncio.sleep(0)
        seen = look()
        assert await asyncio.create_task(run_below()) == NOTHING
        await asyncio.sleep(0)
        return (asyncio.current_task(), seen, look())

    async def run_below() -> Any:
        return look()

    async def main() -> None:
        with scope("order") as order:
            task, *seen = await detach(run)()
            assert current() is order
        assert task is asyncio.current_task()
        assert seen == [NOTHING] * 2

    asyncio.run(main())
    assert ids(lines, "ran") == [None] * 3


def test_generators_are_detached_step_by_step(lines: list[Line]) -> None:
    """The steps are outside the request, the loop around them is not."""

    def count() -> Iterator[Any]:
        yield look()
        mine.set("the generator's")
        yield mine.get()

    async def count_async() -> AsyncIterator[Any]:
        for item in count():
            await asyncio.sleep(0)
            yield item

    async def consume() -> list[Any]:
        return [item async for item in detach(count_async)()]

    with scope("order") as order:
        for step in detach(count)():
            assert current() is order
            assert mine.get() == "nobody's"
            assert step in (NOTHING, "the generator's")
        assert asyncio.run(consume()) == [NOTHING, "the generator's"]
    assert ids(lines, "ran") == [None] * 2


def test_the_innermost_binding_counts() -> None:
    """A wrapped function stays wrapped, and a detached one detached."""
    with scope("order") as order:
        assert wrap(detach(look))() == NOTHING
        assert detach(wrap(look))()[0] is order


def test_a_request_inside_is_one_of_its_own(lines: list[Line]) -> None:
    """Detached work may open units of work itself."""

    def run() -> str:
        with scope("tick") as tick:
            say("ran")
        return tick.request_id

    with scope("order") as order:
        made = detach(run)()
    assert made != order.request_id
    assert ids(lines, "ran") == [made]

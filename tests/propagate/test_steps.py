"""What stops and goes on is stepped through as ``yield from`` and ``await`` do it (PEP 380), with
its steps in a context of its own."""

import asyncio
import contextlib
import gc
import sys
import traceback
import weakref
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asok_trace.propagate.steps import awaited, stepped
from tests.propagate.lines import elsewhere, mine

Log = list[Any]


class PlannedError(Exception):
    """What is thrown in, or raised inside."""


def scripted(script: list[str], log: Log) -> Generator[int, Any, str]:
    """A generator that does at each step as ``script`` says, and logs what reaches it."""
    for number, act in enumerate(script):
        try:
            if act == "raise":
                raise PlannedError(number)
            if act == "return":
                return f"returned {number}"
            if act == "stop":
                raise StopIteration(number)
            log.append(("sent", (yield number)))
        except PlannedError as error:
            log.append(("caught", str(error)))
            if act != "swallow":
                raise
        except GeneratorExit:
            log.append("closed")
            if act == "swallow":
                continue
            raise
        finally:
            log.append(("left", mine.get()))
    return "end"


def played(generator: Generator[int, Any, str], moves: list[str]) -> Log:
    """What a caller sees of ``generator`` that makes these ``moves``."""
    seen: Log = []
    for move in moves:
        try:
            if move == "next":
                seen.append(next(generator))
            elif move == "send":
                seen.append(generator.send("value"))
            elif move == "throw":
                seen.append(generator.throw(PlannedError("thrown")))
            elif move == "stop":
                seen.append(generator.throw(StopIteration("thrown")))
            else:
                seen.append(generator.close())
        except StopIteration as stop:
            seen.append(("stopped", stop.value))
        except BaseException as error:
            seen.append((type(error), str(error)))
    return seen


ACTS = st.lists(st.sampled_from(["yield", "swallow", "raise", "return", "stop"]), max_size=5)
# What is sent before the first step is a mistake of the caller's, and a test of its own.
FIRST = st.sampled_from(["next", "throw", "stop", "close"])
MOVES = st.lists(st.sampled_from(["next", "send", "throw", "stop", "close"]), max_size=8)


def delegated(inner: Generator[int, Any, str]) -> Generator[int, Any, str]:
    """What `stepped` is, but for the context."""
    return (yield from inner)


@settings(max_examples=300, deadline=None)
@given(ACTS, FIRST, MOVES)
def test_a_caller_cannot_tell_it_from_yield_from(
    script: list[str], first: str, moves: list[str]
) -> None:
    """Whatever the generator does and whatever is done to it, both see the same; each of its
    steps is in the context."""
    context = Context()
    context.run(mine.set, "its own")

    def compared(make: Callable[[Any], Any]) -> tuple[Log, Log, list[str]]:
        log: Log = []
        inner = scripted(script, log)
        made = make(inner)
        seen = played(made, [first, *moves])
        places = [entry[1] for entry in log if entry[0] == "left"]
        reached = [entry for entry in log if entry[0] != "left"]
        for ended in (made, *[inner] * 9):  # or it would complain when it is collected
            with contextlib.suppress(RuntimeError, PlannedError):
                ended.close()
        return seen, reached, places

    *plain, outside = compared(delegated)
    *ours, inside = compared(lambda inner: stepped(context, inner))
    assert ours == plain
    assert len(inside) == len(outside)
    assert set(inside) <= {"its own"}


def test_it_can_be_delegated_to() -> None:
    """``yield from`` gets its items and its result."""

    def outer() -> Generator[int, Any, str]:
        return (yield from stepped(Context(), scripted(["yield", "yield"], [])))

    made = outer()
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(StopIteration) as stopped:
        next(made)
    assert stopped.value.value == "end"


def test_an_exception_that_is_thrown_in_is_freed() -> None:
    """By its reference count alone: no frame that its traceback holds has kept it."""

    thrown: list[weakref.ref[PlannedError]] = []

    def made_error() -> PlannedError:
        error = PlannedError("thrown")
        thrown.append(weakref.ref(error))
        return error

    made = stepped(Context(), scripted(["yield"], []))
    next(made)
    gc.disable()
    try:
        with contextlib.suppress(PlannedError):
            made.throw(made_error())
        assert [error() for error in thrown] == [None]
    finally:
        gc.enable()


def test_a_step_may_be_in_any_thread() -> None:
    """The context goes along, from one to the next."""

    def body() -> Generator[str, Any, None]:
        for value in ("first", "second", "third"):
            seen = mine.get()
            mine.set(value)
            yield seen

    made = stepped(Context(), body())
    assert [next(made), elsewhere(next, made), next(made)] == ["nobody's", "first", "second"]


class Later:
    """An awaitable that is no coroutine."""

    def __await__(self) -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        return mine.get()


async def later() -> str:
    await asyncio.sleep(0)
    return mine.get()


@pytest.mark.parametrize("make", [later, Later])
def test_whatever_can_be_awaited(make: Callable[[], Any]) -> None:
    """Coroutines, and what has ``__await__``; the context between the steps is the task's."""
    context = Context()
    context.run(mine.set, "its own")

    async def main() -> None:
        for _ in range(2):
            assert await awaited(context, make()) == "its own"
            assert mine.get() == "nobody's"

    asyncio.run(main())


def test_a_future_can_be_awaited() -> None:
    """It is waited for, wherever its result comes from."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, 5)
        assert await awaited(Context(), future) == 5

    asyncio.run(main())


def test_the_traceback_leads_to_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stepped coroutine that fails: the program's frames are all there."""

    async def below() -> None:
        await asyncio.sleep(0)
        raise PlannedError("here")

    async def above() -> None:
        await below()

    with pytest.raises(PlannedError) as raised:
        asyncio.run(awaited(Context(), above()))
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names[-2:] == ["above", "below"]


def test_a_coroutine_may_be_deep() -> None:
    """A thousand steps take no deeper a stack than one."""
    depths: set[int] = set()

    async def body() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
            depths.add(len(traceback.extract_stack(sys._getframe())))

    asyncio.run(awaited(Context(), body()))
    assert len(depths) == 1

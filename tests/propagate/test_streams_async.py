"""`wrap_stream` for what is iterated asynchronously: each step runs in the stream's context, across
what it awaits, and it ends there, once."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

import pytest

from asok_trace import current, scope, wrap_stream
from tests.propagate.lines import SECONDS, Line, ids, mine, say


async def count(to: int) -> AsyncGenerator[int, Any]:
    """A stream that says what it does, and what it is sent."""
    try:
        for number in range(to):
            await asyncio.sleep(0)
            say("step")
            sent = yield number
            if sent is not None:
                say("sent", value=sent)
    finally:
        await asyncio.sleep(0)
        say("closed")


class Body:
    """An asynchronous iterator that is no generator."""

    def __init__(self) -> None:
        self._left = 3

    def __aiter__(self) -> AsyncIterator[int]:
        say("begun")
        return self

    async def __anext__(self) -> int:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        await asyncio.sleep(0)
        say("step")
        return self._left

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        say("closed")


class Plain(Body):
    """One whose step begins before it is awaited."""

    def __anext__(self) -> Awaitable[int]:  # type: ignore[override]
        say("asked")
        return super().__anext__()


class Made:
    """Something to iterate that makes a generator for it."""

    def __aiter__(self) -> AsyncIterator[int]:
        return count(3)


KINDS: dict[str, Callable[[], Any]] = {
    "generator": lambda: count(3),
    "body": Body,
    "plain body": Plain,
    "makes a generator": Made,
}
ALL = pytest.mark.parametrize("kind", KINDS)


def streamed(iterable: Any) -> tuple[str, Any]:
    """The id of a request, and the stream that it leaves behind."""
    with scope("order") as order:
        return order.request_id, wrap_stream(iterable)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` to its end; nothing may be reported to the event loop."""
    reported: list[Any] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: reported.append(told))
        await main

    asyncio.run(watched())
    gc.collect()
    assert not reported


@ALL
def test_every_step_is_in_the_request_and_nothing_in_between(lines: list[Line], kind: str) -> None:
    """The loop that consumes it is in a request of its own all the while."""
    request_id, stream = streamed(KINDS[kind]())

    async def main() -> None:
        with scope("consumer") as consumer:
            async for _ in stream:
                assert current() is consumer
                say("between")
                await asyncio.sleep(0)
            assert current() is consumer
            assert ids(lines, "between") == [consumer.request_id] * 3

    run(main())
    assert ids(lines, "step") == [request_id] * 3
    assert set(ids(lines, "begun") + ids(lines, "asked")) <= {request_id}
    assert set(ids(lines, "closed")) <= {request_id}


def test_while_it_waits_others_see_nothing_of_it(lines: list[Line]) -> None:
    """A task that runs while a step is waiting is in its own context, and so is a second stream."""
    streams = [streamed(count(3)) for _ in range(3)]

    async def consume(stream: Any) -> None:
        async for _ in stream:
            assert current() is None

    async def main() -> None:
        await asyncio.gather(*(consume(stream) for _, stream in streams))

    run(main())
    wanted = sorted(request_id for request_id, _ in streams) * 3
    assert sorted(str(found) for found in ids(lines, "step")) == sorted(wanted)


def test_variables_stay_between_the_steps_and_inside() -> None:
    """What a step sets, the next one sees; the consumer never does."""

    async def body() -> AsyncIterator[str]:
        for value in ("first", "second", "third"):
            seen = mine.get()
            mine.set(value)
            await asyncio.sleep(0)
            yield seen

    stream = wrap_stream(body())

    async def main() -> None:
        seen = [(item, mine.get()) async for item in stream]
        assert [item for item, _ in seen] == ["nobody's", "first", "second"]
        assert {outside for _, outside in seen} == {"nobody's"}

    run(main())


def test_asend_and_athrow_pass_through(lines: list[Line]) -> None:
    """A generator stays one, in its own context."""

    async def body() -> AsyncGenerator[str, Any]:
        sent = None
        while True:
            try:
                sent = yield f"had {sent}"
            except LookupError as error:
                await asyncio.sleep(0)
                say("caught")
                sent = f"caught {error}"

    request_id, stream = streamed(body())

    async def main() -> None:
        assert await anext(stream) == "had None"
        assert await stream.asend("a cart") == "had a cart"
        assert await stream.athrow(LookupError("x")) == "had caught x"
        with pytest.raises(ValueError, match="y"):
            await stream.athrow(ValueError("y"))
        assert [item async for item in stream] == []

    run(main())
    assert ids(lines, "caught") == [request_id]


def test_what_is_no_generator_takes_what_it_can() -> None:
    """A value sent to it goes nowhere; an exception ends it."""
    _, stream = streamed(Body())

    async def main() -> None:
        assert await anext(stream) == 2
        assert await stream.asend("ignored") == 1
        with pytest.raises(LookupError, match="x"):
            await stream.athrow(LookupError("x"))
        assert [item async for item in stream] == []

    run(main())


def test_an_exception_inside_passes_unchanged() -> None:
    """The very object; then it is over."""
    error = LookupError("x")

    async def body() -> AsyncIterator[int]:
        yield 1
        raise error

    async def main() -> None:
        stream = wrap_stream(body())
        assert await anext(stream) == 1
        with pytest.raises(LookupError) as raised:
            await anext(stream)
        assert raised.value is error
        assert [item async for item in stream] == []

    run(main())


async def _closed(stream: Any) -> None:
    await stream.aclose()
    await stream.aclose()


async def _in_another_task(stream: Any) -> None:
    await asyncio.create_task(stream.aclose())
    await stream.aclose()


async def _in_another_context(stream: Any) -> None:
    await asyncio.create_task(stream.aclose(), context=Context())


async def _with_aclosing(stream: Any) -> None:
    async with contextlib.aclosing(stream):
        async for _ in stream:
            break


async def _thrown_into(stream: Any) -> None:
    with pytest.raises(GeneratorExit):
        await stream.athrow(GeneratorExit)


ENDS: list[Callable[[Any], Coroutine[Any, Any, None]]] = [
    _closed,
    _in_another_task,
    _in_another_context,
    _with_aclosing,
    _thrown_into,
]


@ALL
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_closed_early_it_ends_once_in_its_context(
    lines: list[Line], kind: str, end: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    """In whichever task or context it is closed."""
    request_id, stream = streamed(KINDS[kind]())

    async def main() -> None:
        await anext(stream)
        with scope("another") as another:
            await end(stream)
            assert current() is another
        assert ids(lines, "closed") == [request_id]
        assert [item async for item in stream] == []

    run(main())
    assert len(ids(lines, "closed")) == 1


async def _broken_out(stream: Any) -> None:
    async for _ in stream:
        break


async def _broken_out_in_a_circle(stream: Any) -> None:
    circle: list[Any] = [stream]
    circle.append(circle)
    await anext(stream)


@pytest.mark.parametrize("end", [_broken_out, _broken_out_in_a_circle])
def test_dropped_it_ends_once_in_its_context(
    lines: list[Line], end: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    """The event loop ends it, as one that nobody wrapped."""
    request_ids = []

    async def main() -> None:
        request_id, stream = streamed(count(3))
        request_ids.append(request_id)
        await end(stream)
        del stream
        gc.collect()
        async with asyncio.timeout(SECONDS):
            while not ids(lines, "closed"):
                await asyncio.sleep(0)

    run(main())
    assert ids(lines, "closed") == request_ids


def test_left_to_the_end_of_the_event_loop_it_ends_once(
    lines: list[Line], caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that is still held then is closed once, in its own context, without complaint."""
    request_id, stream = streamed(count(3))

    async def main() -> None:
        await anext(stream)

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main())
    assert ids(lines, "closed") == [request_id]
    warned = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert [record.name for record in warned] == ["asok_trace"]
    assert warned[0].getMessage().startswith("late: ")  # its request has ended long since


def test_a_consumer_that_is_cancelled_ends_it(lines: list[Line]) -> None:
    """The step that is on its way sees the cancellation in its own context."""
    began = asyncio.Event()

    async def body() -> AsyncIterator[int]:
        try:
            began.set()
            await asyncio.Event().wait()
            yield 1
        except asyncio.CancelledError:
            say("cancelled")
            raise

    request_id, stream = streamed(body())

    async def main() -> None:
        task = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(began.wait(), SECONDS)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    assert ids(lines, "cancelled") == [request_id]


@pytest.mark.parametrize("close", [False, True])
def test_a_generator_that_never_starts_does_nothing(lines: list[Line], close: bool) -> None:
    """No step, no ``finally``, no warning."""

    async def main() -> None:
        _, stream = streamed(count(3))
        if close:
            await stream.aclose()
            assert [item async for item in stream] == []
        del stream
        gc.collect()

    run(main())
    assert not lines

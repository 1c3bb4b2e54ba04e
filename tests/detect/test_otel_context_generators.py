"""The strict runtime context: spans around a yield, and who ends the generator."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import opentelemetry.context as api
import pytest
from opentelemetry.context import Context

from asok_trace.core import findings
from tests.detect.strict import complaints, line, only, strict_context, tracer


@pytest.fixture(autouse=True)
def strict(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry with our context, which never lets it complain by itself."""
    with strict_context():
        yield
    assert complaints(caplog) == []


async def _stream() -> AsyncIterator[int]:
    with tracer.start_as_current_span("stream"):  # the span
        yield 1
        yield 2


async def _nested() -> AsyncIterator[int]:
    with tracer.start_as_current_span("outer"):
        await asyncio.sleep(0)
        with tracer.start_as_current_span("inner"):  # the span
            yield 1


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


async def _broken_off(stream: AsyncIterator[int]) -> None:
    async for _ in stream:
        break
    del stream
    gc.collect()
    await asyncio.sleep(0)  # asyncio closes it in a task of its own
    await asyncio.sleep(0)


async def _closed_elsewhere(stream: Any) -> None:
    await asyncio.create_task(_awaited(anext(stream)))
    await asyncio.create_task(_awaited(stream.aclose()))


async def _iterated_elsewhere(stream: Any) -> None:
    for _ in range(3):
        await asyncio.create_task(_awaited(anext(stream, None)))


@pytest.mark.parametrize("made", [_stream, _nested])
@pytest.mark.parametrize("use", [_broken_off, _closed_elsewhere, _iterated_elsewhere])
def test_a_generator_that_ends_in_another_task_is_one_finding(made: Any, use: Any) -> None:
    """With the line of its span as opener and closer, however many spans it has around the
    yield; never an exception, never OpenTelemetry's own complaint."""

    async def main() -> None:
        await asyncio.create_task(use(made()))

    asyncio.run(main())
    found = only()
    assert found.slug == "foreign"
    assert found.callsite == f"{line(made, '# the span')} {made.__name__}"
    assert found.origin == f"attached at {found.callsite}"
    assert "aclosing" in found.fix


def test_a_stream_closed_by_its_reader_is_no_finding() -> None:
    """aclosing() ends it in the task that began it."""

    async def main() -> None:
        async with aclosing(_stream()) as stream:
            async for _ in stream:
                break

    asyncio.run(main())
    assert findings.findings() == []


def test_a_generator_ended_by_the_collector_in_another_thread() -> None:
    """It is in a circle; the collection that finds it names the span's line."""

    class Reader:
        pass

    def numbers() -> Iterator[int]:
        with tracer.start_as_current_span("numbers"):  # the span
            yield 1

    def read() -> None:
        reader: Any = Reader()
        reader.me, reader.numbers = reader, numbers()
        next(reader.numbers)

    gc.disable()
    try:
        thread = threading.Thread(target=read, name="reader")
        thread.start()
        thread.join()
        gc.collect()
    finally:
        gc.enable()
    found = only()
    assert (found.slug, found.thread) == ("foreign", "MainThread")
    assert found.callsite == f"{line(numbers, '# the span')} numbers"
    assert found.origin == f"attached at {found.callsite}"
    assert "in reader was detached in another thread" in found.message


def test_two_generators_taken_in_turns_are_out_of_order() -> None:
    """zip() ends the first one first: one finding, at the span of the second."""

    def numbers(name: str) -> Iterator[int]:
        with tracer.start_as_current_span(name):  # in both
            yield 1

    assert list(zip(numbers("a"), numbers("b"), strict=True)) == [(1, 1)]
    assert only().callsite == f"{line(numbers, '# in both')} numbers"
    api._RUNTIME_CONTEXT._current_context.set(Context())

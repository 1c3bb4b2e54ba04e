"""Asok's own tracing, shown in OpenTelemetry's trace: what it decorates behaves as without us, and
is a span for as long as it runs; none of our faults reaches it, and nothing of ours stays.

needs: asok
"""

import asyncio
import contextlib
import gc
import inspect
import logging
import types
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from typing import Any

import pytest
from asok import TracingMiddleware
from asok.core import tracing as own
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import asok_trace
from asok_trace.propagate import mirrored
from asok_trace.stamp import mirror_span, tracing
from tests.gateway.sites import Site, wsgi

Faults = list[logging.LogRecord]


@pytest.fixture(autouse=True)
def _watched(spans: InMemorySpanExporter, shop: Site) -> Iterator[None]:
    """Traced, by an application that is instrumented."""
    own.tracer.clear_spans()
    yield
    own.tracer.clear_spans()


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    [span] = spans.get_finished_spans()
    return span


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    [span] = [span for span in spans.get_finished_spans() if span.name == name]
    return span


def work() -> None:
    """Something with a span of its own."""
    with trace.get_tracer("shop").start_as_current_span("work"):
        pass


def assert_work_under(spans: InMemorySpanExporter, name: str) -> None:
    """The work was done in the span of this name, which lasted at least as long."""
    around, inside = named(spans, name), named(spans, "work")
    assert around.context is not None
    assert inside.parent is not None
    assert inside.parent.span_id == around.context.span_id
    assert around.end_time is not None
    assert inside.end_time is not None
    assert around.end_time >= inside.end_time
    assert not trace.get_current_span().get_span_context().is_valid


# --- what is decorated stays what it is -----------------------------------------------------------


def test_a_context_manager_made_of_an_async_generator(spans: InMemorySpanExporter) -> None:
    """It sees what is raised in its block, and may swallow it."""
    seen: list[BaseException] = []

    @contextlib.asynccontextmanager
    @own.trace("session")
    async def session() -> AsyncIterator[str]:
        try:
            yield "open"
        except LookupError as error:
            seen.append(error)
        work()

    async def use() -> None:
        async with session() as state:
            assert state == "open"
            raise LookupError("in the block")

    asyncio.run(use())
    assert [str(error) for error in seen] == ["in the block"]
    assert_work_under(spans, "session")
    assert named(spans, "session").status.status_code is StatusCode.UNSET


def test_an_async_generator_is_sent_values_and_closed(spans: InMemorySpanExporter) -> None:
    """Once, in its span, which ends then."""
    seen: list[Any] = []

    @own.trace("stream")
    async def stream() -> AsyncIterator[int]:
        try:
            seen.append((yield 1))
            yield 2
        finally:
            seen.append("closed")
            work()

    async def use() -> None:
        made: Any = stream()
        assert await anext(made) == 1
        assert await made.asend("hello") == 2
        await made.aclose()

    asyncio.run(use())
    assert seen == ["hello", "closed"]
    assert_work_under(spans, "stream")


def test_an_event_loop_that_ends_meanwhile(spans: InMemorySpanExporter, caplog: Any) -> None:
    """Its last act is to close what still runs: an async generator is closed, once."""
    seen: list[str] = []
    held: list[Any] = []

    @own.trace("stream")
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def use() -> None:
        held.append(stream())
        await anext(held[0])

    asyncio.run(use())
    assert seen == ["closed"]
    assert only(spans).name == "stream"
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_generator(spans: InMemorySpanExporter) -> None:
    """It is sent values, raised into, and returns, in its span."""

    @own.trace("rows")
    def rows() -> Any:
        sent = yield 1
        try:
            yield sent
        except LookupError:
            work()
        return "done"

    made = rows()
    assert inspect.isgenerator(made)
    assert next(made) == 1
    assert not trace.get_current_span().get_span_context().is_valid
    assert made.send("hello") == "hello"
    with pytest.raises(StopIteration) as stop:
        made.throw(LookupError())
    assert stop.value.value == "done"
    assert_work_under(spans, "rows")


def test_a_generator_that_is_closed_before_its_first_step(spans: InMemorySpanExporter) -> None:
    """As the body of a response whose client has gone: it ends, and so does its span."""

    @own.trace("rows")
    def rows() -> Any:
        yield 1

    made = rows()
    made.close()
    assert list(made) == []
    assert only(spans).name == "rows"
    assert only(spans).status.status_code is StatusCode.UNSET


def test_they_are_called_as_they_were() -> None:
    """A coroutine and a generator say the name of their function, where tasks and warnings are
    told apart by it."""

    @own.trace
    async def charge() -> None:
        pass

    @own.trace
    def rows() -> Any:
        yield 1

    made, generator = charge(), rows()
    assert made.__qualname__ == charge.__qualname__
    assert generator.__name__ == "rows"
    made.close()


def test_a_coroutine_that_is_never_begun() -> None:
    """Closed, or its task cancelled at once, it is silent; else Python warns of it, once."""

    @own.trace
    async def charge() -> None:
        pass

    async def use() -> None:
        task = asyncio.create_task(charge())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(use())
        charge().close()
        gc.collect()
        assert not warned
        charge()
        gc.collect()
    assert [str(one.message).rpartition(".")[2] for one in warned] == ["charge' was never awaited"]


def test_a_generator_that_can_be_awaited() -> None:
    """It still can."""

    @own.trace
    @types.coroutine
    def old() -> Any:
        yield from asyncio.sleep(0).__await__()
        return "done"

    async def use() -> Any:
        return await old()

    assert asyncio.run(use()) == "done"


def test_what_is_cancelled_has_not_failed(spans: InMemorySpanExporter) -> None:
    """A coroutine that is told to stop: its client has gone."""

    @own.trace("wait")
    async def wait() -> None:
        await asyncio.Event().wait()

    async def use() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(use())
    assert only(spans).status.status_code is StatusCode.UNSET


# --- what the application puts on its spans -------------------------------------------------------


def test_what_cannot_be_sent_is_made_fit(spans: InMemorySpanExporter, faults: Faults) -> None:
    """Names that are no text, text that is no Unicode, objects: one of them would cost the whole
    batch."""
    lone = "\ud800"
    with own.tracer.start_span(f"a{lone}") as span:
        span.set_attribute(f"b{lone}", lone).set_attribute(7, object)  # type: ignore[arg-type]
        span.add_event(f"c{lone}", {lone: [1], 8: "eight"})  # type: ignore[dict-item]
    found = only(spans)
    [event] = found.events
    texts = [found.name, event.name, *(found.attributes or {}), *(event.attributes or {})]
    assert all(isinstance(one, str) and one.isprintable() for one in texts)
    assert {"7", "b\\ud800"} <= (found.attributes or {}).keys()
    assert not faults


@pytest.mark.parametrize(
    ("trace_id", "span_id", "parent"),
    [
        ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 0x00F067AA0BA902B7),
        ("0" * 32, "00f067aa0ba902b7", None),
        ("order-4711", "zz", None),
        (7, 8, None),
    ],
)
def test_a_trace_to_go_on_from(
    spans: InMemorySpanExporter, faults: Faults, trace_id: Any, span_id: Any, parent: int | None
) -> None:
    """Ids that a program has from a message, say; those that are none begin a trace."""
    own.tracer.start_span("consume", trace_id=trace_id, parent_span_id=span_id).finish()
    found = only(spans).parent
    assert (None if found is None else found.span_id) == parent
    assert not faults


def test_a_span_whose_parent_is_named(spans: InMemorySpanExporter) -> None:
    """It is under that one, whatever is current, and though it has ended."""
    parent = own.tracer.start_span("parent")
    parent.finish()
    with trace.get_tracer("shop").start_as_current_span("other"):
        own.tracer.start_span("child", parent=parent).finish("error")
    child, over = named(spans, "child"), named(spans, "parent")
    assert child.parent is not None
    assert over.context is not None
    assert child.parent.span_id == over.context.span_id
    assert child.status.status_code is StatusCode.ERROR


def test_nothing_is_kept(shop: Site, spans: InMemorySpanExporter) -> None:
    """Asok keeps a thousand spans that have ended: ours go, the server's too. (Under ASGI its own
    keep all that was current, each the token that it was made current with.)"""
    shop.app.use(TracingMiddleware())
    held: list[weakref.ref[Any]] = []

    @shop.view
    def page(request: Any) -> str:
        held.append(weakref.ref(trace.get_current_span()))
        with own.tracer.start_span("step"):
            held.append(weakref.ref(trace.get_current_span()))
        return "page"

    assert wsgi(shop.app, "/page").status == 200
    assert {span.name for span in own.tracer.get_finished_spans()} == {"http.server", "step"}
    spans.clear()
    gc.collect()
    assert [one() for one in held] == [None, None]


# --- ours ends, and fails, alone ------------------------------------------------------------------


@own.trace("early")
async def early() -> str:
    """Decorated before any application is instrumented."""
    await asyncio.sleep(0)
    work()
    return "done"


def test_what_was_decorated_before(spans: InMemorySpanExporter) -> None:
    """It lasts as well."""
    assert asyncio.run(early()) == "done"
    assert_work_under(spans, "early")


def test_undo(shop: Site, spans: InMemorySpanExporter) -> None:
    """Asok's own spans are Asok's alone again, those of functions that were decorated meanwhile
    too; one that is running ends in both."""

    @own.trace("late")
    async def late() -> None:
        work()

    running = own.tracer.start_span("running")
    running.__enter__()
    asok_trace.instrument(shop.app).undo()
    running.__exit__(None, None, None)
    assert only(spans).name == "running"
    spans.clear()
    assert "asok_trace" not in own.trace.__module__
    assert type(own.tracer.start_span("plain")) is own.Span
    asyncio.run(late())
    asyncio.run(early())
    assert {span.name for span in spans.get_finished_spans()} == {"work"}


def test_it_is_hooked_up_again(shop: Site, spans: InMemorySpanExporter) -> None:
    """Once, however often it was before."""
    for _ in range(2):
        asok_trace.instrument(shop.app).undo()
        asok_trace.instrument(shop.app)
    asyncio.run(early())
    assert_work_under(spans, "early")
    asok_trace.instrument(shop.app).undo()


class BrokenError(Exception):
    """What a part of ours fails with."""


def broken(*_args: Any, **_kwargs: Any) -> Any:
    """In place of any function of ours."""
    raise BrokenError("broken")


PARTS: dict[str, Any] = {
    "mirrored._mirror": mirrored,
    "mirrored._mirrored": mirrored,
    "mirrored._around": mirrored,
    "mirror_span.start": mirror_span,
    "mirror_span._values": mirror_span,
    "MirrorSpan.enter": mirror_span.MirrorSpan,
    "MirrorSpan.leave": mirror_span.MirrorSpan,
    "MirrorSpan.failed": mirror_span.MirrorSpan,
    "MirrorSpan.end": mirror_span.MirrorSpan,
    "MirrorSpan._end": mirror_span.MirrorSpan,
    "MirrorSpan._leave_step": mirror_span.MirrorSpan,
    "MirrorSpan.lasts": mirror_span.MirrorSpan,
    "otel_context.attach": mirror_span.otel_context,
}


def day() -> list[Any]:
    """What is made of each kind of what can be traced."""
    seen: list[Any] = []

    @own.trace
    async def charge(fails: bool = False) -> str:
        await asyncio.sleep(0)
        if fails:
            raise LookupError("charge")
        return "charged"

    @own.trace
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    @own.trace
    def rows() -> Iterator[int]:
        yield from (3, 4)

    @own.trace
    def plain(fails: bool = False) -> str:
        if fails:
            raise LookupError("plain")
        return "plain"

    async def drained() -> list[int]:
        return [one async for one in stream()]

    for call in (charge, lambda: charge(True)):
        try:
            seen.append(asyncio.run(call()))
        except LookupError as error:
            seen.append(str(error))
    seen += [asyncio.run(drained()), list(rows()), plain()]
    try:
        plain(True)
    except LookupError as error:
        seen.append(str(error))
    with own.tracer.start_span("by hand") as span:
        span.set_attribute("shelf", 3).add_event("found", {"on": "top"})
    kept = own.tracer.get_finished_spans()
    seen += [(span.name, span.status, span.attributes, len(span.events)) for span in kept]
    own.tracer.clear_spans()
    return seen


@pytest.mark.parametrize("part", PARTS)
def test_a_broken_part(
    shop: Site, faults: Faults, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whichever it is, nobody notices, on the first day or the second, and it is said once."""
    with_us = day()
    handle = asok_trace.instrument(shop.app)
    handle.undo()
    without_us = day()
    assert with_us == without_us
    asok_trace.instrument(shop.app)
    monkeypatch.setattr(PARTS[part], part.partition(".")[2], broken)
    # What cannot be detached stays in a context of its own.
    assert [Context().run(day) for _ in range(2)] == [without_us, without_us]
    monkeypatch.undo()
    asok_trace.instrument(shop.app).undo()
    [record] = faults
    assert record.args is not None
    assert "showing the framework's own spans in the trace failed" in record.getMessage()
    assert not tracing.mirroring.working


def test_a_processor_of_the_host_that_raises(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When spans end: OpenTelemetry lets that out, and we do not."""

    class Raising(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise BrokenError("broken")

    expected = day()
    provider = TracerProvider()
    provider.add_span_processor(Raising(InMemorySpanExporter()))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    assert day() == expected
    assert len(faults) == 1

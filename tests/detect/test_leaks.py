"""What outlives its unit of work, and units left elsewhere or never; without a server."""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from contextvars import Context, copy_context
from typing import Any

import pytest
import structlog

import asok_trace
from asok_trace.core import findings
from asok_trace.core.fork import fork
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect.leaks import watching
from tests.gateway.conftest import faults, lines
from tests.gateway.found import leak, leaks, nothing_found, place

__all__ = ["faults", "lines", "nothing_found"]

Line = dict[str, Any]


log = structlog.get_logger()


# --- late -------------------------------------------------------------------------------------


async def lingering(go: asyncio.Event, times: int = 1) -> None:
    await go.wait()
    for _ in range(times):
        log.info("late")  # HERE


def test_a_task_that_outlives_its_unit(lines: list[Line]) -> None:
    """One finding for the place, with the task, the unit and its id; each line says how late."""

    async def main() -> Scope:
        go = asyncio.Event()
        with asok_trace.scope("nightly") as unit:
            task = asyncio.create_task(lingering(go, times=3), name="keeper")
        go.set()
        await task
        return unit

    unit = asyncio.run(main())
    found = leak("late")
    assert found.callsite == place(lingering)
    assert found.count == 3
    assert found.task == "keeper lingering()"
    assert (found.request_id, found.path) == (unit.request_id, "nightly")
    assert found.key == "late:tests.detect.test_leaks.lingering"
    assert "after the job nightly had ended" in found.message
    assert "create_task(asok_trace.wrap(lingering, outlive=True)(...))" in found.fix
    assert found.origin is None
    late = [line["late_ms"] for line in lines]
    assert len(late) == 3
    assert all(type(milliseconds) is int and milliseconds >= 0 for milliseconds in late)
    assert {line["request_id"] for line in lines} == {unit.request_id}


def test_in_debug_mode_a_task_knows_where_it_was_started() -> None:
    """The finding says so."""
    go = asyncio.Event()

    async def main() -> None:
        with asok_trace.scope("nightly"):
            task = asyncio.create_task(lingering(go))  # STARTED
        go.set()
        await task

    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.ReturnLoggerFactory()
    )
    asyncio.run(main(), debug=True)
    line = place(main, "# STARTED").split(" ")[0]
    assert leak("late").origin == f"started at {line} main"


def test_a_task_that_is_done_in_time(lines: list[Line]) -> None:
    """Silence, and no such field."""

    async def main() -> None:
        go = asyncio.Event()
        with asok_trace.scope("nightly"):
            task = asyncio.create_task(lingering(go))
            go.set()
            await task

    asyncio.run(main())
    assert leaks() == []
    assert "late_ms" not in lines[0]


@pytest.mark.parametrize("how", ["call_soon", "call_later", "to_thread", "run_in_executor"])
def test_callbacks_and_threads_of_a_loop(lines: list[Line], how: str) -> None:
    """What a unit has left to the loop, or to its threads, with its context."""

    def callback() -> None:
        go.wait()
        log.info("late")  # HERE
        loop.call_soon_threadsafe(done.set)

    async def main() -> None:
        nonlocal loop, done
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        with asok_trace.scope("nightly"):
            if how == "call_soon":
                loop.call_soon(callback)
            elif how == "call_later":
                loop.call_later(0, callback)
            elif how == "to_thread":
                kept.append(asyncio.ensure_future(asyncio.to_thread(callback)))
                await asyncio.sleep(0)
            else:
                kept.append(loop.run_in_executor(None, copy_context().run, callback))
        go.set()
        await done.wait()

    go, kept = threading.Event(), []  # type: ignore[var-annotated]
    loop: Any = None
    done: Any = None
    asyncio.run(main())
    found = leak("late")
    assert found.callsite == place(callback)
    assert "asok_trace.wrap(callback, outlive=True) where it is started" in found.fix or (
        found.task is not None
    )


@pytest.mark.parametrize("kind", ["thread", "pool"])
def test_carried_threads(lines: list[Line], kind: str) -> None:
    """A thread and a pool's job that were given the unit's context and go on after it."""
    go = threading.Event()

    def work() -> None:
        go.wait()
        log.info("late")  # HERE

    pool = ThreadPoolExecutor(1, "worker")
    with asok_trace.propagate_threads("carry"):
        with asok_trace.scope("nightly") as unit:
            if kind == "thread":
                thread = threading.Thread(target=work, name="worker_0")
                thread.start()
            else:
                job = pool.submit(work)
        go.set()
        if kind == "thread":
            thread.join()
        else:
            job.result()
    pool.shutdown()
    found = leak("late")
    assert (found.callsite, found.thread, found.task) == (place(work), "worker_0", None)
    assert found.request_id == unit.request_id
    assert "asok_trace.wrap(work, outlive=True)" in found.fix


@pytest.mark.parametrize("how", ["outlive", "detach"])
def test_what_is_declared_is_not_late(lines: list[Line], how: str) -> None:
    """A unit of its own, or no unit at all."""
    go = threading.Event()

    def work() -> None:
        go.wait()
        log.info("in time")

    with asok_trace.scope("nightly"):
        wrapped = (
            asok_trace.wrap(work, outlive=True) if how == "outlive" else asok_trace.detach(work)
        )
        thread = threading.Thread(target=wrapped)
        thread.start()
    go.set()
    thread.join()
    assert leaks() == []
    assert "late_ms" not in lines[0]


def test_what_outlives_an_outliving_task(lines: list[Line]) -> None:
    """That has a lifetime of its own, which can be outlived in turn."""
    go = threading.Event()

    def inner() -> None:
        go.wait()
        log.info("late")

    def outer() -> threading.Thread:
        thread = threading.Thread(target=copy_context().run, args=(inner,))
        thread.start()
        return thread

    with asok_trace.scope("nightly"):
        wrapped = asok_trace.wrap(outer, outlive=True)
    thread = wrapped()
    go.set()
    thread.join()
    found = leak("late")
    assert found.path is not None
    assert found.path.endswith("outer")
    assert found.message.endswith(f"after the task {found.path} had ended")


def test_reading_a_closed_scope_is_no_line(lines: list[Line]) -> None:
    """Its fields, a fork and a carrier may be asked for by whoever kept it."""
    with asok_trace.scope("nightly") as unit:
        context = copy_context()
    assert unit.fields["request_id"] == unit.request_id
    assert "late_ms" not in unit.fields
    assert fork(unit, "task", "x").open
    carrier = context.run(asok_trace.to_carrier)
    assert carrier["asok-trace-request-id"] == unit.request_id
    assert leaks() == []


def test_a_librarys_own_line_is_not_told(lines: list[Line]) -> None:
    """A callback of its own, in a context that it was given: nobody could write anything else.
    The line says how late it is all the same."""
    library = {"__name__": "driver", "say": log.info}
    exec(compile("def housekeeping(): say('x')", "/env/site-packages/driver.py", "exec"), library)

    async def main() -> None:
        done = asyncio.Event()
        with asok_trace.scope("nightly"):
            loop = asyncio.get_running_loop()
            loop.call_soon(library["housekeeping"])
            loop.call_soon(done.set)
        await done.wait()

    asyncio.run(main())
    assert leaks() == []
    assert "late_ms" in lines[0]


def test_a_librarys_line_is_the_callers(lines: list[Line]) -> None:
    """Two places of the program that make a library log are two findings, each at its own line."""
    library: dict[str, Any] = {"__name__": "driver"}
    exec(compile("def ask(): say('asking')", "/env/site-packages/driver.py", "exec"), library)
    library["say"] = log.info
    with asok_trace.scope("nightly"):
        context = copy_context()

    def first() -> None:
        library["ask"]()  # HERE

    def second() -> None:
        library["ask"]()  # HERE

    for function in (first, second, first):
        context.run(function)
    found = {finding.callsite: finding.count for finding in leaks()}
    assert found == {place(first): 2, place(second): 1}


def test_the_standard_librarys_lines_too(caplog: pytest.LogCaptureFixture) -> None:
    """A record gets the field, as a number."""
    with asok_trace.scope("nightly"):
        context = copy_context()

    def work() -> None:
        logging.getLogger("shop").warning("late")  # HERE

    with asok_trace.stamp_logging():
        context.run(work)
    assert leak("late").callsite == place(work)
    [record] = [record for record in caplog.records if record.name == "shop"]
    assert type(record.late_ms) is int  # type: ignore[attr-defined]


def test_switched_off(lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the level off nothing is told; the field stays, for it is a fact of the line."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")  # a provider would stay
    handle = asok_trace.setup(level="off", threads="off")
    try:
        with asok_trace.scope("nightly"):
            context = copy_context()
        context.run(log.info, "late")
    finally:
        handle.undo()
    assert leaks() == []
    [line] = [line for line in lines if line["event"] == "late"]
    assert "late_ms" in line


# --- foreign ----------------------------------------------------------------------------------


def numbers() -> Iterator[int]:
    with asok_trace.scope("numbers"):  # OPENED
        yield 1
        yield 2


def test_a_generator_that_is_finished_elsewhere(lines: list[Line]) -> None:
    """Opened by who began it, closed by who went on with it: both are named, once."""

    def finish(steps: Iterator[int]) -> None:
        list(steps)  # HERE

    for _ in range(2):
        steps = numbers()
        next(steps)
        Context().run(finish, steps)
        ACTIVE.set(None)
    found = leak("foreign")
    assert found.callsite == place(finish)
    assert found.origin == f"entered at {place(numbers, '# OPENED')}"
    assert found.path == "numbers"
    assert found.count == 2
    assert "wrap_stream()" in found.fix


def test_whoever_goes_on_in_its_context_is_not_late(lines: list[Line]) -> None:
    """One bug is one finding."""
    steps = numbers()
    next(steps)
    Context().run(list, steps)
    log.info("still there")
    assert [finding.slug for finding in leaks()] == ["foreign"]
    assert "late_ms" not in lines[0]


def test_the_unit_of_another_context_stays(lines: list[Line]) -> None:
    """What is closed from outside takes nothing away from whoever closes it."""
    steps = numbers()
    context = Context()
    context.run(next, steps)
    with asok_trace.scope("mine") as mine:
        list(steps)
        assert asok_trace.current() is mine
    assert asok_trace.current() is None
    assert leak("foreign").path == "numbers"


async def countdown() -> AsyncIterator[int]:
    with asok_trace.scope("countdown"):  # OPENED
        for number in range(3):
            yield number


def test_an_async_generator_closed_by_another_task() -> None:
    """The task that closes it has a context of its own."""

    async def main() -> None:
        steps = countdown()
        await anext(steps)
        await asyncio.create_task(steps.aclose())  # type: ignore[attr-defined]
        ACTIVE.set(None)

    asyncio.run(main())
    found = leak("foreign")
    assert found.origin == f"entered at {place(countdown, '# OPENED')}"
    assert found.task is not None
    assert "async_generator" in found.task


def test_an_async_generator_that_is_broken_off() -> None:
    """The loop closes it, in a task of its own."""

    async def main() -> None:
        async for _ in countdown():
            break
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert leak("foreign").origin == f"entered at {place(countdown, '# OPENED')}"


def test_what_is_closed_where_it_was_opened() -> None:
    """Generators that are broken off and closed, streams that are wrapped: silence."""

    async def main() -> None:
        async with aclosing(countdown()) as steps:  # type: ignore[type-var]
            async for _ in steps:
                break
        wrapped = asok_trace.wrap_stream(countdown())
        await anext(wrapped)
        await asyncio.create_task(wrapped.aclose())  # type: ignore[attr-defined]

    asyncio.run(main())
    with closing(numbers()) as steps:  # type: ignore[type-var]
        next(steps)
    wrapped = asok_trace.wrap_stream(numbers())
    next(wrapped)
    Context().run(list, wrapped)
    broken_off = asok_trace.wrap_stream(numbers())
    next(broken_off)
    del broken_off
    gc.collect()
    for _ in numbers():
        break
    gc.collect()
    assert leaks() == []


def test_units_that_end_in_the_wrong_order_are_silent(lines: list[Line]) -> None:
    """In one context: each has its own lifetime, and the one that goes on stays current."""
    outer, inner = asok_trace.scope("outer"), asok_trace.scope("inner")
    outer.__enter__()
    opened = inner.__enter__()
    outer.__exit__(None, None, None)
    assert asok_trace.current() is opened
    inner.__exit__(None, None, None)
    assert asok_trace.current() is None
    assert leaks() == []


# --- unclosed ---------------------------------------------------------------------------------


def test_a_unit_that_is_never_left() -> None:
    """Named where it was entered, when it is thrown away; told by whoever looks."""

    def forgetful() -> str:
        unit = asok_trace.scope("nightly")
        return unit.__enter__().request_id  # HERE

    request_id = Context().run(forgetful)
    Context().run(forgetful)
    gc.collect()
    found = leak("unclosed")
    assert found.callsite == place(forgetful)
    assert found.count == 2
    assert (found.request_id, found.path) == (request_id, "nightly")
    assert "with asok_trace.scope('nightly'):" in found.fix
    assert found.key == "unclosed:tests.detect.test_leaks.forgetful"


def test_it_is_not_told_by_the_finalizer(caplog: pytest.LogCaptureFixture) -> None:
    """A collection may run while somebody holds the lock of a log handler."""

    def forgetful() -> None:
        asok_trace.scope("nightly").__enter__()

    Context().run(forgetful)
    gc.collect()
    assert caplog.records == []
    assert len(leaks()) == 1
    assert len(caplog.records) == 1


def test_units_that_cannot_be_made_are_none() -> None:
    """A refused argument leaves nothing to complain of."""
    raised: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, raised.append
    try:
        with pytest.raises(asok_trace.ConfigError):
            asok_trace.scope("x", kind="none")
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert raised == []
    assert leaks() == []


# --- containment --------------------------------------------------------------------------------


class BrokenError(Exception):
    """Ours."""


def broken(*_args: Any, **_kwargs: Any) -> Any:
    raise BrokenError("broken")


@pytest.mark.parametrize("part", ["speaker", "in_program", "where", "task", "told", "outermost"])
def test_a_fault_of_ours(
    lines: list[Line],
    faults: list[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Lines are stamped, units closed, and it is reported once."""
    from asok_trace.detect import leaks as module

    monkeypatch.setattr(module, part, broken)
    for _ in range(2):
        with asok_trace.scope("nightly") as unit:
            context = copy_context()
        context.run(log.info, "late")
        steps = numbers()
        next(steps)
        Context().run(list, steps)
        ACTIVE.set(None)
    assert lines[0]["request_id"] != lines[1]["request_id"] == unit.request_id
    assert not unit.open
    assert [record.levelname for record in faults] == ["ERROR"]
    assert not watching.working
    assert findings.findings() == []

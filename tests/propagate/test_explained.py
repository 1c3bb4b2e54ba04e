"""An error about there being no request says why, wherever work that left its request ends in it:
in threads, pools, tasks and generators, of each framework.

needs: asok, flask, quart, gevent
"""

import asyncio
import functools
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

import flask
import pytest
import quart
from asok import current_request
from asok.context import request_context
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from asok_trace import ContextExecutor, detach, propagate_threads, scope, wrap, wrap_stream
from asok_trace.core import findings
from asok_trace.core.finding import Finding
from tests.programs import run
from tests.propagate.hops import freed, hold

SECONDS = 30

READS: dict[str, Callable[[], object]] = {
    "asok": lambda: current_request.path,
    "flask": lambda: flask.request.path,
    "flask session": lambda: flask.session.get("user"),
    "quart": lambda: quart.request.path,
    "quart session": lambda: quart.session.get("user"),
    "quart websocket": lambda: quart.websocket.path,
}


@pytest.fixture(autouse=True)
def serving() -> Iterator[None]:
    """Nothing was found so far, and a request was served."""
    findings.clear()
    findings.serve()
    yield
    findings.clear()


@pytest.fixture(params=READS)
def charge(request: pytest.FixtureRequest) -> Callable[[], object]:
    """Work that reads the current request of a framework, in which there is none."""
    read = READS[request.param]

    def charge() -> object:
        return read()

    return charge


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        function()
    return caught.value


def note(error: BaseException) -> str:
    """The only one."""
    [text] = error.__notes__
    return str(text)


def found() -> Finding:
    """The only one there is."""
    [one] = asok_trace.findings()
    return one


def failed(thread: threading.Thread, monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """What ends ``thread``, as Python reports it."""
    seen: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    thread.start()
    thread.join(SECONDS)
    [error] = seen
    return error


def assert_started(error: BaseException, request_id: str) -> None:
    """It says where it was started, during what, and the remedy; once, as the finding does."""
    text = note(error)
    assert "charge() was started at " in text
    assert "test_explained.py:" in text
    assert f"during request {request_id} order, without its context" in text
    assert "Hand over asok_trace.wrap(" in text
    one = found()
    assert (one.slug, one.count, one.request_id, one.path) == ("lost", 1, request_id, "order")
    assert one.origin is not None
    assert one.origin.startswith("started at ")


# What runs a function elsewhere and raises what it raises.
def _run_in_executor(function: Callable[[], object]) -> object:
    async def main() -> object:
        return await asyncio.get_running_loop().run_in_executor(None, function)

    return asyncio.run(main())


def _submitted(function: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(SECONDS)


def _mapped(function: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return list(pool.map(lambda _: function(), [1]))


POOLS = {"submit": _submitted, "run_in_executor": _run_in_executor}


@pytest.mark.parametrize("make", [threading.Thread, threading.Timer])
def test_a_watched_thread(
    charge: Callable[[], object], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is reported with the note."""
    with propagate_threads("watch"), scope("order") as opened:
        thread = make(0, charge) if make is threading.Timer else make(target=charge)
        error = failed(thread, monkeypatch)
    assert_started(error, opened.request_id)
    assert note(error) in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("pool", POOLS)
def test_a_watched_job(charge: Callable[[], object], pool: str) -> None:
    """Its future raises the error with the note; and once, though it passes us again here."""
    with propagate_threads("watch"), pytest.raises(RuntimeError) as caught, scope("order") as unit:
        POOLS[pool](charge)
    assert_started(caught.value, unit.request_id)


def test_a_watched_map(charge: Callable[[], object]) -> None:
    """As a job."""
    with propagate_threads("watch"), scope("order") as unit:
        error = raised(lambda: _mapped(charge))
    assert f"during request {unit.request_id} order" in note(error)
    assert found().count == 1


def test_what_a_watched_thread_gives_to_a_loop(
    charge: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``run_coroutine_threadsafe`` from a thread that a request has started: the task has the
    thread's context, and the thread gets the error."""

    async def work() -> None:
        charge()

    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever)
    runner.start()

    def hand_over() -> None:
        asyncio.run_coroutine_threadsafe(work(), loop).result(SECONDS)

    try:
        with propagate_threads("watch"), scope("order") as unit:
            error = failed(threading.Thread(target=hand_over), monkeypatch)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        runner.join(SECONDS)
        loop.close()
    assert f"during request {unit.request_id} order" in note(error)
    assert found().count == 1


def test_nothing_is_watched(charge: Callable[[], object]) -> None:
    """Then nobody knows more than that there is none; the unit of work through which it passes says
    whose it is."""
    with pytest.raises(RuntimeError) as caught, scope("order") as unit:
        _submitted(charge)
    assert "order is a unit of work of its own (job)" in note(caught.value)
    assert found().request_id == unit.request_id


def test_carried(charge: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit of work is there, and has no request: a thread, a job, a pool of ours."""
    with propagate_threads(), scope("order") as unit:
        errors = [failed(threading.Thread(target=charge), monkeypatch)]
        errors += [raised(lambda pool=pool: pool(charge)) for pool in POOLS.values()]  # type: ignore[misc]
    with scope("order") as unit, ContextExecutor(1) as pool:
        errors.append(raised(lambda: pool.submit(charge).result(SECONDS)))
    for error in errors:
        assert "order is a unit of work of its own (job)" in note(error)
    assert found().count == len(errors)
    assert unit.request_id


def test_carried_and_late(charge: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit of work has ended meanwhile."""
    go = threading.Event()

    def waits() -> None:
        assert go.wait(SECONDS)
        charge()

    seen: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    with propagate_threads(), scope("order") as unit:
        thread = threading.Thread(target=waits)
        thread.start()
    go.set()
    thread.join(SECONDS)
    [error] = seen
    text = note(error)
    assert text.startswith("waits() asked ")
    assert f" ms after request {unit.request_id} order had ended" in text
    assert found().request_id == unit.request_id


# wrap and detach.

BOTH = pytest.mark.parametrize("asynchronous", [False, True])


def either(charge: Callable[[], object], asynchronous: bool) -> Any:
    if not asynchronous:
        return charge

    async def charge_async() -> object:
        await asyncio.sleep(0)
        return charge()

    return charge_async


def call(function: Any, asynchronous: bool) -> object:
    return asyncio.run(function()) if asynchronous else function()


@BOTH
def test_wrapped_outside_any_request(charge: Callable[[], object], asynchronous: bool) -> None:
    """There was nothing to bind."""
    wrapped = wrap(either(charge, asynchronous))
    error = raised(lambda: call(wrapped, asynchronous))
    assert note(error).startswith("No request is current in ")
    assert found().count == 1


@BOTH
def test_detached(charge: Callable[[], object], asynchronous: bool) -> None:
    """It says so, and where."""
    work = either(charge, asynchronous)
    with scope("order"):
        detached = detach(work)
        error = raised(lambda: call(detached, asynchronous))
    assert f"{work.__name__}() was given to asok_trace.detach() at " in note(error)
    assert "test_explained.py:" in note(error)
    assert found().origin is not None


@BOTH
def test_outliving(
    charge: Callable[[], object], asynchronous: bool, spans: InMemorySpanExporter
) -> None:
    """It says so, and where; and so does its span."""
    work = either(charge, asynchronous)
    with scope("order") as unit:
        wrapped = wrap(work, outlive=True)
    error = raised(lambda: call(wrapped, asynchronous))
    assert f"{work.__name__}() was given to asok_trace.wrap(..., outlive=True) at " in note(error)
    assert found().request_id == unit.request_id
    [span] = [one for one in spans.get_finished_spans() if one.name.endswith(work.__name__)]
    [event] = [one for one in span.events if one.name == "exception"]
    assert note(error) in str((event.attributes or {})["exception.stacktrace"])


def test_a_generator_and_a_stream(charge: Callable[[], object]) -> None:
    """Of `wrap` and `wrap_stream`, sync and async: each step passes us."""

    def rows() -> Iterator[int]:
        yield 1
        charge()

    async def rows_async() -> Any:
        yield 1
        charge()

    async def iterate(stream: Any) -> None:
        async for _ in stream:
            pass

    errors = [
        raised(lambda: list(wrap(rows)())),
        raised(lambda: list(wrap_stream(rows()))),
        raised(lambda: asyncio.run(iterate(wrap_stream(rows_async())))),
    ]
    assert [note(error).startswith("No request is current in ") for error in errors] == [True] * 3
    assert found().count == 3


def test_the_error_is_the_same(charge: Callable[[], object]) -> None:
    """Its type, its text, its arguments, its cause."""
    cause = LookupError("no cart")

    def chained() -> None:
        try:
            charge()
        except RuntimeError as error:
            raise error from cause

    plain = raised(charge)
    error = raised(wrap(chained))
    assert type(error) is type(plain)
    assert error.args == plain.args
    assert error.__cause__ is cause


def test_a_job_that_fails_keeps_no_context() -> None:
    """A future's exception does not hold the context that the job was carried in."""

    def fail() -> None:
        raise RuntimeError("Working outside of request context")

    with ThreadPoolExecutor(1) as pool:

        def request() -> Any:
            with propagate_threads(), scope("order"):
                held = hold()
                job = pool.submit(fail)
                error = job.exception(SECONDS)
                return held, error

        held, error = copy_context().run(request)
        pool.submit(int).result(SECONDS)
    assert error.__notes__
    assert freed(held)


# Resets in another context.

MINE: ContextVar[int] = ContextVar("mine")


def test_a_context_manager_that_is_left_elsewhere() -> None:
    """Asok's own, entered in a request's context and left in a thread's."""
    managed = request_context(object())  # type: ignore[arg-type]
    copy_context().run(managed.__enter__)

    def leave() -> None:
        managed.__exit__(None, None, None)

    with (
        propagate_threads(),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(ValueError, match="different Context") as caught,
        scope("order") as unit,
    ):
        pool.submit(leave).result(SECONDS)
    assert "the ContextVar 'request' is reset in another context than it was set in" in note(
        caught.value
    )
    one = found()
    assert (one.slug, one.count, one.request_id) == ("foreign", 1, unit.request_id)
    assert one.callsite.endswith(" leave")


def test_a_flask_context_that_is_popped_elsewhere() -> None:
    """Pushed in one context, popped in a copy of it."""

    def pushed() -> Callable[[], None]:
        context = flask.Flask("site").test_request_context()
        context.push()

        def pop() -> None:
            context.pop()

        return wrap(pop)

    pop = copy_context().run(pushed)
    with pytest.raises(ValueError, match="different Context") as caught:
        pop()
    assert "is reset in another context than it was set in" in note(caught.value)
    assert found().slug == "foreign"
    assert found().callsite.endswith(" pop")


def test_one_context_for_many_jobs() -> None:
    """The error of the second, that finds it entered."""
    context, go, begun = copy_context(), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go.wait(SECONDS)

    with propagate_threads(), scope("order"), ThreadPoolExecutor(2) as pool:
        first = pool.submit(functools.partial(context.run, wait))
        assert begun.wait(SECONDS)
        second = pool.submit(functools.partial(context.run, int))
        error = second.exception(SECONDS)
        go.set()
        first.result(SECONDS)
    assert error is not None
    assert "Give each run a copy" in note(error)
    assert asok_trace.findings() == []


# gevent, in a process of its own.

GREENLETS = """
{before}
import warnings
warnings.simplefilter("ignore")
import flask, gevent
from gevent.pool import Pool
import asok_trace
asok_trace.propagate_threads("watch")
from asok_trace.core import findings
findings.serve()

def charge():
    return flask.request.path

for spawn in (gevent.spawn, Pool(1).spawn):
    with asok_trace.scope("order") as unit:
        greenlet = spawn(charge)
        greenlet.join()
    [note] = greenlet.exception.__notes__
    expected = f" <module> during request {{unit.request_id}} order, without its context"
    assert note.startswith("charge() was started at <string>:") and expected in note, note
[found] = asok_trace.findings()
assert (found.slug, found.count) == ("lost", 2), found
assert found.callsite.endswith(" charge"), found
"""


@pytest.mark.parametrize(
    "before",
    ["from gevent import monkey; monkey.patch_all()", ""],
    ids=["patched", "plain"],
)
def test_a_greenlet(before: str) -> None:
    """With and without monkey patching."""
    run(GREENLETS.format(before=before))

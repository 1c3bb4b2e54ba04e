"""`propagate_threads("carry")`: every thread of the program runs in the context of whoever
started it, and nobody keeps that context after it."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from pathlib import Path

import pytest

import asok_trace
from asok_trace.core import callsite
from asok_trace.propagate import threads
from tests.propagate.hops import (
    HELD,
    SECONDS,
    Held,
    current_id,
    finish,
    freed,
    hold,
    library,
    run_and_wait,
    seen_in_thread,
)


@pytest.fixture(autouse=True)
def carried() -> Iterator[None]:
    with asok_trace.propagate_threads():
        yield


class WithRun(threading.Thread):
    """Overrides what runs."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then = then

    def run(self) -> None:
        self.then()


class WithStart(WithRun):
    """Overrides what starts it as well."""

    def start(self) -> None:
        self.name = "started by itself"
        super().start()


MAKERS = {
    "target": lambda then: threading.Thread(target=then),
    "daemon": lambda then: threading.Thread(target=then, daemon=True),
    "run": WithRun,
    "start": WithStart,
    "timer": lambda then: threading.Timer(0, then),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_thread_works_for_whoever_started_it(
    make: Callable[[Callable[[], None]], threading.Thread],
) -> None:
    """In a request its id, after that nobody's: however the thread was made."""
    with asok_trace.scope("a") as scope:
        assert seen_in_thread(make) == scope.request_id
    assert seen_in_thread(make) is None


def test_the_context_is_that_of_the_start() -> None:
    """A thread that is made in one unit of work and started in another works for the other."""
    seen: list[str | None] = []
    with asok_trace.scope("a"):
        thread = threading.Thread(target=lambda: seen.append(current_id()))
    with asok_trace.scope("b") as scope:
        thread.start()
        finish(thread)
    assert seen == [scope.request_id]


def test_a_chain_of_timers() -> None:
    """Each timer starts the next: all of them work for the request that started the first."""
    seen: list[str | None] = []
    done = threading.Event()

    def tick() -> None:
        seen.append(current_id())
        if len(seen) < 4:
            threading.Timer(0, tick).start()
        else:
            done.set()

    with asok_trace.scope("a") as scope:
        threading.Timer(0, tick).start()
        assert done.wait(SECONDS)
    assert seen == [scope.request_id] * 4


def test_what_a_thread_sets_stays_in_it() -> None:
    """It has a copy: its variables reach neither the request nor the threads beside it."""
    with asok_trace.scope("a"):
        for _ in range(2):
            assert seen_in_thread(_sets_what_it_holds) is not None
        assert HELD.get() is None


def _sets_what_it_holds(then: Callable[[], None]) -> threading.Thread:
    def work() -> None:
        assert HELD.get() is None
        HELD.set(Held())
        then()

    return threading.Thread(target=work)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_finished_thread_keeps_nothing(
    make: Callable[[Callable[[], None]], threading.Thread],
) -> None:
    """Neither the context nor a `run` of ours, however long somebody holds the thread."""
    with asok_trace.scope("a"):
        held = hold()
        thread = make(lambda: None)
        before = dict(vars(thread))
        thread.start()
        finish(thread)
        assert ("run" in vars(thread)) == ("run" in before)
        HELD.set(None)
        assert freed(held)


def test_a_run_of_the_threads_own_stays() -> None:
    """A `run` that somebody else has put on the thread runs, in the context, and is back."""
    seen: list[str | None] = []
    thread = threading.Thread()

    def run() -> None:
        seen.append(current_id())

    thread.run = run  # type: ignore[method-assign]
    with asok_trace.scope("a") as scope:
        thread.start()
        finish(thread)
    assert seen == [scope.request_id]
    assert thread.run is run


def test_starting_twice_is_the_same_error() -> None:
    """As without us; and the first start is not disturbed."""
    go = threading.Event()
    with asok_trace.scope("a"):
        thread = threading.Thread(target=go.wait, args=(SECONDS,))
        thread.start()
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        go.set()
        finish(thread)
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
    assert "run" not in vars(thread)


def test_a_thread_that_was_never_made_is_the_same_error() -> None:
    """A subclass that forgets ``super().__init__()`` is told so by Python; we stay on."""

    class Forgetful(threading.Thread):
        def __init__(self) -> None:
            pass

    with asok_trace.scope("a"), pytest.raises(RuntimeError, match="__init__"):
        Forgetful().start()
    assert threads.spawning.working


def test_a_thread_that_cannot_start_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no thread left: the same error, nothing is kept, and a later start in
    another request works for that one."""
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.append(current_id()))

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    names = ("_start_new_thread", "_start_joinable_thread")
    with asok_trace.scope("a"), monkeypatch.context() as patched:
        held = hold()
        for name in names:
            if hasattr(threading, name):
                patched.setattr(threading, name, refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
    assert "run" not in vars(thread)
    with asok_trace.scope("b") as scope:
        HELD.set(None)
        assert freed(held)
        thread.start()
        finish(thread)
    assert seen == [scope.request_id]


def test_an_exception_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches `threading.excepthook` as without us, and nothing is kept."""
    caught: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: caught.append(args.exc_type))
    thread = threading.Thread(target=lambda: [][0])
    with asok_trace.scope("a"):
        thread.start()
        finish(thread)
    assert caught == [IndexError]
    assert "run" not in vars(thread)


@pytest.mark.parametrize("make", [threading.Thread, threading.Timer], ids=["thread", "timer"])
def test_a_detached_thread_keeps_no_request(make: type[threading.Thread]) -> None:
    """What `detach` has bound is not captured again: the request is freed while it runs."""
    begun, go = threading.Event(), threading.Event()
    seen: list[str | None] = []

    def poll() -> None:
        seen.append(current_id())
        begun.set()
        go.wait(SECONDS)

    def request() -> tuple["weakref.ref[Held]", threading.Thread]:
        with asok_trace.scope("a"):
            target = asok_trace.detach(poll)
            held = hold()
            thread = make(0, target) if make is threading.Timer else make(target=target)
            thread.start()
            assert begun.wait(SECONDS)
            return held, thread

    held, thread = copy_context().run(request)
    try:
        assert freed(held)
        assert seen == [None]
    finally:
        go.set()
        finish(thread)


def test_a_wrapped_target_runs_where_it_was_wrapped() -> None:
    """It is not bound a second time to the context of the start."""
    seen: list[str | None] = []
    with asok_trace.scope("a") as scope:
        target = asok_trace.wrap(lambda: seen.append(current_id()))
        with asok_trace.scope("b"):
            thread = threading.Thread(target=target)
            thread.start()
            finish(thread)
    assert seen == [scope.request_id]


def test_a_librarys_thread_is_not_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that installed code starts for itself, in a request, does not work for it."""
    installed = library(tmp_path, monkeypatch, "a_driver")
    seen: list[str | None] = []
    with asok_trace.scope("a"):
        run_and_wait(installed.start, lambda: seen.append(current_id()))
    assert seen == [None]


def test_a_thread_of_the_standard_library_is_not_carried() -> None:
    """`multiprocessing.pool` starts workers for itself: they work for no request."""
    from multiprocessing.pool import ThreadPool

    with asok_trace.scope("a"), ThreadPool(1) as pool:
        assert pool.apply(current_id) is None


def test_an_installed_program_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package that switches us on is the program, wherever it lives; its neighbours are
    still libraries."""
    monkeypatch.setattr(callsite, "_own", set())
    program = library(tmp_path, monkeypatch, "a_program")
    neighbour = library(tmp_path, monkeypatch, "a_program_neighbour")
    callsite.is_library.cache_clear()
    seen: list[str | None] = []
    try:
        with program.carry(asok_trace), asok_trace.scope("a") as scope:
            run_and_wait(program.start, lambda: seen.append(current_id()))
            run_and_wait(neighbour.start, lambda: seen.append(current_id()))
    finally:
        callsite.is_library.cache_clear()
    assert seen == [scope.request_id, None]


# Where Python carries by itself.


def test_nothing_is_done_where_python_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``thread_inherit_context`` a thread is left alone."""
    monkeypatch.setattr(threads, "_INHERITS", True)
    with asok_trace.scope("a"):
        thread = threading.Thread(target=lambda: None)
        assert threads._prepare(thread, sys._getframe()) is None
        assert seen_in_thread(MAKERS["target"]) is None  # this Python does not inherit


def test_a_thread_with_a_context_of_its_own_is_left_alone() -> None:
    """``Thread(context=...)`` of Python 3.14 says what it shall work for."""
    thread = threading.Thread(target=lambda: None)
    thread._context = Context()  # type: ignore[attr-defined]  # as 3.14 keeps it
    with asok_trace.scope("a"):
        assert threads._prepare(thread, sys._getframe()) is None
    if sys.version_info >= (3, 14):
        assert seen_in_thread(lambda then: threading.Thread(target=then, context=Context())) is None


# A fault of ours.


@pytest.mark.parametrize(
    "broken", ["_prepare", "copy_context", "is_library", "caller", "_is_left_alone"]
)
def test_a_fault_of_ours_keeps_no_thread_from_starting(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread runs without the context; it is said once."""

    def fail(*_args: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(threads, broken, fail)
    with asok_trace.scope("a"):
        assert [seen_in_thread(MAKERS["target"]) for _ in range(3)] == [None] * 3
    [record] = caplog.records
    assert "carrying the context into a thread failed: LookupError('ours')" in record.getMessage()

"""`propagate_threads(mode)`: what each mode does, which call holds, and the way back."""

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import asok_trace
from asok_trace import ConfigError, propagate_threads
from asok_trace.core.callsite import relative
from asok_trace.detect.origin import SPAWNED, Origin
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


def attributes() -> tuple[Any, Any]:
    """What is replaced."""
    return vars(threading.Thread)["start"], vars(ThreadPoolExecutor)["submit"]


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    """Whatever a test does, the very same attributes are there after it."""
    before = attributes()
    yield
    assert attributes() == before
    assert threads._mode == "off"


def mode_in_force() -> str:
    """What happens to a thread that a request starts."""
    found: list[tuple[str | None, Origin | None]] = []
    with asok_trace.scope("a"):
        thread = threading.Thread(target=lambda: found.append((current_id(), SPAWNED.get())))
        thread.start()
        finish(thread)
    [(request_id, came_from)] = found
    if request_id is not None:
        return "carry"
    return "off" if came_from is None else "watch"


@pytest.mark.parametrize("mode", ["off", "watch", "carry"])
def test_a_mode_does_what_it_says(mode: str) -> None:
    """And nothing once it is undone; undoing twice does nothing."""
    handle = propagate_threads(mode)
    assert mode_in_force() == mode
    handle.undo()
    handle.undo()
    assert mode_in_force() == "off"


def test_the_default_is_to_carry() -> None:
    """``propagate_threads()``, as a context manager."""
    with propagate_threads():
        assert mode_in_force() == "carry"


def test_an_unknown_mode() -> None:
    """The error says the value, the reason and the remedy; nothing is in force."""
    with pytest.raises(ConfigError) as caught:
        propagate_threads("carried")
    said = str(caught.value)
    assert "'carried'" in said
    assert "is not a mode" in said
    assert all(mode in said for mode in ("off", "watch", "carry"))


def test_off_replaces_nothing() -> None:
    """The attributes are the very same."""
    before = attributes()
    with propagate_threads("off"):
        assert attributes() == before


def test_twice_in_force_is_once_wrapped() -> None:
    """The second call replaces nothing that is replaced already."""
    with propagate_threads():
        once = attributes()
        with propagate_threads(), propagate_threads("watch"):
            assert attributes() == once
        assert attributes() == once


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_latest_call_that_is_not_undone_holds(order: tuple[int, ...]) -> None:
    """In whatever order the handles are undone."""
    modes = ["carry", "watch", "off"]
    handles = [propagate_threads(mode) for mode in modes]
    left = [0, 1, 2]
    for number in order:
        assert mode_in_force() == modes[left[-1]]
        handles[number].undo()
        left.remove(number)
    assert mode_in_force() == "off"


def test_equal_calls_are_told_apart() -> None:
    """Undoing one of two equal calls leaves the other in force."""
    first, between, last = (propagate_threads(mode) for mode in ("carry", "watch", "carry"))
    last.undo()
    assert mode_in_force() == "watch"
    between.undo()
    assert mode_in_force() == "carry"
    first.undo()


def test_the_names_and_texts_stay() -> None:
    """Whoever looks at the replaced methods finds the name and docstring of the originals."""
    start, submit = attributes()
    with propagate_threads():
        for before, now in zip((start, submit), attributes(), strict=True):
            assert now is not before
            assert (now.__name__, now.__doc__) == (before.__name__, before.__doc__)


@pytest.mark.parametrize("again", [False, True], ids=["undone", "in force again"])
def test_somebody_has_wrapped_over_us(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undone under another's wrapper, ours passes through; called again, it works once."""
    handle = propagate_threads()
    ours, calls = attributes()[0], []

    def start(self: threading.Thread) -> None:
        calls.append(self)
        ours(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        handle.undo()
        assert threading.Thread.start is start
        assert mode_in_force() == "off"
        if again:
            with propagate_threads():
                assert mode_in_force() == "carry"
        assert len(calls) == 1 + again
        patched.undo()
        # What somebody else keeps of us is there still, and does nothing.
        assert threading.Thread.start is ours
        assert mode_in_force() == "off"
    threading.Thread.start = ours.__wrapped__  # type: ignore[method-assign]


# Watching.


def line_of(part: str) -> str:
    """Where this file says ``part``, for the first time."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, 1) if part in line)
    return f"{relative(__file__)}:{number}"


def spawns_a_thread(ask: Callable[[], object]) -> None:
    thread = threading.Thread(target=ask)
    thread.start()  # the thread's origin
    finish(thread)


def test_a_watched_thread_knows_who_started_it() -> None:
    """File, line, function, request id, and what the request was; nothing else is changed."""
    seen: list[tuple[Origin | None, str | None, object]] = []
    with propagate_threads("watch"), asok_trace.scope("nightly") as scope:
        HELD.set(Held())
        spawns_a_thread(lambda: seen.append((SPAWNED.get(), current_id(), HELD.get())))
        HELD.set(None)
        assert SPAWNED.get() is None
    [(came_from, request_id, held)] = seen
    assert (request_id, held) == (None, None)
    place = line_of("thread.start()  # the thread's" + " origin")
    assert str(came_from) == f"{place} spawns_a_thread during nightly ({scope.request_id})"


def submits_a_job(pool: ThreadPoolExecutor, ask: Callable[[], Any]) -> Any:
    return pool.submit(ask).result(SECONDS)  # the job's origin


def test_a_watched_job_knows_who_submitted_it() -> None:
    """Each its own, on one thread; the next job, of nobody, came from nobody."""
    with propagate_threads("watch"), ThreadPoolExecutor(1) as pool:
        for name in ("first", "second"):
            with asok_trace.scope(name) as scope:
                came_from, request_id = submits_a_job(pool, lambda: (SPAWNED.get(), current_id()))
            assert request_id is None
            place = line_of("return pool.submit(ask).result(SECONDS)  # the job's" + " origin")
            assert str(came_from) == f"{place} submits_a_job during {name} ({scope.request_id})"
        assert submits_a_job(pool, SPAWNED.get) is None
        assert submits_a_job(pool, lambda: len(copy_context())) == 0


def test_the_jobs_of_a_watched_map() -> None:
    """They name whoever called ``map``, not the standard library's line that submits."""
    with (
        propagate_threads("watch"),
        ThreadPoolExecutor(1) as pool,
        asok_trace.scope("a") as scope,
    ):
        found = list(pool.map(lambda _: SPAWNED.get(), range(2)))
    for came_from in found:
        assert came_from is not None
        assert came_from.callsite.code is test_the_jobs_of_a_watched_map.__code__
        assert came_from.request_id == scope.request_id


def test_a_librarys_thread_names_the_programs_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the program is carried, a library's thread is watched: it came from the line of the
    program that called the library."""
    installed = library(tmp_path, monkeypatch, "another_driver")
    seen: list[Origin | None] = []
    with propagate_threads(), asok_trace.scope("a") as scope:
        run_and_wait(installed.start, lambda: seen.append(SPAWNED.get()))
    [came_from] = seen
    assert came_from is not None
    assert came_from.request_id == scope.request_id
    assert came_from.callsite.code is run_and_wait.__code__


def test_watching_keeps_nothing_alive() -> None:
    """Neither the request, nor a frame, nor what its variables hold, while the thread runs."""
    go, begun = threading.Event(), threading.Event()
    kept: list[Origin | None] = []

    def work() -> None:
        kept.append(SPAWNED.get())
        begun.set()
        go.wait(SECONDS)

    def request() -> tuple["weakref.ref[Held]", "weakref.ref[object]", threading.Thread]:
        with asok_trace.scope("a") as scope:
            held, thread = hold(), threading.Thread(target=work)
            thread.start()
            assert begun.wait(SECONDS)
            return held, weakref.ref(scope), thread

    with propagate_threads("watch"):
        held, scope, thread = copy_context().run(request)
    try:
        assert freed(held)
        assert scope() is None
        assert kept[0] is not None
        assert not any(isinstance(one, FrameType) for one in gc.get_referents(*kept, *kept[0]))
    finally:
        go.set()
        finish(thread)


def test_outside_a_request_nothing_is_watched() -> None:
    """There is nobody to remember: the thread and the job run as they are."""
    with propagate_threads("watch"), ThreadPoolExecutor(1) as pool:
        seen: list[object] = []
        spawns_a_thread(lambda: seen.append(SPAWNED.get()))
        assert [*seen, submits_a_job(pool, SPAWNED.get)] == [None, None]


def test_a_job_of_a_watched_pool_is_as_before() -> None:
    """Its arguments, its result, its exception."""
    with propagate_threads("watch"), ThreadPoolExecutor(1) as pool, asok_trace.scope("a"):
        assert pool.submit(int, "ff", base=16).result(SECONDS) == 255
        assert pool.submit(dict, fn=1, came_from=2).result(SECONDS) == {"fn": 1, "came_from": 2}
        assert isinstance(pool.submit(int, "x").exception(SECONDS), ValueError)


def test_watching_does_not_touch_what_is_bound() -> None:
    """`wrap` and `detach` have said where the work belongs."""
    with propagate_threads("watch"), ThreadPoolExecutor(1) as pool, asok_trace.scope("a") as scope:
        assert submits_a_job(pool, asok_trace.wrap(current_id)) == scope.request_id
        assert submits_a_job(pool, asok_trace.detach(SPAWNED.get)) is None
        assert seen_in_thread(lambda then: threading.Thread(target=asok_trace.wrap(then)))


@pytest.mark.parametrize("broken", ["origin", "caller"])
def test_a_fault_while_watching(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread starts and the job runs; it is said once."""

    def fail(*_args: object) -> None:
        raise LookupError("ours")

    with propagate_threads("watch"), ThreadPoolExecutor(1) as pool, asok_trace.scope("a"):
        monkeypatch.setattr(threads, broken, fail)
        for _ in range(2):
            assert submits_a_job(pool, lambda: 5) == 5
            assert seen_in_thread(lambda then: threading.Thread(target=then)) is None
        monkeypatch.undo()
    [record] = caplog.records
    assert "LookupError('ours')" in record.getMessage()

"""An error about a request's context says why, as a note, and is a finding; once."""

import gc
import pickle
import sys
import sysconfig
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from types import FrameType
from typing import Any

import pytest

import asok_trace
from asok_trace.core import findings, settings
from asok_trace.core.finding import Finding
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect import explain
from asok_trace.detect.cause import cause_of
from asok_trace.detect.origin import HANDED, SPAWNED, Handed, Origin, origin

VARIABLE: ContextVar[int] = ContextVar("cart")


@pytest.fixture(autouse=True)
def serving() -> Iterator[None]:
    """Nothing was found so far, and a request was served."""
    findings.clear()
    findings.serve()
    yield
    findings.clear()


def complaints() -> tuple[str, ...]:
    return ("No request here", "No websocket here")


def library(source: str, **names: Any) -> dict[str, Any]:
    """What ``source`` defines, as code of an installed library."""
    defined: dict[str, Any] = {"__name__": "library", **names}
    exec(compile(source, sysconfig.get_paths()["stdlib"] + "/library.py", "exec"), defined)
    return defined


# What a framework raises where there is none; and what stands for one of our layers.
LIBRARY = library(
    """
def read(kind="request"):
    raise RuntimeError(f"No {kind} here. Read the manual.")

def passed(function, times=1):
    try:
        function()
    except BaseException as error:
        for _ in range(times):
            explain.passing(error, complaints)
        return error
    raise AssertionError("it has raised nothing")
""",
    explain=explain,
    complaints=complaints,
)
read: Callable[..., None] = LIBRARY["read"]
passed: Callable[..., BaseException] = LIBRARY["passed"]


def charge() -> None:
    read()  # the access


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def found() -> Finding:
    """The only one there is."""
    [one] = asok_trace.findings()
    return one


def frame_here() -> FrameType:
    return sys._getframe(1)


def started() -> Origin:
    """Where this line is, in a request."""
    request = Scope("4bf9", "http", method="POST", path="/cart")

    def start() -> Origin:
        ACTIVE.set(request)
        came_from = origin(frame_here())
        assert came_from is not None
        return came_from

    return copy_context().run(start)


def in_context(scope: Scope | None, function: Callable[[], Any], **variables: Any) -> Any:
    """Call ``function`` in a context with this scope, and these variables of ours."""

    def run() -> Any:
        ACTIVE.set(scope)
        SPAWNED.set(variables.get("spawned"))
        HANDED.set(variables.get("handed"))
        return function()

    return copy_context().run(run)


def request(kind: str = "http") -> Scope:
    return Scope("4bf9", kind, method="POST", path="/cart")


def ended() -> Scope:
    scope = request()
    scope.close()
    return scope


def streamed() -> Iterator[int]:
    charge()
    yield 1


def in_pool() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(charge).result()


# Where it is raised -> the scope and variables there, what raises, and what the note has to say.
CASES: dict[str, tuple[Callable[[], Scope | None], dict[str, Any], Any, list[str]]] = {
    "started": (
        lambda: None,
        {"spawned": started()},
        charge,
        [
            "charge() was started at ",
            "test_explain.py:",
            "during request 4bf9 POST /cart, without its context. Hand over asok_trace.wrap(charge)"
            ' there; or asok_trace.propagate_threads("carry")',
        ],
    ),
    "outlives": (
        lambda: Scope("4bf9", "task", name="charge", method="POST", path="/cart"),
        {"handed": Handed("charge", True, None)},
        charge,
        ["charge() was given to asok_trace.wrap(..., outlive=True): it may run after its request"],
    ),
    "detached": (
        lambda: None,
        {"handed": Handed("charge", False, None)},
        charge,
        ["charge() was given to asok_trace.detach()", "asok_trace.wrap(charge)"],
    ),
    "unit": (
        lambda: Scope("4bf9", "cron", name="nightly"),
        {"spawned": started()},
        charge,
        ["nightly is a unit of work of its own (cron)", "Pass what it needs"],
    ),
    "late": (
        ended,
        {},
        charge,
        ["charge() asked 0 ms after request 4bf9 POST /cart had ended", "outlive=True"],
    ),
    "body": (
        request,
        {},
        partial(next, streamed()),
        ["is a body of request 4bf9 POST /cart", "asok_trace.wrap_stream("],
    ),
    "pool": (
        request,
        {},
        in_pool,
        [
            "charge() ran in another thread, where no request was current; request 4bf9 POST /cart",
            "Hand over asok_trace.wrap(charge)",
            'asok_trace.propagate_threads("watch")',
        ],
    ),
    "served": (
        request,
        {},
        charge,
        ["request 4bf9 POST /cart was served, but it was not current in "],
    ),
    "outside": (lambda: None, {}, charge, ["No request is current in ", "asok_trace.wrap("]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_it_says(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why, and what to write instead; and the finding is at the program's line, with the request
    as far as that is known."""
    make, variables, function, parts = CASES[case]
    monkeypatch.setattr("asok_trace.detect.cause.time.perf_counter", lambda: 0.0)
    scope = make()
    if scope is not None and not scope.open:
        scope._ended = 1e-9
    error = in_context(scope, lambda: passed(function, 3), **variables)
    [note] = notes(error)
    for part in parts:
        assert part in note
    one = found()
    assert (one.kind, one.slug, one.count) == ("orphan", "lost", 1)
    line = charge.__code__.co_firstlineno + 1
    assert one.callsite.endswith(f"test_explain.py:{line} charge")
    assert one.message.startswith("current request read outside any request")
    assert one.fix.lower() in note.lower()
    assert one.key == "lost:tests.detect.test_explain.charge"
    knows = case not in ("outside", "detached")
    assert (one.request_id == "4bf9") is knows
    assert (one.path is not None) is knows


def test_a_second_time_at_the_same_place_is_counted() -> None:
    """Another exception there is the same finding; one exception that passes often counts once."""
    for _ in range(3):
        passed(charge, times=4)
    assert found().count == 3


def test_the_traceback_shows_it() -> None:
    """The standard library's, for what is logged and for what ends a program."""
    error = passed(charge)
    assert notes(error)[0] in "".join(traceback.format_exception(error))


def test_what_it_was_raised_from_is_explained() -> None:
    """What a traceback shows, those of a group, too; not what is hidden."""

    def chained() -> None:
        try:
            charge()
        except RuntimeError as error:
            raise LookupError("no cart") from error

    error = passed(chained)
    assert not notes(error)
    assert error.__cause__ is not None
    assert len(notes(error.__cause__)) == 1
    assert type(error.__cause__) is RuntimeError

    def grouped() -> None:
        try:
            charge()
        except RuntimeError as error:
            raise ExceptionGroup("tasks", [ValueError("x"), error]) from None

    group = passed(grouped)
    assert isinstance(group, ExceptionGroup)
    assert [len(notes(one)) for one in group.exceptions] == [0, 1]

    def hidden() -> None:
        try:
            charge()
        except RuntimeError:
            raise LookupError("no cart") from None

    error = passed(hidden)
    assert error.__context__ is not None
    assert not notes(error.__context__)
    assert found().count == 2


def test_a_chain_without_end() -> None:
    """Exceptions that are each other's cause are looked at once each."""
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    explain.passing(first, complaints)
    assert not notes(first) + notes(second)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("out of stock"),
        RuntimeError(),
        RuntimeError(3),
        ValueError("created in a different Context"),
        LookupError("No request here"),
        KeyboardInterrupt(),
        SystemExit(3),
    ],
)
def test_any_other_error_is_left_alone(error: BaseException) -> None:
    """No note, no attribute, no finding."""
    before = dict(vars(error))

    def fail() -> None:
        raise error

    passed(fail)
    assert vars(error) == before
    assert asok_trace.findings() == []


def test_one_kind_read_where_the_other_is_served() -> None:
    """A mistake of another sort: the framework's own text says all."""

    def websocket() -> None:
        read("websocket")

    error = in_context(request("http"), lambda: passed(websocket))
    assert not notes(error)
    assert not notes(in_context(request("websocket"), lambda: passed(charge)))
    assert asok_trace.findings() == []
    assert in_context(request("websocket"), lambda: passed(websocket)).__notes__
    assert found().message.startswith("current websocket read")


def test_before_the_first_request_it_is_counted_only() -> None:
    """Startup: the note is there all the same."""
    findings.clear()
    assert notes(passed(charge))
    assert asok_trace.findings() == []


def test_where_nothing_is_looked_for_it_is_only_explained() -> None:
    """The level ``off``."""
    settings.set_default(settings.Settings(level="off"))
    assert notes(passed(charge))
    assert asok_trace.findings() == []


def test_nothing_is_kept() -> None:
    """Neither the exception, nor what the frames of its traceback hold."""

    class Held:
        pass

    held = Held()
    kept = weakref.ref(held)

    def keeps(what: object) -> None:
        charge()

    def run(what: object) -> None:
        passed(lambda: keeps(what))

    run(held)
    del held
    gc.collect()
    assert kept() is None
    assert found()


def test_what_was_said_goes_with_a_pickle() -> None:
    """An error from another process was explained there; it is not another one here."""
    error = passed(charge)
    again = pickle.loads(pickle.dumps(error))

    def fail() -> None:
        raise again

    passed(fail)
    assert notes(again) == notes(error)
    assert found().count == 1


def test_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The error passes as it is, and the fault is said once."""

    def broken(*_: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(explain, "cause_of", broken)
    for _ in range(2):
        assert not notes(passed(charge))
    [said] = caplog.records
    assert "explaining an error" in said.getMessage()


# At the raise.


def test_at_the_raise() -> None:
    """The frame that reads it is the place, also if what is raised there is caught there."""

    def reads() -> None:
        error = RuntimeError("No request here")
        explain.raised(error, complaints, frame_here())
        explain.passing(error, complaints)
        assert len(notes(error)) == 1

    reads()
    one = found()
    assert one.callsite.endswith(" reads")
    assert one.count == 1


def test_a_library_that_is_just_asking() -> None:
    """It catches what is raised: a note, and no finding. If it does not, the place is the program's
    line that has called it."""
    source = """
def asks():
    error = RuntimeError("No request here")
    explain.raised(error, complaints, frame())
    raise error
"""
    asks = library(source, explain=explain, complaints=complaints, frame=frame_here)["asks"]
    with pytest.raises(RuntimeError) as caught:
        asks()
    assert len(notes(caught.value)) == 1
    assert asok_trace.findings() == []

    def page() -> None:
        asks()

    assert len(notes(passed(page, 2))) == 1
    assert found().callsite.endswith(" page")


def test_lambdas_and_nothing_at_all() -> None:
    """What has no name, or is the program itself, is told to wrap nothing."""
    for code in (None, compile("", "script.py", "exec")):
        cause = cause_of("request", code, elsewhere=False)
        assert cause is not None
        assert cause.note == ("No request is served here. Pass what it needs of one as arguments.")
    cause = cause_of("request", (lambda: None).__code__, elsewhere=False)
    assert cause is not None
    assert "asok_trace.wrap(lambda: ...)" in cause.fix


# A variable that is reset elsewhere, and a context that is entered twice.


def resets() -> None:
    token = copy_context().run(VARIABLE.set, 1)
    VARIABLE.reset(token)  # in another context


def test_a_reset_in_another_context() -> None:
    """The note names the variable and the remedy; the finding the line and the request."""
    error = in_context(request(), lambda: passed(resets, 2))
    assert type(error) is ValueError
    [note] = notes(error)
    assert "the ContextVar 'cart' is reset in another context than it was set in" in note
    assert "during request 4bf9 POST /cart" in note
    one = found()
    assert (one.kind, one.slug, one.count) == ("leak", "foreign", 1)
    line = resets.__code__.co_firstlineno + 2
    assert one.callsite.endswith(f"test_explain.py:{line} resets")
    assert (one.request_id, one.path) == ("4bf9", "POST /cart")
    assert "wrap_stream" in one.fix


def test_a_reset_outside_any_request() -> None:
    """What is not known is not said."""
    passed(resets)
    assert (found().request_id, found().path) == (None, None)


def test_a_token_that_was_used_is_another_mistake() -> None:
    """Reset twice in its own context."""

    def twice() -> None:
        token = VARIABLE.set(1)
        VARIABLE.reset(token)
        VARIABLE.reset(token)

    assert not notes(copy_context().run(lambda: passed(twice)))
    assert asok_trace.findings() == []


def test_a_context_that_is_entered_twice() -> None:
    """A note, and no finding: nothing was lost or leaked."""
    context = copy_context()
    error = context.run(lambda: passed(lambda: context.run(charge), 2))
    [note] = notes(error)
    assert "Give each run a copy" in note
    assert asok_trace.findings() == []


def test_many_threads_at_once() -> None:
    """One exception that passes in several threads gets one note at the least, and no fault of
    ours; the next one, too."""
    begin = threading.Barrier(8)

    def run() -> None:
        begin.wait(30)
        for _ in range(50):
            passed(charge)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert explain.explaining.working
    assert 0 < found().count <= 400

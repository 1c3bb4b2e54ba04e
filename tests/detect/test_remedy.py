"""What findings tell to write: Python, and nothing that is done already."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool

import pytest

import asok_trace
from asok_trace.core import findings
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect.cause import cause_of
from asok_trace.detect.origin import SPAWNED
from tests.detect.places import SECONDS, in_thread, the_only

log = logging.getLogger("shop.orders")

WATCH = 'asok_trace.propagate_threads("watch")'
CARRY = 'asok_trace.propagate_threads("carry")'


@pytest.fixture(autouse=True)
def stamped() -> Iterator[None]:
    """A request was served, and every record of the standard library is stamped."""
    findings.serve()
    log.setLevel(logging.DEBUG)
    with asok_trace.stamp_logging():
        yield


class Charge:
    """Something to be called."""

    def __call__(self) -> None:
        log.info("x")


def local() -> Callable[[], None]:
    class Local(Charge):
        pass

    return Local()


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda: log.info("x"), "work"),
        (Charge(), "Charge.__call__"),
    ],
)
def test_the_name_of_a_scope_is_one(work: Callable[[], None], name: str) -> None:
    """A lambda has none."""
    in_thread(work)
    assert f'asok_trace.scope("{name}")' in the_only().fix


def test_the_name_of_a_scope_around_a_lambda_is_that_of_its_function() -> None:
    """Of the one that it stands in."""
    in_thread(lambda: log.info("x"))
    assert 'scope("test_the_name_of_a_scope_around_a_lambda_is_that_of_its_function")' in (
        the_only().fix
    )


def test_what_is_handed_over_is_named_as_one_would_write_it() -> None:
    """Also where its class is of a function."""
    with asok_trace.propagate_threads("watch"), asok_trace.scope("a"):
        in_thread(local())
    assert "asok_trace.wrap(Local(...)) there" in the_only().fix


def test_a_late_lambda() -> None:
    """Is written, not named."""
    with asok_trace.scope("a"):
        work = asok_trace.wrap(lambda: log.info("x"))
    in_thread(work)
    one = the_only()
    assert one.slug == "late"
    assert "asok_trace.wrap(lambda: ..., outlive=True)" in one.fix
    assert "asok_trace.detach(lambda: ...)" in one.fix


@pytest.mark.parametrize("mode", ["off", "watch", "carry"])
def test_a_thread_that_nobody_followed(mode: str) -> None:
    """Where threads are not watched, one that logs may be a request's all the same."""
    with asok_trace.propagate_threads(mode):
        in_thread(Charge())
    assert (WATCH in the_only().fix) is (mode == "off")


def test_the_main_thread_is_nobodys() -> None:
    """No request has started it."""
    Charge()()
    assert threading.current_thread() is threading.main_thread()
    assert WATCH not in the_only().fix


@pytest.mark.parametrize("mode", ["watch", "carry"])
def test_a_pool_that_is_not_carried(mode: str) -> None:
    """Nobody is told to carry what is carried."""
    with asok_trace.propagate_threads(mode), asok_trace.scope("a"), ThreadPool(1) as pool:
        pool.apply_async(Charge()).get(SECONDS)
    one = the_only()
    assert one.slug == "lost"
    assert "asok_trace.wrap(" in one.fix
    assert (CARRY in one.fix) is (mode == "watch")


@pytest.mark.parametrize("mode", ["off", "watch", "carry"])
@pytest.mark.parametrize("served", [False, True])
def test_the_note_of_an_error(mode: str, served: bool) -> None:
    """Tells to watch where nobody does."""
    assert SPAWNED.get() is None
    scope = Scope("4bf9", "http", method="GET", path="/") if served else None
    with asok_trace.propagate_threads(mode):
        ACTIVE.set(scope)
        cause = cause_of("request", Charge.__call__.__code__, elsewhere=True)
    assert cause is not None
    assert (WATCH in cause.note) is (mode == "off")


def test_names_of_threads_and_tasks_cannot_write_lines_of_their_own() -> None:
    """They may be anybody's text."""

    async def consume() -> None:
        log.info("x")

    async def main() -> None:
        await asyncio.create_task(consume(), name="a\n  fix      b")

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="c\n  fix      d")
    thread.start()
    thread.join(SECONDS)
    one = the_only()
    assert one.thread == r"c\n  fix      d"
    assert one.task == r"a\n  fix      b consume()"
    assert str(one).count("\n  fix ") == 1

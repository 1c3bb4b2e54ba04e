"""`propagate_threads("carry")` and gevent: what a request spawns works for it, with and without
monkey patching. Real gevent, in processes of their own.

needs: gevent
"""

import pytest

from tests.programs import run

PATCHED = "from gevent import monkey; monkey.patch_all()"
PLAIN = "import gevent"

START = """
import gc, threading, time, weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import asok_trace
handle = asok_trace.propagate_threads({mode!r})
import gevent, gevent.event
from gevent.pool import Group, Pool
from gevent.threadpool import ThreadPool
from gevent.threadpool import ThreadPoolExecutor as NativePool
from asok_trace.detect.origin import SPAWNED

HELD = ContextVar("held", default=None)

class Held:
    pass

def seen(*_):
    scope = asok_trace.current()
    return scope and scope.request_id

def raw(spawn):
    done = gevent.event.AsyncResult()
    spawn(lambda: done.set(ask()))
    return done.get(timeout=30)

def in_thread(make):
    found = []
    thread = make(lambda: found.append(ask()))
    thread.start()
    thread.join(30)
    return found[0]

ask = seen
natives, jobs, workers = ThreadPool(1), NativePool(1), ThreadPoolExecutor(1)
GREENLETS = {{
    "spawn": lambda: gevent.spawn(ask).get(timeout=30),
    "spawn_later": lambda: gevent.spawn_later(0, ask).get(timeout=30),
    "spawn_raw": lambda: raw(gevent.spawn_raw),
    "Pool.spawn": lambda: Pool(2).spawn(ask).get(timeout=30),
    "Pool.map": lambda: Pool(2).map(lambda _: ask(), [1, 2])[1],
    "Pool.imap": lambda: list(Pool(2).imap(lambda _: ask(), [1, 2]))[1],
    "Pool.imap_unordered": lambda: list(Pool(2).imap_unordered(lambda _: ask(), [1, 2]))[1],
    "Pool.apply": lambda: Pool(2).apply(ask),
    "Pool.apply_async": lambda: Pool(2).apply_async(ask).get(timeout=30),
    "Pool.map_async": lambda: Pool(2).map_async(lambda _: ask(), [1, 2]).get(timeout=30)[1],
    "Group.spawn": lambda: Group().spawn(ask).get(timeout=30),
    "Group.map": lambda: Group().map(lambda _: ask(), [1])[0],
    "ThreadPool.spawn": lambda: natives.spawn(ask).get(timeout=30),
    "ThreadPool.map": lambda: natives.map(lambda _: ask(), [1])[0],
    "ThreadPool.apply": lambda: natives.apply(ask),
    "ThreadPoolExecutor of gevent": lambda: jobs.submit(ask).result(30),
}}
THREADS = {{
    "Thread": lambda: in_thread(lambda then: threading.Thread(target=then)),
    "Timer": lambda: in_thread(lambda then: threading.Timer(0, then)),
    "ThreadPoolExecutor": lambda: workers.submit(ask).result(30),
    "ThreadPoolExecutor.map": lambda: list(workers.map(lambda _: ask(), [1]))[0],
}}
EVERYWHERE = {{**GREENLETS, **THREADS}}

def end():
    jobs.shutdown()
    workers.shutdown()
    natives.kill()
"""

CARRIED = """
for name, spawned in EVERYWHERE.items():
    for unit in "ab":
        with asok_trace.scope(unit) as scope:
            found = spawned()
            assert found == scope.request_id, (name, found)
    assert spawned() is None, name
end()
"""

NOT_CARRIED = """
handle.undo()
with asok_trace.scope("a"):
    for name, spawned in EVERYWHERE.items():
        assert spawned() is None, name
end()
"""

GIVEN_BACK = """
handle.undo()
before = [gevent.spawn, gevent.spawn_later, gevent.spawn_raw, *map(dict, map(vars, CLASSES))]
with asok_trace.propagate_threads():
    assert gevent.spawn is not before[0]
    with asok_trace.propagate_threads():
        pass
now = [gevent.spawn, gevent.spawn_later, gevent.spawn_raw, *map(dict, map(vars, CLASSES))]
for one, other in zip(before, now):
    assert one == other
end()
"""

NOTHING_KEPT = """
def request(spawn):
    with asok_trace.scope("a"):
        HELD.set(Held())
        return weakref.ref(HELD.get()), spawn(lambda: HELD.get() is not None)

for spawn in (gevent.spawn, lambda fn: gevent.spawn_later(0, fn), Pool(1).spawn, Group().spawn):
    held, greenlet = copy_context().run(request, spawn)
    greenlet.join(30)
    assert greenlet.value is True
    gc.collect()
    assert held() is None, (spawn, gc.get_referrers(held()))
end()
"""

TAKING_TURNS = """

def request(name, other):
    with asok_trace.scope(name) as scope:
        for _ in range(20):
            gevent.sleep(0)
            assert seen() == scope.request_id
            jobs = [gevent.spawn(turns) for _ in range(3)]
            gevent.joinall(jobs, timeout=30)
            assert [job.get() for job in jobs] == [scope.request_id] * 3
    return scope.request_id

def turns():
    first = seen()
    gevent.sleep(0)
    assert seen() == first
    return first

both = [gevent.spawn(request, *names) for names in ("ab", "ba")]
assert len({one.get(timeout=60) for one in both}) == 2
assert seen() is None
end()
"""

BOUND = """
with asok_trace.scope("a") as scope:
    wrapped, detached = asok_trace.wrap(seen), asok_trace.detach(seen)
    with asok_trace.scope("b"):
        for spawn in (gevent.spawn, Pool(1).spawn, natives.spawn, jobs.submit):
            result = spawn(wrapped)
            assert (result.get if hasattr(result, "get") else result.result)() == scope.request_id
            result = spawn(detached)
            assert (result.get if hasattr(result, "get") else result.result)() is None
end()
"""

WATCHED = """
ask = lambda: (SPAWNED.get(), seen())
for name, spawned in EVERYWHERE.items():
    for unit in "ab":
        with asok_trace.scope(unit) as scope:
            came_from, request_id = spawned()
            assert request_id is None, name
            assert came_from.request_id == scope.request_id, (name, came_from)
            assert came_from.callsite.code.co_filename == "<string>", (name, came_from)
    assert spawned() == (None, None), name
end()
"""

BROKEN = """
import logging
from asok_trace.propagate import threads
records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("asok_trace").addHandler(handler)
def fail(*args):
    raise LookupError("ours")
threads.wrap = threads.caller = fail
with asok_trace.scope("a"):
    for name, spawned in GREENLETS.items():
        assert spawned() is None, name
[record] = records
assert "carrying the context into a thread failed" in record.getMessage()
end()
"""

MISUSED = """
with asok_trace.scope("a"):
    for spawn in (gevent.spawn_raw, gevent.spawn_later, Pool(1).map, Pool(1).apply):
        try:
            spawn()
        except TypeError:
            continue
        raise AssertionError(spawn)
    failed = gevent.spawn(int, "x")
    failed.join()
    assert isinstance(failed.exception, ValueError)
    assert gevent.spawn(int, "ff", base=16).get() == 255
assert threads_work()
end()
"""


def program(body: str, before: str, mode: str = "carry") -> None:
    run(f"{before}\n{START.format(mode=mode)}\n{body}")


either = pytest.mark.parametrize("before", [PLAIN, PATCHED], ids=["plain", "patched"])


@either
def test_what_a_request_spawns_works_for_it(before: str) -> None:
    """Greenlets, pools, groups, native threads, and threads and executors of the standard library:
    of one request, of another, and of none. gevent's pools are imported after the call."""
    program(CARRIED, before)


@either
def test_not_when_it_is_undone(before: str) -> None:
    """Nothing is carried, and everything still runs."""
    program(NOT_CARRIED, before)


def test_everything_is_given_back() -> None:
    """The module's functions and the classes' methods are the very same; twice is once."""
    classes = "CLASSES = [Group, Pool, ThreadPool, NativePool, threading.Thread]\n"
    program(classes + GIVEN_BACK, PATCHED)


@either
def test_a_finished_greenlet_keeps_nothing(before: str) -> None:
    """However long somebody holds it."""
    program(NOTHING_KEPT, before)


@either
def test_requests_that_take_turns(before: str) -> None:
    """Two greenlets of one thread, each with its own scope: they never see each other's."""
    program(TAKING_TURNS, before)


@either
def test_what_is_bound_is_not_bound_again(before: str) -> None:
    """`wrap` and `detach` have said where the work belongs."""
    program(BOUND, before)


@either
def test_watching(before: str) -> None:
    """Nothing is carried; who spawned it is known inside, and not by the next job."""
    program(WATCHED, before, "watch")


@either
def test_a_fault_of_ours_keeps_no_greenlet_from_running(before: str) -> None:
    """It runs without the context; that is said once."""
    program(BROKEN, before)


@either
def test_misuse_and_exceptions_are_as_before(before: str) -> None:
    """A call without a function is gevent's error, and we stay on."""
    program("threads_work = lambda: EVERYWHERE['spawn']() is None\n" + MISUSED, before)


def test_gevent_is_not_imported_for_it() -> None:
    """A program without gevent stays without it."""
    run(
        "import sys, asok_trace\n"
        "asok_trace.propagate_threads()\n"
        "assert not any(name.partition('.')[0] == 'gevent' for name in sys.modules)"
    )

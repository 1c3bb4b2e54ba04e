"""`holder` finds what keeps an object alive, within its time, on a heap of any size."""

import asyncio
import contextvars
import gc
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from asok_trace.detect.holders import GLOBAL, THREAD, Found, NotFound, holder
from asok_trace.detect.naming import Holder, named

VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")


class Thing:
    """Something that is held."""


class Slotted:
    """Something that holds, without a dict."""

    __slots__ = ("held",)


@pytest.fixture
def shop() -> Iterator[Any]:
    """A module of this test's own."""
    module = ModuleType("shop_of_a_test")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def here() -> int:
    return threading.get_ident()


def name_of(thing: Thing) -> str:
    """What holds ``thing``, which this thread's functions may."""
    found = holder(thing, seconds=10, served_in=here())
    assert isinstance(found, Found), found
    return named(found).what


def test_the_way_is_told_without_keys(shop: Any) -> None:
    """Attributes and containers, but no key and no index: they may be secrets."""
    thing = Thing()
    shop.cache = SimpleNamespace(recent={"a session id": [thing]})
    assert name_of(thing) == "the global shop_of_a_test.cache.recent[...]"


def test_slots_and_closures(shop: Any) -> None:
    """What has no dict has names, too."""
    thing = Thing()
    shop.slotted = slotted = Slotted()
    slotted.held = thing
    assert name_of(thing) == "the global shop_of_a_test.slotted.held"
    del shop.slotted, slotted

    def closed(kept: Thing) -> Any:
        return lambda: kept

    shop.function = closed(thing)
    assert name_of(thing).startswith("the global shop_of_a_test.function.kept")


def test_a_context_of_many_variables(shop: Any) -> None:
    """However deep it keeps its values."""
    thing = Thing()
    shop.context = contextvars.Context()
    shop.context.run(VARIABLE.set, thing)
    for number in range(100):
        shop.context.run(contextvars.ContextVar(f"other-{number}").set, number)
    assert name_of(thing) == "the global shop_of_a_test.context, by a copied context,"


def test_the_loop_waits(shop: Any) -> None:
    """A queue of asyncio's, and a future that nobody fulfils."""
    thing = Thing()

    async def run() -> tuple[str, str]:
        shop.queue = asyncio.Queue()
        shop.queue.put_nowait(thing)
        by_queue = name_of(thing)
        del shop.queue
        shop.future = asyncio.get_running_loop().create_future()
        shop.future.add_done_callback(lambda _: print(thing), context=contextvars.Context())
        return by_queue, name_of(thing)

    by_queue, by_future = asyncio.run(run())
    assert by_queue == "the global shop_of_a_test.queue._queue[...], by a queue,"
    assert by_future.startswith("the global shop_of_a_test.future")
    assert by_future.endswith(", by a done-callback,")


def test_nobody_is_nobody() -> None:
    """Variables of the thread that made it are in order, and there is no more."""
    thing = Thing()
    assert holder(thing, seconds=10, served_in=here()) == NotFound(in_time=True, by_caller=True)


def test_somebody_elses_variable() -> None:
    """Of a thread that did not make it; which holds it no longer than without the search."""
    thing = Thing()
    found = holder(thing, served_in=None)
    assert isinstance(found, Found)
    assert (found.kind, found.thread) == (THREAD, here())
    assert isinstance(named(found), Holder)


def test_searching_holds_nothing() -> None:
    """Neither what is searched for nor what was met, after the search."""
    begun, go_on, let_go, end = (threading.Event() for _ in range(4))
    freed: list[bool] = []

    class Noticed:
        def __del__(self) -> None:
            freed.append(True)

    def work(held: list[Any]) -> None:
        mine = held.pop()
        begun.set()
        go_on.wait()
        del mine
        let_go.set()
        end.wait()

    held: list[Any] = [Noticed()]
    objects = [held[0]]
    thread = threading.Thread(target=work, args=(held,))
    thread.start()
    begun.wait()
    assert isinstance(holder(objects[0]), Found)
    objects.clear()
    go_on.set()
    assert let_go.wait(30)
    assert freed == [True]
    end.set()
    thread.join()


def test_no_code_of_the_program_runs(shop: Any) -> None:
    """Neither its properties, nor its comparisons, nor what a proxy answers for its class."""

    class Touchy:
        def __init__(self, held: Any) -> None:
            object.__setattr__(self, "held", held)

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __repr__(self) -> str:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    thing = Thing()
    shop.touchy = [Touchy(thing)]
    assert name_of(thing) == "the global shop_of_a_test.touchy[...].held"


@pytest.fixture(scope="module")
def million() -> Iterator[list[Any]]:
    """A heap of more than a million objects that the collector knows."""
    made: list[Any] = [{"number": [number]} for number in range(500_000)]
    gc.collect()
    assert len(gc.get_objects()) > 1_000_000
    yield made
    made.clear()
    gc.collect()


def test_a_million_objects(shop: Any, million: list[Any]) -> None:
    """One holder in a million is found, in a dozen looks at the heap."""
    thing = Thing()
    shop.cache = {"recent": [[{"request": thing}]]}
    looks = 0
    original = gc.get_referrers

    def counted(*objects: Any) -> list[Any]:
        nonlocal looks
        looks += 1
        return original(*objects)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "get_referrers", counted)
        found = holder(thing, seconds=60, served_in=here())
    assert isinstance(found, Found)
    assert found.kind == GLOBAL
    assert looks <= 12


def test_time_is_kept(shop: Any, million: list[Any]) -> None:
    """It is given up after one look more than there is time for, and said so."""
    thing = Thing()
    held: Any = thing
    for _ in range(10_000):
        held = [held]
    shop.cache = held
    one = time.thread_time()
    gc.get_referrers(thing)
    one = time.thread_time() - one
    began = time.thread_time()
    found = holder(thing, seconds=0.25, served_in=here())
    took = time.thread_time() - began
    assert found == NotFound(in_time=False, by_caller=True)
    assert took < 0.25 + 8 * one
    shop.cache = None
    while held is not thing:  # not by itself: it is as deep as the stack
        held = held[0]


def test_so_is_the_number_of_objects(shop: Any) -> None:
    """What very many hold is not looked at without end."""
    thing = Thing()
    many = [[thing] for _ in range(5000)]
    shop.many = tuple([one] for one in many)
    found = holder(thing, seconds=60, objects=100, served_in=here())
    assert found == NotFound(in_time=False, by_caller=True)

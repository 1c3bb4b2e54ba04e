"""A request that is kept alive is reported, with who holds it; one that is freed is not.

needs: asok, flask, quart
"""

import asyncio
import contextvars
import gc
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask import request as flask_request
from quart import Quart
from quart import request as quart_request

import asok_trace
from asok_trace.core import findings
from asok_trace.core.callsite import relative
from asok_trace.core.finding import Finding
from asok_trace.detect import retained
from tests.gateway import sites

Does = Callable[[Any], Any]
Ask = Callable[[Does], None]

KEPT: list[Any] = []
QUEUE: "queue.Queue[Any]" = queue.Queue()
DONE: list[Any] = []


class Cart:
    """Somebody's."""

    last: Any = None
    recent: dict[str, Any] = {}  # noqa: RUF012  # the mistake that is made here


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """What a test keeps is let go at its end."""
    findings.clear()
    retained.forget()
    yield
    KEPT.clear()
    DONE.clear()
    Cart.last = None
    Cart.recent.clear()
    while not QUEUE.empty():
        QUEUE.get()
    gc.collect()
    retained.forget()
    findings.clear()


def flask() -> tuple[Any, Ask]:
    """A Flask application whose view does what it is given."""
    app: Any = Flask("shop")
    app.does = None

    @app.post("/cart")
    def cart() -> str:
        app.does(flask_request._get_current_object())
        return "x"

    def ask(does: Does) -> None:
        app.does = does
        app.test_client().post("/cart", buffered=True)

    return app, ask


def quart() -> tuple[Any, Ask]:
    """The same of Quart."""
    app: Any = Quart("shop")
    app.does = None

    @app.post("/cart")
    async def cart() -> str:
        app.does(quart_request._get_current_object())  # type: ignore[attr-defined]
        return "x"

    def ask(does: Does) -> None:
        app.does = does
        asyncio.run(app.test_client().post("/cart"))

    return app, ask


def asok(client: str) -> Callable[[], tuple[Any, Ask]]:
    """The same of Asok, by WSGI or ASGI."""

    def made() -> tuple[Any, Ask]:
        site = sites.Site(Path.cwd())

        def ask(does: Does) -> None:
            site.views["cart"] = lambda request: does(request) or "x"
            sites.CLIENTS[client](site.app, "/cart", method="POST")

        return site.app, ask

    return made


APPS = {"flask": flask, "quart": quart, "asok": asok("wsgi"), "asok asgi": asok("asgi")}


@pytest.fixture(params=APPS)
def shop(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ask]:
    """Asks an instrumented application of each framework, at ``strict``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    app, ask = APPS[request.param]()
    with asok_trace.instrument(app, level="strict"):
        yield ask


def found_after(seconds: float) -> list[Finding]:
    """What is found that many seconds from now."""
    retained.look(time.monotonic() + seconds)
    return [one for one in findings.findings() if one.slug == "retained"]


def line(text: str) -> int:
    """The line of this file that begins with ``text``."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(at for at, one in enumerate(lines, 1) if one.lstrip().startswith(text))


def here(text: str, function: str) -> str:
    return f"{relative(__file__)}:{line(text)} {function}"


def in_list(request: Any) -> None:
    KEPT.append(request)


def in_context(request: Any) -> None:
    KEPT.append(contextvars.copy_context())


def in_class(request: Any) -> None:
    Cart.last = request


def in_class_dict(request: Any) -> None:
    Cart.recent["secret-session-id"] = {"request": request}


def in_queue(request: Any) -> None:
    QUEUE.put(("paid", request))


def in_done_future(request: Any) -> None:
    future: Future[Any] = Future()
    future.set_result(request)
    DONE.append(future)


def in_callback(request: Any) -> None:
    future: Future[Any] = Future()
    future.add_done_callback(lambda _: print(request))
    DONE.append(future)


HELD: dict[Does, tuple[str, str, str, str]] = {
    in_list: ("the global {}.KEPT[...] holds it", "KEPT", "KEPT", "its id"),
    in_context: ("KEPT[...], by a copied context, holds", "KEPT", "KEPT", "outlive=True"),
    in_class: ("the class attribute {}.Cart.last holds it", "last", "Cart.last", "its id"),
    in_class_dict: ("attribute {}.Cart.recent[...] holds", "recent", "Cart.recent", "its id"),
    in_queue: ("the global {}.QUEUE.queue[...], by a queue,", "QUEUE", "QUEUE", "to_carrier"),
    in_done_future: ("DONE[...]._result, by the result of a future,", "DONE", "DONE", "return"),
    in_callback: ("by a done-callback, holds it", "DONE", "DONE", "context=contextvars.Context()"),
}


@pytest.mark.parametrize("does", HELD, ids=lambda does: does.__name__)
def test_what_is_kept_by_something_with_a_name(shop: Ask, does: Does) -> None:
    """The name is told, with the line that gives it its value, and what to write instead."""
    what, assigned, key, fix = HELD[does]
    shop(does)
    [found] = found_after(6)
    assert what.format(__name__) in found.message
    assert found.message.startswith("the request of POST /cart is still alive 6.")
    assert found.callsite == here(f"{assigned}:", key)
    assert found.key == f"retained:{__name__}.{key}"
    assert fix in found.fix
    assert "secret" not in str(found)
    assert found.path == "POST /cart"
    assert found.request_id


def test_one_that_is_freed_is_silent(shop: Ask) -> None:
    """With a response, and with an error."""

    def fails(request: Any) -> None:
        raise LookupError

    seen: list[Any] = []
    shop(lambda request: seen.append(weakref.ref(request)))
    shop(fails)
    assert found_after(6) == []
    assert [one() for one in seen] == [None]


def test_it_has_the_grace_time(shop: Ask) -> None:
    """Before, nothing is looked for, nor reported; what is let go until then never is."""
    shop(in_list)
    assert found_after(4) == []
    KEPT.clear()
    assert found_after(6) == []


def test_one_place_is_reported_once(shop: Ask) -> None:
    """However many requests it keeps; they are counted."""
    for _ in range(3):
        shop(in_list)
    [found] = found_after(6)
    assert found.count == 3


def waits(event: threading.Event) -> None:
    event.wait()


def test_a_thread(shop: Ask) -> None:
    """Its name, and where the program is in there."""
    event = threading.Event()
    threads: list[threading.Thread] = []

    def starts(request: Any) -> None:
        run = contextvars.copy_context().run
        threads.append(threading.Thread(target=run, args=(waits, event), name="charger"))
        threads[0].start()

    shop(starts)
    try:
        [found] = found_after(6)
    finally:
        event.set()
        threads.pop().join()
    assert "the thread charger, which runs waits(), holds it" in found.message
    assert found.callsite == here("event.wait()", "waits")
    assert (found.key, found.thread) == (f"retained:{__name__}.waits", "charger")
    assert "asok_trace.wrap(waits, outlive=True)" in found.fix


def works(request: Any, begun: threading.Event, event: threading.Event) -> None:
    mine = request
    del request
    begun.set()
    event.wait()
    del mine


@pytest.mark.parametrize("mode", ["watch", "carry"])
def test_a_threads_variable(shop: Ask, mode: str) -> None:
    """The collector does not see what a running function holds; and looking keeps nothing."""
    begun, event = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    seen: list[Any] = []

    def starts(request: Any) -> None:
        seen.append(weakref.ref(request))
        threads.append(threading.Thread(target=works, args=(request, begun, event)))
        threads[0].start()
        begun.wait()

    with asok_trace.propagate_threads(mode):
        shop(starts)
        try:
            [found] = found_after(6)
        finally:
            event.set()
            threads.pop().join()
    assert "which runs works(), holds it" in found.message
    gc.collect()
    assert seen[0]() is None


def test_a_chain_of_timers(shop: Ask) -> None:
    """What it is to call, and where that is."""
    timers: list[threading.Timer] = []

    def starts(request: Any) -> None:
        timers.append(threading.Timer(600, contextvars.copy_context().run, (waits, None)))
        timers[0].start()

    shop(starts)
    try:
        [found] = found_after(6)
    finally:
        timers[0].cancel()
        timers.pop().join()
    assert "which is to call waits(), holds it" in found.message
    assert found.callsite == here("def waits", "waits")
    assert found.fix.startswith("threading.Timer(interval, asok_trace.wrap(waits, outlive=True))")


async def feeds() -> None:
    await asyncio.Event().wait()


async def keepalive() -> None:
    await feeds()


TIMERS: list[Any] = []


def quart_in_a_loop(does: Does, then: Callable[[], Any]) -> Any:
    """Serve a request that does this, and do something after it, while the loop still runs."""
    app, _ = quart()
    app.does = does

    async def run() -> Any:
        await app.test_client().post("/cart")
        await asyncio.sleep(0)
        try:
            return then()
        finally:
            for one in TIMERS:
                one.cancel()
            TIMERS.clear()

    with asok_trace.instrument(app, level="strict"):
        return asyncio.run(run())


def test_a_task_that_goes_on() -> None:
    """Its name and function, and where it waits: the context that it began with is the holder."""
    [found] = quart_in_a_loop(
        lambda _: TIMERS.append(asyncio.create_task(keepalive(), name="feed")),
        lambda: found_after(6),
    )
    assert "the task feed keepalive(), which waits, holds it" in found.message
    assert found.callsite == here("await asyncio.Event().wait()", "feeds")
    assert (found.key, found.task) == (f"retained:{__name__}.keepalive", "feed keepalive()")
    assert "context=contextvars.Context()" in found.fix


def test_a_task_that_does_as_it_is_told() -> None:
    """The fix is one."""

    def starts(_: Any) -> None:
        work = asok_trace.wrap(keepalive, outlive=True)
        TIMERS.append(asyncio.create_task(work(), context=contextvars.Context()))

    assert quart_in_a_loop(starts, lambda: found_after(6)) == []


def test_a_call_that_the_loop_is_to_make() -> None:
    """The function is named."""
    [found] = quart_in_a_loop(
        lambda _: TIMERS.append(asyncio.get_running_loop().call_later(600, waits, None)),
        lambda: found_after(6),
    )
    assert "the event loop, which is to call waits(), holds it" in found.message
    assert found.callsite == here("def waits", "waits")


def test_timers_of_libraries_are_silent() -> None:
    """So are cancelled ones, which keep their context until their time has come."""

    def starts(_: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(600, waits, None).cancel()
        TIMERS.append(loop.call_later(600, asyncio.Event().set))

    assert quart_in_a_loop(starts, lambda: found_after(6)) == []


def test_background_work_of_frameworks_is_silent() -> None:
    """While it runs: it was meant to go on."""
    stop: list[asyncio.Event] = []

    async def mails() -> None:
        stop.append(asyncio.Event())
        await stop[0].wait()

    app: Any = Quart("shop")

    @app.post("/cart")
    async def cart() -> str:
        app.add_background_task(mails)
        return "x"

    async def run() -> list[Finding]:
        await app.test_client().post("/cart")
        await asyncio.sleep(0)
        try:
            return found_after(6)
        finally:
            stop[0].set()
            await asyncio.gather(*app.background_tasks)

    with asok_trace.instrument(app, level="strict"):
        assert asyncio.run(run()) == []


def test_a_job_of_asoks_is_silent_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the request's context, by design."""
    from asok import background

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    app, ask = APPS["asok"]()
    begun, event, ended = threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        event.wait()
        ended.set()

    with asok_trace.instrument(app, level="strict"):
        ask(lambda request: background(job) and None)
        assert begun.wait(30)
        try:
            assert found_after(6) == []
        finally:
            event.set()
            assert ended.wait(30)


def test_test_clients_are_silent() -> None:
    """Flask's responses hold their request, and whoever holds these may."""
    app, _ = flask()
    app.does = id
    with asok_trace.instrument(app, level="strict"):
        client = app.test_client()
        KEPT.append(client.post("/cart", buffered=True))
        response = client.post("/cart", buffered=True)
        with client:
            client.post("/cart", buffered=True)
            assert found_after(6) == []
    assert response.request


def test_variables_of_the_caller_are_silent(shop: Ask) -> None:
    """A test may look at the request that it has made; unless somebody else has it, too."""
    mine: list[Any] = []
    shop(mine.append)
    assert len(mine) == 1
    assert found_after(6) == []
    KEPT.append(mine)
    shop(mine.append)
    [found] = found_after(6)
    assert "KEPT[...]" in found.message


def test_nothing_is_watched_at_basic() -> None:
    """Nor is a thread started."""
    app, ask = flask()
    with asok_trace.instrument(app):
        ask(in_list)
    assert not retained._ended
    assert found_after(6) == []


def test_no_more_than_some_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones are skipped and counted, until there is room again."""
    monkeypatch.setattr(retained, "WATCHED", 2)
    monkeypatch.setattr(retained, "skipped", 0)
    app, ask = flask()
    with asok_trace.instrument(app, level="strict"):
        for _ in range(5):
            ask(in_list)
        assert (len(retained._ended), retained.skipped) == (2, 3)
        [found] = found_after(6)
        assert found.count == 2
        assert not retained._ended


def test_the_thread_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there while there is something to look at, and holds no request's context."""
    monkeypatch.setattr(retained, "_TICK", 0.01)
    app, ask = flask()
    told = threading.Event()
    with (
        asok_trace.instrument(app, level="strict", grace=0.0, threads="carry"),
        asok_trace.on_finding(lambda found: told.set()),
    ):
        ask(in_list)
        assert told.wait(30)
        thread = retained._thread
        if thread is not None:
            assert thread.daemon
            thread.join(30)
    assert retained._thread is None
    assert not retained._ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_begins_anew() -> None:
    """A child watches its own requests, with a thread of its own."""
    app, ask = flask()
    with asok_trace.instrument(app, level="strict"):
        ask(in_list)
        assert retained._thread is not None
        child = os.fork()
        if child == 0:
            try:
                anew = retained._thread is None and not retained._ended
                ask(in_list)
                alive = retained._thread is not None and retained._thread.is_alive()
                [found] = found_after(6)
                os._exit(0 if anew and alive and found.count == 1 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_listener_may_ask_for_the_findings() -> None:
    """Without an end to it, or a lock that nobody gives back."""
    app, ask = flask()
    seen: list[int] = []
    with (
        asok_trace.instrument(app, level="strict"),
        asok_trace.on_finding(lambda found: seen.append(len(asok_trace.findings()))),
    ):
        ask(in_list)
        found_after(6)
    assert seen == [1]

"""What Quart's documentation says of contexts and tasks holds with and without `instrument`, and a
line logged there is stamped; where there is no request, it says nothing and nobody complains.
needs: quart"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextvars import Context
from typing import Any

import pytest
import quart

from asok_trace import current
from tests.frameworks.quarts import MERGED, Site
from tests.frameworks.said import Hook, Line, bare, named, say, stamped

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def site(hook: Hook, lines: list[Line]) -> Site:
    return Site(hook)


# --- asking what there is -------------------------------------------------------------------


def test_the_proxies(site: Site, lines: list[Line]) -> None:
    """``request``, ``session``, ``g`` and ``current_app`` are what they were."""

    @site.app.before_request
    async def before() -> None:
        quart.g.seen = "before"
        say("before")

    @site.page
    async def page() -> None:
        assert quart.request.path == "/page"
        assert quart.g.seen == "before"
        assert quart.current_app.name == "site"
        quart.session["name"] = "ada"
        assert quart.session["name"] == "ada"
        assert quart.has_request_context()
        assert quart.has_app_context()
        assert not quart.has_websocket_context()
        say("view")

    site.get("/page")
    stamped(lines, "/page", "before", "view")


def test_the_application_context(site: Site, lines: list[Line]) -> None:
    """An application's context alone is no request."""

    async def run() -> None:
        async with site.app.app_context():
            assert quart.has_app_context()
            assert not quart.has_request_context()
            say("application")
            assert current() is None

    asyncio.run(run())
    bare(lines, "application")


def test_a_sync_view(site: Site, lines: list[Line]) -> None:
    """A view that Quart runs in a thread is of the request."""

    @site.page
    def page() -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert quart.request.path == "/page"
        say("view")

    site.get("/page")
    stamped(lines, "/page", "view")


def test_hooks(site: Site, lines: list[Line]) -> None:
    """Everything that runs for a request is stamped, teardown included."""

    @site.app.before_request
    async def before() -> None:
        say("before")

    @site.app.after_request
    async def after(response: Any) -> Any:
        say("after")
        return response

    @site.app.teardown_request
    async def teardown(_error: object) -> None:
        say("teardown")

    @site.page
    async def page() -> None:
        @quart.after_this_request
        async def later(response: Any) -> Any:
            say("later")
            return response

        say("view")

    site.get("/page")
    stamped(lines, "/page", "before", "view", "later", "after", "teardown")


def test_signals(site: Site, lines: list[Line]) -> None:
    """Receivers of the request's signals are stamped."""

    @site.page
    async def page() -> None:
        say("view")

    async def started(_sender: Any, **_rest: Any) -> None:
        say("started")

    async def finished(_sender: Any, **_rest: Any) -> None:
        say("finished")

    with (
        quart.request_started.connected_to(started, site.app),
        quart.request_finished.connected_to(finished, site.app),
    ):
        site.get("/page")
    stamped(lines, "/page", "started", "view", "finished")


# --- carrying the request -------------------------------------------------------------------


def test_tasks(site: Site, lines: list[Line]) -> None:
    """``create_task``, ``ensure_future``, ``gather`` and ``TaskGroup`` carry the request."""

    async def child(event: str) -> None:
        assert quart.request.path == "/page"
        say(event)

    @site.page
    async def page() -> None:
        say("view")
        await asyncio.create_task(child("create_task"))
        await asyncio.ensure_future(child("ensure_future"))
        await asyncio.gather(child("gather one"), child("gather two"))
        async with asyncio.TaskGroup() as group:
            group.create_task(child("TaskGroup"))
        await asyncio.wait_for(child("wait_for"), 10)

    site.get("/page")
    events = ("create_task", "ensure_future", "gather one", "gather two", "TaskGroup", "wait_for")
    stamped(lines, "/page", "view", *events)


def test_threads(site: Site, lines: list[Line]) -> None:
    """``run_sync`` and ``to_thread`` carry the request; an executor by hand does not."""

    @site.page
    async def page() -> None:
        def work(event: str) -> None:
            say(event)

        await quart.utils.run_sync(work)("run_sync")
        await asyncio.to_thread(work, "to_thread")
        await asyncio.get_running_loop().run_in_executor(None, work, "executor")

    site.get("/page")
    stamped(lines, "/page", "run_sync", "to_thread")
    bare(lines, "executor")


def test_copy_current_request_context(site: Site, lines: list[Line]) -> None:
    """A function that was given a copy has the request in a task that does not."""

    @site.page
    async def page() -> None:
        @quart.copy_current_request_context
        async def work() -> None:
            assert quart.request.path == "/page"
            say("copy")

        say("view")
        await asyncio.get_running_loop().create_task(work(), context=Context())
        say("view again")

    site.get("/page")
    stamped(lines, "/page", "view", "copy", "view again")


def test_copy_current_app_context(site: Site, lines: list[Line]) -> None:
    """A copy of the application's context brings the application, and no request."""

    @site.page
    async def page() -> None:
        @quart.copy_current_app_context
        async def work() -> None:
            assert quart.current_app.name == "site"
            say("copy")

        await asyncio.get_running_loop().create_task(work(), context=Context())

    site.get("/page")
    assert named(lines, "copy")


def test_an_application_context_inside_a_request(
    site: Site, lines: list[Line], instrumented: bool
) -> None:
    """Pushed within a view it does not end the request. Where one context holds both, Quart hides
    the request meanwhile, and only an instrumented application still knows it."""

    @site.page
    async def page() -> None:
        say("before")
        async with site.app.app_context():
            say("nested")
        say("after")

    site.get("/page")
    stamped(lines, "/page", "before", "after")
    if instrumented or not MERGED:
        stamped(lines, "/page", "before", "nested")


# --- streams and background work ------------------------------------------------------------


@pytest.mark.parametrize("with_context", [True, False])
def test_streams(site: Site, lines: list[Line], instrumented: bool, with_context: bool) -> None:
    """Every step of a body with ``stream_with_context`` has the request; of a plain one, Quart has
    put it away, and only an instrumented application still stamps it."""

    @site.page
    async def page() -> Any:
        async def body() -> AsyncIterator[bytes]:
            say("first")
            yield b"a"
            say("second")
            yield b"b"

        say("view")
        return quart.stream_with_context(body)() if with_context else body()

    async def ask() -> bytes:
        reply = await site.app.test_client().get("/page")
        return bytes(await reply.get_data(as_text=False))

    assert asyncio.run(ask()) == b"ab"
    if instrumented or with_context:
        stamped(lines, "/page", "view", "first", "second")
    else:
        bare(lines, "first", "second")


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_background_tasks(site: Site, lines: list[Line], instrumented: bool, kind: str) -> None:
    """A task that Quart runs after the response is of the request that added it. Where one context
    holds both, Quart hides the request, and only an instrumented application still knows it."""
    go = threading.Event()

    async def work() -> None:
        await asyncio.to_thread(go.wait, 10)
        say("late")

    def sync_work() -> None:
        assert go.wait(10)
        say("late")

    @site.page
    async def page() -> None:
        say("view")
        site.app.add_background_task(work if kind == "async" else sync_work)

    async def run() -> None:
        async with site.app.test_app() as app:
            await (await app.test_client().get("/page")).get_data()
            go.set()

    asyncio.run(run())
    if instrumented or not MERGED:
        stamped(lines, "/page", "view", "late")
    else:
        bare(lines, "late")


def test_serving_hooks(site: Site, lines: list[Line]) -> None:
    """Before, while and after serving there is no request: no stamp, no complaint."""

    @site.app.before_serving
    async def before() -> None:
        say("before serving")

    @site.app.while_serving
    async def around() -> AsyncIterator[None]:
        say("while serving")
        yield
        say("served")

    @site.app.after_serving
    async def after() -> None:
        say("after serving")

    @site.page
    async def page() -> None:
        say("view")

    site.get("/page")
    stamped(lines, "/page", "view")
    bare(lines, "before serving", "while serving", "served", "after serving")


def test_while_serving_within_the_view(site: Site, lines: list[Line]) -> None:
    """A task started while serving, not by a request, is of none, whatever runs meanwhile."""
    wanted: list[asyncio.Event] = []

    @site.app.while_serving
    async def ticking() -> AsyncIterator[None]:
        wanted.append(asyncio.Event())
        done = asyncio.Event()

        async def tick() -> None:
            await wanted[0].wait()
            say("tick")
            done.set()

        task = asyncio.create_task(tick())
        yield
        await done.wait()
        await task

    @site.page
    async def page() -> None:
        say("view")
        wanted[0].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    site.get("/page")
    stamped(lines, "/page", "view")
    bare(lines, "tick")

"""Work that outlives its request keeps text of it, and never the request: it is freed with the
response by its reference count alone. needs: asok"""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asok import current_request
from asok.context import request_var

import asok_trace
from asok_trace import wrap
from tests.gateway.sites import Reply, Site
from tests.propagate.lines import SECONDS, Line, ids, say

Call = Callable[..., Reply]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only reference counts free anything: a circle of ours would be seen."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Running:
    """A task that has started in its request, and waits until it is told to end."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.held: Any = None
        self.request: Any = None
        self.thread: threading.Thread | None = None

    def work(self) -> None:
        say("early")
        self.started.set()
        assert self.go_on.wait(SECONDS)
        say("late")

    async def work_async(self) -> None:
        await asyncio.sleep(0)
        self.work()

    def page(self, request: Any, asynchronous: bool) -> str:
        """Start it, and keep what was wrapped."""
        say("page")
        self.request = weakref.ref(request)
        held = wrap(self.work_async if asynchronous else self.work, outlive=True)
        self.held = held
        self.thread = threading.Thread(
            target=(lambda: asyncio.run(held())) if asynchronous else held
        )
        self.thread.start()
        assert self.started.wait(SECONDS)
        return "page"

    def end(self) -> None:
        self.go_on.set()
        assert self.thread is not None
        self.thread.join(SECONDS)


HOW: dict[str, Callable[[Site], object]] = {
    "instrumented": lambda site: asok_trace.instrument(site.app),
    "not isolated": lambda site: asok_trace.instrument(site.app, isolate=False),
    "one line": lambda site: None,
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("tracing", [False, True])
def test_the_request_is_freed_with_its_response(
    site: Site,
    call: Call,
    lines: list[Line],
    request: pytest.FixtureRequest,
    how: str,
    asynchronous: bool,
    tracing: bool,
) -> None:
    """While the task is still running, and the function still held."""
    if tracing:
        request.getfixturevalue("spans")
    HOW[how](site)
    running = Running()
    site.views["page"] = lambda request: running.page(request, asynchronous)
    try:
        call(site.app, "/page")
        assert running.request() is None
    finally:
        running.end()
    assert running.held is not None
    [of_page] = ids(lines, "page")
    assert of_page is not None
    assert ids(lines, "early") == ids(lines, "late") == [of_page]


@pytest.mark.usefixtures("no_collector")
def test_a_plain_wrap_keeps_the_request(site: Site, call: Call, lines: list[Line]) -> None:
    """The test above can tell: the whole context has the request in it as long as it is held."""
    asok_trace.instrument(site.app)
    running = Running()
    paths: list[str] = []

    def page(request: Any) -> str:
        running.request = weakref.ref(request)
        running.held = wrap(lambda: paths.append(current_request.path))
        return "page"

    site.views["page"] = page
    call(site.app, "/page")
    assert running.request() is not None
    running.held()
    assert paths == ["/page"]
    running.held = None
    assert running.request() is None


def test_the_page_itself_keeps_its_request(shop: Site, call: Call) -> None:
    """Only the task's context forgets it."""
    seen: list[Any] = []

    def page(request: Any) -> str:
        wrap(lambda: seen.append(request_var.get()), outlive=True)()
        assert request_var.get() is request
        scope = asok_trace.current()
        assert scope is not None
        seen.append(scope.kind)
        return "page"

    shop.views["page"] = page
    assert call(shop.app, "/page").status == 200
    assert seen == [None, "http"]

"""Flask's streamed bodies and async views, with and without `instrument`: every step of them is of
the request.
needs: flask, asgiref"""

import asyncio
from collections.abc import Iterator
from typing import Any

import flask
import pytest

from tests.frameworks.flasks import Site
from tests.frameworks.said import Hook, Line, bare, say, stamped

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def site(hook: Hook, lines: list[Line]) -> Site:
    return Site(hook)


# --- streams --------------------------------------------------------------------------------


def streamed(site: Site, *, with_context: bool) -> Iterator[str]:
    def body() -> Iterator[str]:
        say("first")
        yield "a"
        say("second")
        yield "b"

    return flask.stream_with_context(body()) if with_context else body()


def test_stream_with_context(site: Site, lines: list[Line]) -> None:
    """Every step of the body has the request, until its end."""

    @site.page
    def page() -> Any:
        say("view")
        return flask.Response(streamed(site, with_context=True))

    assert site.get("/page").data == b"ab"
    stamped(lines, "/page", "view", "first", "second")


def test_a_plain_stream(site: Site, lines: list[Line], instrumented: bool) -> None:
    """Flask has put the request away; instrumented, the body's lines are stamped all the same."""
    site.page(lambda: None)

    @site.page
    def page() -> Any:
        say("view")
        return flask.Response(streamed(site, with_context=False))

    assert site.get("/page").data == b"ab"
    if instrumented:
        stamped(lines, "/page", "view", "first", "second")
    else:
        bare(lines, "first", "second")


# --- asynchronous views ---------------------------------------------------------------------


def test_an_async_view(site: Site, lines: list[Line]) -> None:
    """An async view, and the tasks it starts, are of the request."""

    async def page() -> str:
        assert flask.request.path == "/async"
        say("async view")

        async def child() -> None:
            say("task")

        await asyncio.create_task(child())
        await asyncio.to_thread(say, "thread")
        return "page"

    site.app.add_url_rule("/async", "async", page)
    site.get("/async")
    stamped(lines, "/async", "async view", "task", "thread")


def test_async_hooks(site: Site, lines: list[Line]) -> None:
    """Async functions before and after a request are of it."""

    @site.app.before_request
    async def before() -> None:
        say("before")

    @site.app.after_request
    async def after(response: Any) -> Any:
        say("after")
        return response

    site.page(lambda: None)

    @site.page
    def page() -> None:
        say("view")

    site.get("/page")
    stamped(lines, "/page", "before", "view", "after")

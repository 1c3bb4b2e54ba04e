"""A request is freed when it is over, with `instrument` as without.
needs: flask, quart"""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import flask
import pytest
import quart

from tests.frameworks.said import Hook, Line, say

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def by_counting() -> Iterator[None]:
    """The collector does not run by itself: what goes, goes because nobody holds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def flask_app(hook: Hook, held: list[Any]) -> Any:
    app = flask.Flask("app")

    def note() -> None:
        say("inside")
        held.append(weakref.ref(flask.request._get_current_object()))

    def page() -> str:
        note()
        return "page"

    def stream() -> Any:
        note()

        def body() -> Iterator[str]:
            say("step")
            yield "a"
            say("step")
            yield "b"

        return flask.Response(flask.stream_with_context(body()))

    def fail() -> str:
        note()
        raise LookupError("of the view")

    for view in (page, stream, fail):
        app.add_url_rule(f"/{view.__name__}", view.__name__, view)
    hook(app)
    return app


def ask(app: Any, path: str) -> None:
    """Send one request as a server does, which keeps nothing of it."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
    }
    body = app(environ, lambda status, headers, *exc_info: None)
    b"".join(body)
    if hasattr(body, "close"):
        body.close()


def alive(held: list[Any]) -> list[bool]:
    return [reference() is not None for reference in held]


@pytest.mark.usefixtures("by_counting")
def test_a_flask_page(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """Without the collector, as far as Flask itself lets go: we add no circle."""
    own: list[Any] = []
    ask(flask_app(lambda app: app, own), "/page")
    held: list[Any] = []
    ask(flask_app(hook, held), "/page")
    assert alive(held) == alive(own)


@pytest.mark.parametrize("path", ["/page", "/stream", "/fail"])
def test_flask(hook: Hook, lines: list[Line], path: str) -> None:
    """A page, a stream and a failure are gone after a collection, of which the latter are in need:
    an exception and its frames are Flask's own circle."""
    held: list[Any] = []
    app = flask_app(hook, held)
    app.logger.disabled = True
    ask(app, path)
    gc.collect()
    assert alive(held) == [False]


def test_many_of_flask(hook: Hook, lines: list[Line]) -> None:
    """Nothing gathers from request to request."""
    held: list[Any] = []
    app = flask_app(hook, held)
    for _ in range(20):
        ask(app, "/page")
    gc.collect()
    assert not any(alive(held))


def quart_app(hook: Hook, held: list[Any]) -> quart.Quart:
    app = quart.Quart("app")

    @app.get("/page")
    async def page() -> str:
        say("inside")
        held.append(weakref.ref(quart.request._get_current_object()))
        return "page"

    @app.websocket("/socket")
    async def socket() -> None:
        held.append(weakref.ref(quart.websocket._get_current_object()))
        while True:
            say(f"got {await quart.websocket.receive()}")
            await quart.websocket.send("answer")

    hook(app)
    return app


def test_quart(hook: Hook, lines: list[Line]) -> None:
    """A page and a WebSocket with its messages are gone after a collection."""
    held: list[Any] = []
    app = quart_app(hook, held)

    async def run() -> None:
        client = app.test_client()
        await (await client.get("/page")).get_data()
        async with client.websocket("/socket") as socket:
            for _ in range(3):
                await socket.send("x")
                await socket.receive()

    asyncio.run(run())
    gc.collect()
    assert alive(held) == [False, False]

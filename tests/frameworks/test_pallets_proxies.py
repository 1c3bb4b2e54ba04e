"""Behind a proxy, the address is the one that the application's own proxy middleware believes in,
whichever was put on first: that or `instrument`.
needs: flask, quart, hypercorn"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import flask
import pytest
import quart
from hypercorn.middleware import ProxyFixMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

import asok_trace
from tests.frameworks.said import Hook, Line, canonical, named, say

pytestmark = pytest.mark.usefixtures("sound")

PROXY, CLIENT, LIAR = "10.0.0.1", "203.0.113.9", "198.51.100.66"


@pytest.fixture
def instrument() -> Iterator[Hook]:
    """`asok_trace.instrument` for the length of the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(asok_trace.instrument(app))


def flask_reply(instrument: Hook, order: str, forwarded: str) -> str:
    app = flask.Flask("app")

    @app.get("/")
    def index() -> str:
        say("inside")
        return str(flask.request.remote_addr)

    def fix() -> None:
        app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]

    steps = {
        "none": (),
        "before": (fix, asok_trace.instrument),
        "after": (asok_trace.instrument, fix),
    }
    for step in steps[order] or (asok_trace.instrument,):
        step() if step is fix else step(app)
    headers = {"X-Forwarded-For": forwarded}
    return (
        app.test_client()
        .get("/", buffered=True, headers=headers, environ_base={"REMOTE_ADDR": PROXY})
        .text
    )


@pytest.mark.parametrize("order", ["before", "after"])
def test_proxy_fix(instrument: Hook, lines: list[Line], order: str) -> None:
    """The last address that was forwarded, on every line; the one before it is a claim."""
    assert flask_reply(instrument, order, f"{LIAR}, {CLIENT}") == CLIENT
    assert named(lines, "inside")["ip"] == canonical(lines)["ip"] == CLIENT


def test_forwarded_without_a_middleware(instrument: Hook, lines: list[Line]) -> None:
    """Nobody has said that there is a proxy: the header is a claim."""
    assert flask_reply(instrument, "none", CLIENT) == PROXY
    assert named(lines, "inside")["ip"] == canonical(lines)["ip"] == PROXY


@pytest.mark.parametrize("order", ["before", "after"])
def test_an_address_that_is_none(instrument: Hook, lines: list[Line], order: str) -> None:
    """What is no address never becomes one on a line."""
    flask_reply(instrument, order, "evil ip=1")
    assert named(lines, "inside").get("ip") in (None, PROXY)


class Quarts:
    """A Quart application behind hypercorn's middleware, put on before `instrument`, after it, or
    around the application."""

    def __init__(self, instrument: Hook, order: str) -> None:
        self.app = quart.Quart("app")

        @self.app.get("/")
        async def index() -> str:
            say("inside")
            return "page"

        @self.app.websocket("/socket")
        async def socket() -> None:
            say("handshake")
            await quart.websocket.receive()
            say("message")
            await quart.websocket.send("answer")

        def fix() -> None:
            self.app.asgi_app = ProxyFixMiddleware(  # type: ignore[method-assign,assignment]
                self.app.asgi_app, mode="legacy", trusted_hops=1
            )

        if order == "before":
            fix()
        instrument(self.app)
        if order == "after":
            fix()

    async def get(self, forwarded: str) -> None:
        reply = await self.app.test_client().get(
            "/", headers={"X-Forwarded-For": forwarded}, scope_base={"client": (PROXY, 1)}
        )
        await reply.get_data()

    async def talk(self, forwarded: str) -> None:
        async with self.app.test_client().websocket(
            "/socket", headers={"X-Forwarded-For": forwarded}
        ) as socket:
            await socket.send("x")
            assert await socket.receive() == "answer"


@pytest.mark.parametrize("order", ["before", "after"])
def test_hypercorns_middleware(instrument: Hook, lines: list[Line], order: str) -> None:
    """It deep-copies the ASGI scope: the request is still one, with the address it believes in."""
    asyncio.run(Quarts(instrument, order).get(f"{LIAR}, {CLIENT}"))
    inside, end = named(lines, "inside"), canonical(lines)
    assert inside["request_id"] == end["request_id"]
    assert inside["ip"] == end["ip"] == CLIENT


@pytest.mark.parametrize("order", ["before", "after"])
def test_hypercorn_and_a_websocket(instrument: Hook, lines: list[Line], order: str) -> None:
    """The same for a WebSocket, and its messages are of the connection that was answered."""
    asyncio.run(Quarts(instrument, order).talk(CLIENT))
    handshake, message, end = named(lines, "handshake"), named(lines, "message"), canonical(lines)
    assert handshake["request_id"] == end["request_id"] == message["connection_id"]
    assert handshake["ip"] == message["ip"] == end["ip"] == CLIENT


def test_quart_without_a_middleware(instrument: Hook, lines: list[Line]) -> None:
    """Nobody has said that there is a proxy: the header is a claim."""
    asyncio.run(Quarts(instrument, "none").get(CLIENT))
    assert named(lines, "inside")["ip"] == canonical(lines)["ip"] == PROXY

"""WebSockets of Quart, Starlette and any ASGI application on real servers, with a real client: what
the client sees of a handshake, and what the lines say of it and of the messages.
needs: quart, starlette, uvicorn, hypercorn, websockets"""

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import quart
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import asok_trace

Line = dict[str, Any]

ID = "X-Request-ID"
DEADLINE = 10


@pytest.fixture(autouse=True)
def sound(faults: list[logging.LogRecord]) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in faults] == []


class Lines(list[Line]):
    """The lines so far, from the server's thread; `wait` for one that comes after the client has
    gone."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def add(self, _logger: Any, _name: str, event: Any) -> Any:
        with self.changed:
            self.append(dict(event))
            self.changed.notify_all()
        raise structlog.DropEvent

    def wait(self, event: str) -> Line:
        """The only line of this event."""
        with self.changed:
            assert self.changed.wait_for(lambda: self._of(event), DEADLINE), event
            [found] = self._of(event)
            return found

    def _of(self, event: str) -> list[Line]:
        return [line for line in self if line["event"] == event]


@pytest.fixture
def lines() -> Lines:
    """Every structlog line from now on, as `inject` has stamped it."""
    found = Lines()
    processors = [structlog.processors.add_log_level, asok_trace.inject, found.add]
    structlog.configure(processors=processors, cache_logger_on_first_use=False)
    return found


def say(event: str) -> None:
    structlog.get_logger().info(event)


# --- applications ---------------------------------------------------------------------------


def quart_application() -> Any:
    app = quart.Quart("chat")
    app.logger.disabled = True

    @app.before_websocket
    async def guard() -> Any:
        return ("no", 401) if quart.websocket.path == "/guarded" else None

    @app.websocket("/chat")
    async def chat() -> None:
        say("handshake")
        try:
            while True:
                text = await quart.websocket.receive()
                say(f"got {text}")
                if text == "fail":
                    raise LookupError("of a message")
                await quart.websocket.send("answer")
        finally:
            say("left")

    @app.websocket("/fails")
    async def fails() -> None:
        raise LookupError("before accepting")

    @app.websocket("/guarded")
    async def guarded() -> None: ...

    return app


async def _chat(peer: WebSocket) -> None:
    say("handshake")
    await peer.accept()
    try:
        while True:
            text = await peer.receive_text()
            say(f"got {text}")
            if text == "fail":
                raise LookupError("of a message")
            await peer.send_text("answer")
    except WebSocketDisconnect:
        pass
    finally:
        say("left")


async def _fails(peer: WebSocket) -> None:
    raise LookupError("before accepting")


async def _guarded(peer: WebSocket) -> None:
    await peer.send_denial_response(PlainTextResponse("no", 401))


def starlette_application() -> Any:
    sockets = {"/chat": _chat, "/fails": _fails, "/guarded": _guarded}

    async def missing(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("nothing here", 404)

    return Starlette(
        routes=[WebSocketRoute(path, handler) for path, handler in sockets.items()],
        exception_handlers={404: missing},
    )


# --- servers --------------------------------------------------------------------------------


def _uvicorn(app: Any, started: Callable[[int], None], stop: asyncio.Event) -> Awaitable[None]:
    config = uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio", lifespan="on")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.005)
        started(server.servers[0].sockets[0].getsockname()[1])
        await stop.wait()
        server.should_exit = True
        await serving

    return serve()


def _hypercorn(app: Any, started: Callable[[int], None], stop: asyncio.Event) -> Awaitable[None]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    port = listening.getsockname()[1]
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.errorlog = None

    async def serve() -> None:
        started(port)
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")

    return serve()


SERVERS = {"uvicorn": _uvicorn, "hypercorn": _hypercorn}
APPLICATIONS = {"quart": quart_application, "starlette": starlette_application}


@contextmanager
def serving(server: str, app: Any) -> Iterator[int]:
    """Serve ``app`` on a free port of this machine; yields the port."""
    ready = threading.Event()
    found: list[Any] = []

    def started(port: int) -> None:
        found.append(port)
        ready.set()

    async def run() -> None:
        stop = asyncio.Event()
        found.extend((asyncio.get_running_loop(), stop))
        await SERVERS[server](app, started, stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(DEADLINE)
        loop, stop, port = found
        yield port
    finally:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=APPLICATIONS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def port(server: str, framework: str, lines: Lines) -> Iterator[int]:
    """A server of the application; the test runs with every one of both."""
    with (
        asok_trace.instrument(APPLICATIONS[framework]()) as handle,
        serving(server, handle.app) as found,
    ):
        yield found


def opened(port: int, path: str = "/chat", **headers: str) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{port}{path}", additional_headers=headers, open_timeout=DEADLINE
    )


# --- the tests ------------------------------------------------------------------------------


def test_a_conversation(port: int, lines: Lines) -> None:
    """Each message is a scope within the connection; when the client goes, one line sums it up."""
    with opened(port) as client:
        assert client.response is not None
        [connection] = client.response.headers.get_all(ID)
        for text in ("one", "two"):
            client.send(text)
            assert client.recv(DEADLINE) == "answer"
    end = lines.wait("request")
    assert lines.wait("handshake")["request_id"] == end["request_id"] == connection
    assert lines.wait("left")["request_id"] == connection
    assert (end["method"], end["path"], end["status"]) == ("GET", "/chat", 101)
    assert (end["ip"], end["level"]) == ("127.0.0.1", "info")
    assert end["duration_ms"] > 0
    one, two = lines.wait("got one"), lines.wait("got two")
    assert len({connection, one["request_id"], two["request_id"]}) == 3
    for line in (one, two):
        assert line["connection_id"] == connection
        assert (line["path"], line["ip"]) == ("/chat", "127.0.0.1")


def test_an_id_that_came_in(port: int, lines: Lines) -> None:
    """The handshake's request id is accepted, and comes back."""
    with opened(port, **{ID: "from-outside"}) as client:
        assert client.response is not None
        assert client.response.headers[ID] == "from-outside"
    assert lines.wait("request")["request_id"] == "from-outside"


def test_two_clients(port: int, lines: Lines) -> None:
    """Connections at the same time do not mix."""
    with opened(port, **{ID: "a"}) as first, opened(port, **{ID: "b"}) as second:
        for client, text in ((first, "one"), (second, "two"), (first, "three")):
            client.send(text)
            assert client.recv(DEADLINE) == "answer"
        found = {
            text: lines.wait(f"got {text}")["connection_id"] for text in ("one", "two", "three")
        }
    assert found == {"one": "a", "two": "b", "three": "a"}


def refused(port: int, path: str) -> Any:
    with pytest.raises(InvalidStatus) as caught:
        opened(port, path)
    return caught.value.response


def test_a_refusal(port: int, lines: Lines) -> None:
    """401 with our header, and a line of it."""
    response = refused(port, "/guarded")
    line = lines.wait("request")
    assert response.status_code == line["status"] == 401
    assert response.headers.get_all(ID) == [line["request_id"]]
    assert line["level"] == "info"


def test_an_unknown_path(port: int, lines: Lines, framework: str) -> None:
    """404 of Quart with our header; Starlette closes, which a server answers with 403 itself."""
    response = refused(port, "/nowhere")
    line = lines.wait("request")
    assert response.status_code == line["status"]
    if framework == "quart":
        assert response.status_code == 404
        assert response.headers.get_all(ID) == [line["request_id"]]


def test_a_handler_that_fails_at_once(port: int, lines: Lines) -> None:
    """500 to the client, the exception on the line."""
    response = refused(port, "/fails")
    line = lines.wait("request")
    assert response.status_code == line["status"] == 500
    assert (line["error"], line["level"]) == ("LookupError", "error")


def test_a_message_that_fails(port: int, lines: Lines) -> None:
    """The connection is closed, and its line has the exception as an error."""
    with opened(port) as client:
        client.send("fail")
        with pytest.raises(ConnectionClosed):
            client.recv(DEADLINE)
    line = lines.wait("request")
    assert (line["status"], line["error"], line["level"]) == (101, "LookupError", "error")


def test_a_client_that_vanishes(port: int, lines: Lines) -> None:
    """Without a goodbye, the connection ends all the same, once, and is no failure."""
    with opened(port) as client:
        client.send("one")
        assert client.recv(DEADLINE) == "answer"
        client.socket.shutdown(socket.SHUT_RDWR)
        line = lines.wait("request")
    assert (line["status"], line["level"]) == (101, "info")
    assert lines.wait("left")["request_id"] == line["request_id"]

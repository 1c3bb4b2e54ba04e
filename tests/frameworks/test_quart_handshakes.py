"""The two ends of a Quart WebSocket: what its handshake is answered, and the one line that sums the
connection up.
needs: quart"""

from typing import Any

import pytest
import quart
from quart import websocket
from quart.testing.connections import WebsocketResponseError

import asok_trace
from asok_trace.core import names
from tests.frameworks.quarts import Site, echo
from tests.frameworks.said import Hook, Line, canonical, ids, named, say, stamped

pytestmark = pytest.mark.usefixtures("sound")

ID = "X-Request-ID"


@pytest.fixture
def site(hook: Hook, lines: list[Line]) -> Site:
    return Site(hook)


@pytest.fixture
def traced(lines: list[Line]) -> Any:
    """A site that is instrumented."""
    made = Site(lambda app: app)
    with asok_trace.instrument(made.app):
        yield made


# --- the handshake --------------------------------------------------------------------------


def refused(site: Site, path: str, **request: Any) -> Any:
    """The response to a handshake that is not accepted."""
    with pytest.raises(WebsocketResponseError) as caught:
        site.talk(path, "x", **request)
    return caught.value.response


def test_a_handshake_that_is_refused(site: Site, lines: list[Line], instrumented: bool) -> None:
    """``abort(401)`` is answered with our header and one canonical line."""

    @site.socket
    async def socket() -> None:
        say("refusing")
        quart.abort(401)

    response = refused(site, "/socket")
    assert response.status_code == 401
    assert (ID in response.headers) is instrumented
    assert named(lines, "refusing")["path"] == "/socket"
    if instrumented:
        line = canonical(lines)
        assert (line["status"], line["level"]) == (401, "info")
        assert line["request_id"] == response.headers[ID]
        assert "error" not in line


def test_before_websocket(site: Site, lines: list[Line], instrumented: bool) -> None:
    """A function before the WebSocket that answers itself has the route and the id."""

    @site.app.before_websocket
    async def before() -> Any:
        say("before")
        return "no", 401

    site.socket(echo)
    assert refused(site, "/echo").status_code == 401
    assert named(lines, "before")["path"] == "/echo"
    if instrumented:
        assert canonical(lines)["status"] == 401
        assert canonical(lines)["route"] == "/echo"


def test_no_such_websocket(site: Site, lines: list[Line], instrumented: bool) -> None:
    """404, without a route."""
    response = refused(site, "/nowhere")
    assert response.status_code == 404
    if instrumented:
        assert response.headers[ID] == canonical(lines)["request_id"]
        assert canonical(lines)["status"] == 404
        assert "route" not in canonical(lines)


def test_a_handler_that_fails_before_accepting(
    site: Site, lines: list[Line], instrumented: bool
) -> None:
    """500 to the client, the exception on the line."""
    site.app.testing = False

    @site.socket
    async def socket() -> None:
        raise LookupError("before accepting")

    assert refused(site, "/socket").status_code == 500
    if instrumented:
        line = canonical(lines)
        assert (line["status"], line["error"], line["level"]) == (500, "LookupError", "error")


def test_an_id_that_came_in(traced: Site, lines: list[Line]) -> None:
    """The handshake's request id is the connection's."""
    traced.socket(echo)
    traced.talk("/echo", "x", headers={ID: "from-outside"})
    assert named(lines, "handshake")["request_id"] == "from-outside"
    assert named(lines, "got x")[names.CONNECTION_ID] == "from-outside"


# --- the end --------------------------------------------------------------------------------


def test_the_canonical_line(traced: Site, lines: list[Line]) -> None:
    """Once for the connection: status 101, method, route and how long it lasted."""
    traced.socket(echo)
    traced.talk("/echo", "one", "two")
    line = canonical(lines)
    assert (line["method"], line["path"], line["route"]) == ("GET", "/echo", "/echo")
    assert (line["status"], line["level"]) == (101, "info")
    assert line["duration_ms"] > 0
    assert "error" not in line


@pytest.mark.parametrize("setting", ["TESTING", "PROPAGATE_EXCEPTIONS", "none"])
def test_a_handler_that_fails(traced: Site, lines: list[Line], setting: str) -> None:
    """After the handshake no page can tell: the connection's line has the exception, as an error,
    whether Quart shows it, raises it or logs it."""
    traced.app.testing = False
    if setting != "none":
        traced.app.config[setting] = True

    @traced.socket
    async def socket() -> None:
        await websocket.receive()
        traced.failing.set()
        raise LookupError("of a message")

    traced.fail("/socket")
    line = canonical(lines)
    assert (line["status"], line["error"], line["level"]) == (101, "LookupError", "error")


def test_leaving(traced: Site, lines: list[Line]) -> None:
    """A client that goes is no failure; what the handler does in its ``finally`` is stamped."""

    @traced.socket
    async def socket() -> None:
        try:
            while True:
                say(f"got {await websocket.receive()}")
                await websocket.send("answer")
        finally:
            say("left")

    traced.talk("/socket", "x")
    assert named(lines, "left")["request_id"] == canonical(lines)["request_id"]
    assert canonical(lines)["level"] == "info"


def test_undo(traced: Site, lines: list[Line]) -> None:
    """After ``undo`` a WebSocket is as it was: one id for all, no line of ours."""
    traced.socket(echo)
    handle = asok_trace.instrument(traced.app)
    handle.undo()
    traced.talk("/echo", "x")
    assert [line for line in lines if line["event"] == "request"] == []
    assert len(set(ids(lines, "handshake", "got x"))) == 1
    original = quart.wrappers.websocket.Websocket.receive
    assert original.__module__ == "quart.wrappers.websocket"


def test_undo_while_it_is_open(traced: Site, lines: list[Line]) -> None:
    """What is open ends normally, and the messages after it belong to the connection."""
    handle = asok_trace.instrument(traced.app)

    @traced.socket
    async def socket() -> None:
        await websocket.receive()
        handle.undo()
        await websocket.send("answer")
        await websocket.receive()
        say("after")
        await websocket.send("answer")

    assert traced.talk("/socket", "1", "2") == ["answer", "answer"]
    assert named(lines, "after")["path"] == "/socket"
    assert canonical(lines)["status"] == 101


def test_a_websocket_within_a_request(site: Site, lines: list[Line], instrumented: bool) -> None:
    """A view that talks to a WebSocket of its own application goes on as it was."""
    site.socket(echo)

    @site.page
    async def page() -> None:
        say("before")
        async with site.app.test_client().websocket("/echo") as client:
            await client.send("x")
            assert await client.receive() == "answer"
        say("after")

    site.get("/page")
    stamped(lines, "/page", "before", "after")
    if instrumented:
        assert named(lines, "got x")["path"] == "/echo"
        found = {line["path"]: line for line in lines if line["event"] == "request"}
        assert found["/echo"]["route"] == "/echo"
        assert found["/echo"]["status"] == 101

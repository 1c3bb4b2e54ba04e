"""A Quart WebSocket: the connection from its handshake to its end, and each message in it, with
ids of their own; what the handler does and how it ends is as without us.
needs: quart, opentelemetry"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest
import quart
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from quart import websocket

import asok_trace
from asok_trace.core import names
from tests.frameworks.quarts import Site, echo
from tests.frameworks.said import Hook, Line, bare, canonical, ids, named, say, stamped

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


# --- messages -------------------------------------------------------------------------------


def test_it_works_as_before(site: Site, lines: list[Line]) -> None:
    """Messages and answers pass, and every line says where it was."""
    site.socket(echo)
    assert site.talk("/echo", "one", "two") == ["answer", "answer"]
    for event in ("handshake", "got one", "got two"):
        assert named(lines, event)["path"] == "/echo"


def test_each_message_is_a_scope(traced: Site, lines: list[Line]) -> None:
    """An id of its own for each, the connection's beside it, and path and address of both."""
    traced.socket(echo)
    traced.talk("/echo", "one", "two", scope_base={"client": ("192.0.2.9", 1)})
    connection, one, two = ids(lines, "handshake", "got one", "got two")
    assert len({connection, one, two}) == 3
    for event in ("got one", "got two"):
        line = named(lines, event)
        assert line[names.CONNECTION_ID] == connection
        assert (line["path"], line["ip"]) == ("/echo", named(lines, "handshake")["ip"])
    assert names.CONNECTION_ID not in named(lines, "handshake")


def test_the_scope_of_a_message(traced: Site) -> None:
    """``current()`` says that it is a message, with the route of its connection."""
    found = []

    async def handler(room: str) -> None:
        found.append(asok_trace.current())
        await websocket.receive()
        found.append(asok_trace.current())
        await websocket.send("answer")
        await websocket.receive()

    traced.app.add_websocket("/rooms/<room>", "room", handler)
    traced.talk("/rooms/5", "x")
    connection, message = found
    assert (connection.kind, message.kind) == ("websocket", "message")
    assert connection.route == message.route == "/rooms/<room>"
    assert not connection.open
    assert not message.open


def test_a_message_ends_when_the_next_is_asked_for(traced: Site) -> None:
    """Waiting belongs to the connection, not to the message before."""
    states = []

    @traced.socket
    async def socket() -> None:
        await websocket.receive()
        message = asok_trace.current()
        assert message is not None
        await websocket.send("answer")
        states.append(message.open)
        try:
            await websocket.receive()
        finally:
            states.append(message.open)

    traced.talk("/socket", "x")
    assert states == [True, False]


def test_bound_facts(traced: Site, lines: list[Line]) -> None:
    """What is bound at the handshake is on every message; what a message binds, on itself."""

    @traced.socket
    async def socket() -> None:
        asok_trace.bind(tenant="acme")
        await websocket.receive()
        asok_trace.bind(room="a")
        say("one")
        await websocket.send("answer")
        await websocket.receive()
        say("two")
        await websocket.send("answer")

    traced.talk("/socket", "1", "2")
    assert [named(lines, event)["tenant"] for event in ("one", "two")] == ["acme", "acme"]
    assert named(lines, "one")["room"] == "a"
    assert "room" not in named(lines, "two")


def test_json(site: Site, lines: list[Line], instrumented: bool) -> None:
    """``receive_json`` and ``send_json`` are messages as well."""

    @site.socket
    async def socket() -> None:
        say("handshake")
        say(f"got {(await websocket.receive_json())['n']}")
        await websocket.send_json({"n": 2})

    assert site.talk("/socket", '{"n": 1}') in (['{"n":2}'], ['{"n": 2}'])
    same = named(lines, "got 1")["request_id"] == named(lines, "handshake")["request_id"]
    assert same is not instrumented


def test_one_message_once(traced: Site, lines: list[Line], spans: Callable[[], Any]) -> None:
    """The task in which Quart asks the server does not count them a second time."""
    traced.socket(echo)
    traced.talk("/echo", "one", "two")
    messages = [span for span in spans() if span.kind is SpanKind.CONSUMER]
    assert len(messages) == 2


# --- several tasks --------------------------------------------------------------------------


def test_two_tasks(traced: Site, lines: list[Line]) -> None:
    """One task receives, another sends: each goes on with what it is at."""

    @traced.socket
    async def socket() -> None:
        got = asyncio.Event()

        async def sending() -> None:
            await got.wait()
            say("sending")
            await websocket.send("answer")

        async def receiving() -> None:
            while True:
                say(f"got {await websocket.receive()}")
                got.set()

        await asyncio.gather(sending(), receiving())

    traced.talk("/socket", "x")
    assert named(lines, "sending")["request_id"] == canonical(lines)["request_id"]
    assert named(lines, "got x")[names.CONNECTION_ID] == canonical(lines)["request_id"]


def test_two_tasks_that_receive(traced: Site, lines: list[Line]) -> None:
    """A message in one task does not end the one that another task is still at."""
    still_open = []

    @traced.socket
    async def socket() -> None:
        second = asyncio.Event()

        async def slow() -> None:
            say(f"slow {await websocket.receive()}")
            message = asok_trace.current()
            assert message is not None
            await websocket.send("answer")
            await second.wait()
            still_open.append(message.open)
            say("slow again")

        async def fast() -> None:
            say(f"fast {await websocket.receive()}")
            second.set()
            await first
            await websocket.send("answer")

        first = asyncio.create_task(slow())
        await asyncio.sleep(0)
        await fast()

    traced.talk("/socket", "1", "2")
    slow, again, fast = ids(lines, "slow 1", "slow again", "fast 2")
    assert slow == again != fast
    assert still_open == [True]


def test_copy_current_websocket_context(site: Site, lines: list[Line]) -> None:
    """A function that was given a copy has the WebSocket in a task that does not."""

    @site.socket
    async def socket() -> None:
        @quart.copy_current_websocket_context
        async def work() -> None:
            assert websocket.path == "/socket"
            say("copy")

        assert quart.has_websocket_context()
        assert not quart.has_request_context()
        say("handshake")
        await asyncio.get_running_loop().create_task(work(), context=Context())
        await websocket.receive()
        await websocket.send("answer")

    site.talk("/socket", "x")
    stamped(lines, "/socket", "handshake", "copy")


# --- spans ----------------------------------------------------------------------------------


def test_spans(traced: Site, lines: list[Line], spans: Callable[[], list[ReadableSpan]]) -> None:
    """A server span for the connection, a consumer span for each message, and what the handler
    starts is a child of its message."""
    tracer = trace.get_tracer("test")

    @traced.socket
    async def socket() -> None:
        while True:
            say(f"got {await websocket.receive()}")
            with tracer.start_as_current_span("work"):
                await websocket.send("answer")

    traced.talk("/socket", "one")
    found = {span.name: span for span in spans()}
    server, message = found["GET /socket"], found["websocket message /socket"]
    assert (server.kind, message.kind) == (SpanKind.SERVER, SpanKind.CONSUMER)
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 101
    assert found["work"].parent is not None
    assert found["work"].parent.span_id == message.context.span_id
    assert trace.format_span_id(message.context.span_id) == named(lines, "got one")["span_id"]


def test_the_span_of_a_message_that_fails(
    traced: Site, lines: list[Line], spans: Callable[[], list[ReadableSpan]]
) -> None:
    """Message and connection both say what was raised."""
    traced.app.testing = False

    @traced.socket
    async def socket() -> None:
        await websocket.receive()
        traced.failing.set()
        raise LookupError("of a message")

    traced.fail("/socket")
    found = {span.name: span for span in spans()}
    for name in ("GET /socket", "websocket message /socket"):
        attributes = found[name].attributes
        assert attributes is not None
        assert attributes["error.type"] == "LookupError"


def test_outside(site: Site, lines: list[Line]) -> None:
    """Outside any connection a line says nothing."""
    site.socket(echo)
    site.talk("/echo", "x")
    say("outside")
    bare(lines, "outside")

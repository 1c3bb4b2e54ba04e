"""The messages of any ASGI application's WebSocket: the handler receives them in its own task, and
each is a scope until it asks for the next one.
needs: starlette"""

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import asok_trace
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.gateway.dialogue import Dialogue

Line = dict[str, Any]
Message = dict[str, Any]
Application = Callable[..., Awaitable[None]]
Spans = Callable[[], tuple[ReadableSpan, ...]]

CLIENT = "203.0.113.7"


@pytest.fixture(autouse=True)
def sound(faults: list[logging.LogRecord]) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in faults] == []


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Spans are recorded from now on; call it for those that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter.get_finished_spans


def say(event: str) -> None:
    structlog.get_logger().info(event)


def named(lines: list[Line], event: str) -> Line:
    [found] = [line for line in lines if line["event"] == event]
    return found


def talk(
    application: Application, *messages: str, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> list[Message]:
    """Open a WebSocket at ``/chat``, send ``messages``, leave; returns what the client got."""
    app = asok_trace.instrument(application, interface="asgi").app
    waiting: list[Message] = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": text, "bytes": None} for text in messages),
        {"type": "websocket.disconnect", "code": 1000},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0)
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": (CLIENT, 50000),
        "server": ("localhost", 80),
        "subprotocols": [],
    }
    asyncio.run(app(scope, receive, send))
    return sent


async def raw(scope: Message, receive: Any, send: Any) -> None:
    """A handler as the specification has it."""
    assert (await receive())["type"] == "websocket.connect"
    say("handshake")
    await send({"type": "websocket.accept", "headers": [(b"x-own", b"1")]})
    while (message := await receive())["type"] == "websocket.receive":
        say(f"got {message['text']}")
        with trace.get_tracer("test").start_as_current_span("work"):
            await send({"type": "websocket.send", "text": "answer"})
    say("left")


async def _starlette(socket: WebSocket) -> None:
    say("handshake")
    await socket.accept(headers=[(b"x-own", b"1")])
    try:
        while True:
            say(f"got {await socket.receive_text()}")
            with trace.get_tracer("test").start_as_current_span("work"):
                await socket.send_text("answer")
    except WebSocketDisconnect:
        say("left")


APPLICATIONS = [raw, Starlette(routes=[WebSocketRoute("/chat", _starlette)])]

both = pytest.mark.parametrize("application", APPLICATIONS, ids=["raw", "starlette"])


@both
def test_messages(application: Application, lines: list[Line]) -> None:
    """An id for each message, the connection's beside it; before and after them, its own."""
    sent = talk(application, "one", "two")
    assert [message["type"] for message in sent][:3] == [
        "websocket.accept",
        "websocket.send",
        "websocket.send",
    ]
    connection = named(lines, "handshake")["request_id"]
    assert named(lines, "left")["request_id"] == connection
    assert named(lines, "request")["request_id"] == connection
    one, two = named(lines, "got one"), named(lines, "got two")
    assert len({connection, one["request_id"], two["request_id"]}) == 3
    for line in (one, two):
        assert (line["connection_id"], line["path"], line["ip"]) == (connection, "/chat", CLIENT)
    for event in ("handshake", "left", "request"):
        assert "connection_id" not in named(lines, event)


@both
def test_the_handshakes_header(application: Application, lines: list[Line]) -> None:
    """The response has the request id beside the application's own headers, once."""
    accept = talk(application, "one", headers=((b"x-request-id", b"from-outside"),))[0]
    assert dict(accept["headers"]) == {b"x-own": b"1", b"x-request-id": b"from-outside"}
    assert len(accept["headers"]) == 2
    assert named(lines, "got one")["connection_id"] == "from-outside"


@both
def test_the_canonical_line(application: Application, lines: list[Line]) -> None:
    """One for the connection: a GET with status 101."""
    talk(application, "one")
    line = named(lines, "request")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/chat", 101)
    assert "error" not in line


@both
def test_spans(application: Application, lines: list[Line], spans: Spans) -> None:
    """A server span for the connection, a consumer span for each message with a trace of its own,
    and work in it below; after the last message, the connection's is current again."""
    talk(application, "one", "two")
    ended = spans()
    [server] = [span for span in ended if span.kind is SpanKind.SERVER]
    messages = [span for span in ended if span.kind is SpanKind.CONSUMER]
    assert [span.name for span in ended] == [
        *["work", "websocket message"] * 2,
        "GET",
    ]
    assert all(span.parent is None for span in (server, *messages))
    assert [span.parent and span.parent.span_id for span in ended if span.name == "work"] == [
        span.context.span_id for span in messages
    ]
    said = {line["event"]: line["span_id"] for line in lines}
    for event, span in (("got one", messages[0]), ("got two", messages[1]), ("left", server)):
        assert said[event] == trace.format_span_id(span.context.span_id)


def test_an_exception(lines: list[Line], spans: Spans) -> None:
    """It comes out as it was; message and connection both say it."""

    async def fails(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise LookupError("of the handler")

    with pytest.raises(LookupError, match="of the handler"):
        talk(fails, "one")
    line = named(lines, "request")
    assert (line["status"], line["error"], line["level"]) == (101, "LookupError", "error")
    assert [dict(span.attributes or {})["error.type"] for span in spans()] == ["LookupError"] * 2


def test_a_refusal(lines: list[Line]) -> None:
    """Closing before accepting is 403 to the client, and to the line."""

    async def refuses(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 1008})

    assert talk(refuses) == [{"type": "websocket.close", "code": 1008}]
    line = named(lines, "request")
    assert (line["status"], line["level"]) == (403, "info")


def test_a_refusal_with_a_response(lines: list[Line]) -> None:
    """Where the server lets it answer, the status is the answer's, and it has the header."""

    async def refuses(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    start = talk(refuses)[0]
    line = named(lines, "request")
    assert dict(start["headers"]) == {b"x-request-id": line["request_id"].encode()}
    assert line["status"] == 401


def test_two_tasks(lines: list[Line]) -> None:
    """A task's message is not ended by what another task of the connection receives."""
    states = []

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        first, second = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            await receive()
            first.set()
            message = asok_trace.current()
            assert message is not None
            await second.wait()
            states.append((message.open, message is asok_trace.current()))

        async def fast() -> None:
            await receive()
            second.set()

        task = asyncio.create_task(slow())
        await first.wait()
        await fast()
        await task

    talk(handler, "1", "2")
    assert states == [(True, True)]


def test_a_task_for_each_receive(lines: list[Line]) -> None:
    """Where each message is received in a task that then ends, the one before ends with the next,
    and nothing gathers."""
    seen: list[Scope | None] = []

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def one() -> None:
            await receive()
            seen.append(asok_trace.current())

        for _ in range(3):
            await asyncio.create_task(one())
        assert [scope is not None and scope.open for scope in seen] == [False, False, True]
        say("between")

    talk(handler, "1", "2", "3")
    assert "connection_id" not in named(lines, "between")


def test_a_scope_around_the_messages(lines: list[Line]) -> None:
    """A unit of work that the handler opens itself is where it was, between the messages."""

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with asok_trace.scope("session"):
            say("before")
            await receive()
            say("got")
            await receive()
            say("after")

    talk(handler, "1")
    assert named(lines, "before")["task"] == named(lines, "after")["task"] == "session"
    assert named(lines, "before")["request_id"] == named(lines, "after")["request_id"]
    assert "connection_id" in named(lines, "got")


def test_undo(lines: list[Line]) -> None:
    """What was wrapped passes everything through."""
    handle = asok_trace.instrument(raw)
    handle.undo()
    seen = []

    async def send(message: Message) -> None:
        seen.append(message)

    waiting = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.disconnect"},
    ]

    async def receive() -> Message:
        return waiting.pop(0)

    asyncio.run(handle.app({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert seen[0] == {"type": "websocket.accept", "headers": [(b"x-own", b"1")]}
    assert all("request_id" not in line for line in lines)
    assert [line["event"] for line in lines] == ["handshake", "got one", "left"]


# --- the part itself ------------------------------------------------------------------------


def connection() -> Scope:
    return Scope("of-the-connection", "websocket", method="GET", path="/chat", ip=CLIENT)


def test_copies_are_the_same() -> None:
    """Middlewares deep-copy the ASGI scope: there is one dialogue all the same."""
    dialogue = Dialogue(connection())
    assert copy.copy(dialogue) is copy.deepcopy({"it": dialogue})["it"] is dialogue


def test_a_user_who_becomes_known() -> None:
    """A message says who the connection's user is as soon as the connection knows."""
    around = connection()
    dialogue = Dialogue(around)
    dialogue.received()
    message = ACTIVE.get()
    assert message is not None
    assert "user" not in message.fields
    around.set_user(7)
    assert message.fields["user"] == "7"
    around.set_user(None)
    assert message.fields["user"] is None
    dialogue.end()


def test_without_an_event_loop() -> None:
    """Other loops than asyncio's have no tasks that we know: one message after the other."""
    around = connection()
    dialogue = Dialogue(around)
    ACTIVE.set(around)
    dialogue.received()
    first = ACTIVE.get()
    dialogue.asked()
    assert ACTIVE.get() is around
    dialogue.received()
    second = ACTIVE.get()
    dialogue.end()
    assert first is not None
    assert second is not None
    assert not first.open
    assert not second.open
    assert first.request_id != second.request_id

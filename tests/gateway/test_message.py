"""A scope per WebSocket message, and for both ends of the connection: on a real server, with real
clients. needs: asok"""

import contextlib
import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from asok.background import background
from asok.component import COMPONENTS_REGISTRY, Component, exposed
from asok.context import current_request, request_context, request_var
from asok.request import Request
from asok.ws.connection import Connection
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import asok_trace
from asok_trace.core import ids, text
from asok_trace.core.errors import ConfigError
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.frameworks.asok import FRAMEWORK
from asok_trace.gateway import message, notes
from asok_trace.stamp import server_span, tracing
from tests.gateway import sites
from tests.gateway.sites import Line, Site, named, say
from tests.gateway.sockets import DEADLINE, Sockets, answer, ask, join, operate, until

Faults = list[logging.LogRecord]


@pytest.fixture
def sockets(site: Site) -> Iterator[Sockets]:
    """A server that is not instrumented yet. It echoes on ``/chat`` and logs each event."""
    made = Sockets(site.app)

    @made.server.on_connect("/chat")
    def opened(connection: Any) -> None:
        say("connect")

    @made.server.on("/chat")
    def heard(connection: Any, text: str) -> None:
        say("message", text=text)
        connection.send(text)

    @made.server.on_disconnect("/chat")
    def gone(connection: Any) -> None:
        say("disconnect")

    yield made
    made.stop()
    asok_trace.instrument(made.server).undo()


@pytest.fixture
def chat(sockets: Sockets) -> Iterator[Sockets]:
    """A server that is instrumented."""
    with asok_trace.instrument(sockets.server):
        yield sockets


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[ReadableSpan, ...]]:
    """The spans that have ended, with a provider that is global for this test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(asok_trace.SpanStamper())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter.get_finished_spans


Ended = Callable[[], tuple[ReadableSpan, ...]]


@pytest.fixture
def records() -> Iterator[list[Any]]:
    """What Asok itself logs about WebSockets, stamped."""
    found: list[Any] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = found.append  # type: ignore[method-assign]
    logger = logging.getLogger("asok.ws")
    logger.addHandler(handler)
    with asok_trace.stamp_logging():
        yield found
    logger.removeHandler(handler)


def about(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span."""
    return dict(span.attributes or {})


# --- whose line it is --------------------------------------------------------------------------


@pytest.mark.usefixtures("users")
def test_every_event_is_a_unit_of_work(chat: Sockets, lines: list[Line]) -> None:
    """Connect, each message, disconnect: a request id of its own, the connection's id, ip, user
    and path on all of them."""
    with chat.connect(user=1) as one:
        assert [ask(one, word) for word in ("a", "b")] == ["a", "b"]
    assert [line["event"] for line in lines] == ["connect", "message", "message", "disconnect"]
    assert len({line["request_id"] for line in lines}) == 4
    assert len({line["connection_id"] for line in lines}) == 1
    for line in lines:
        assert (line["ip"], line["user"], line["path"]) == ("127.0.0.1", "1", "/chat")
        assert "task" not in line


@pytest.mark.usefixtures("users")
def test_the_scope(chat: Sockets) -> None:
    """Open meanwhile, of kind ``message``, with the pattern as its route; closed afterwards, when
    nothing is active on the thread."""
    seen: list[Any] = []

    @chat.server.on("/room/[name]")
    def heard(connection: Any, text: str) -> None:
        scope = asok_trace.current()
        assert scope is not None
        seen.append((scope, scope.kind, scope.path, scope.route, scope.user, scope.open))
        connection.send(text)

    with chat.connect("/room/blue", user=2) as one:
        ask(one)
    [(scope, *facts)] = seen
    assert facts == ["message", "/room/blue", "/room/[name]", "2", True]
    assert not scope.open
    assert repr(scope) == f"<Scope message message /room/blue {scope.request_id} closed>"


@pytest.mark.usefixtures("users")
def test_two_connections_at_once(chat: Sockets, lines: list[Line]) -> None:
    """Both inside their handlers at the same moment, several times: each line has the id, user
    and path of its own."""
    both = threading.Barrier(2)

    @chat.server.on("/room/[name]")
    def heard(connection: Any, text: str) -> None:
        both.wait(DEADLINE)
        say("in", own=connection.user.id, at=connection.path, text=text)
        both.wait(DEADLINE)
        say("out", own=connection.user.id, at=connection.path, text=text)
        connection.send(text)

    with (
        chat.connect("/room/blue", user=1, X_Request_ID="blue-1") as one,
        chat.connect("/room/red", user=2, X_Request_ID="red-2") as two,
    ):
        for word in "abc":
            one.send(word)
            two.send(word)
            assert answer(one) == answer(two) == word
    assert len(lines) == 12
    for line in lines:
        assert (line["user"], line["path"]) == (str(line["own"]), line["at"])
        assert line["connection_id"] == {"1": "blue-1", "2": "red-2"}[line["user"]]
    assert len({line["request_id"] for line in lines}) == 6
    by_message = {(line["own"], line["text"]): line["request_id"] for line in lines}
    assert all(line["request_id"] == by_message[line["own"], line["text"]] for line in lines)


def test_nobody_is_logged_in(chat: Sockets, lines: list[Line]) -> None:
    """Asok has looked: null, not absent."""
    with chat.connect() as one:
        ask(one)
    assert [line["user"] for line in lines] == [None, None, None]


@pytest.mark.usefixtures("users")
def test_a_forged_cookie(chat: Sockets, lines: list[Line]) -> None:
    """Is nobody."""
    with chat.connect(Cookie=chat.cookie(1).replace(";", "0;") + "0") as one:
        ask(one)
    assert {line["user"] for line in lines} == {None}


def test_a_user_who_comes_and_goes(chat: Sockets, lines: list[Line], users: Any) -> None:
    """A handler logs somebody in by a token in the first message: from the next message on each
    line has them, and so has ``current_request.user``; likewise when they leave."""

    @chat.server.on("/login")
    def heard(connection: Any, text: str) -> None:
        say("before", who=getattr(current_request.user, "name", None))
        connection.user = users.find(id=int(text)) if text else None
        connection.send(text)

    with chat.connect("/login") as one:
        for text in ("1", "2", "", "1"):
            ask(one, text)
    assert [(line["user"], line["who"]) for line in lines] == [
        (None, None),
        ("1", "ada"),
        ("2", "bob"),
        (None, None),
    ]


def test_a_user_set_on_the_current_request(chat: Sockets, lines: list[Line], users: Any) -> None:
    """As in a page: on the next line. It is the message's request, not the connection's."""

    @chat.server.on("/login")
    def heard(connection: Any, text: str) -> None:
        say("before")
        current_request.user = users.find(id=2)
        say("after")
        connection.send(text)

    with chat.connect("/login", user=1) as one:
        ask(one)
        ask(one)
    assert [line["user"] for line in lines] == ["1", "2", "1", "2"]


def test_a_users_resolver(sockets: Sockets, lines: list[Line]) -> None:
    """The setting ``user`` is asked here as well, with the current request."""
    asok_trace.instrument(sockets.server, user=lambda request: request.path.upper())
    with sockets.connect() as one:
        ask(one)
    assert {line["user"] for line in lines} == {"/CHAT"}


def test_bound_facts_end_with_the_message(chat: Sockets, lines: list[Line]) -> None:
    """bind() is of one message, as it is of one request."""

    @chat.server.on("/bind")
    def heard(connection: Any, text: str) -> None:
        asok_trace.bind(**{text: "bound"})
        say("in")
        connection.send(text)

    with chat.connect("/bind") as one:
        ask(one, "a")
        ask(one, "b")
    first, second = lines
    assert ("a" in first, "b" in first, "a" in second, "b" in second) == (True, False, False, True)


def test_the_address_behind_a_proxy(chat: Sockets, lines: list[Line]) -> None:
    """By Asok's own rule: the forwarded one if the peer is trusted."""
    with chat.connect(X_Forwarded_For="203.0.113.9") as one:
        ask(one)
    assert {line["ip"] for line in lines} == {"127.0.0.1"}
    lines.clear()
    chat.app.config["TRUSTED_PROXIES"] = ["127.0.0.1"]
    with chat.connect(X_Forwarded_For="203.0.113.9, 10.0.0.1") as one:
        ask(one)
    assert {line["ip"] for line in lines} == {"203.0.113.9"}


def test_a_query_and_odd_bytes_in_the_path(chat: Sockets, lines: list[Line]) -> None:
    """No query string; what arrives raw is shown as the client meant it, on one line."""

    @chat.server.on("/room/[name]")
    def heard(connection: Any, text: str) -> None:
        say("in")
        with request_context(connection.request):
            say("by hand")
        connection.send(text)

    with chat.connect("/room/a%0d%0ab?token=secret") as one:
        ask(one)
    assert {line["path"] for line in lines} == {"/room/a%0d%0ab"}
    raw = Connection(None, ("::1", 1), "/room/\xc3\xa9\x1b", {})
    lines.clear()
    chat.server._dispatch_text_frame(raw, b"x", lambda connection, text: say("raw"))
    assert named(lines, "raw")["path"] == "/room/é\\x1b"


# --- the connection's id -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "settings", "accepted"),
    [
        ("from-the-browser.1", {}, True),
        ("not an id", {}, False),
        ("x" * 129, {}, False),
        ("from-the-browser.1", {"trust_incoming": False}, False),
    ],
)
def test_the_connections_id(
    sockets: Sockets, lines: list[Line], sent: str, settings: dict[str, Any], accepted: bool
) -> None:
    """Accepted from the handshake under the same rule as a request's, else made; never the
    request id of a message."""
    asok_trace.instrument(sockets.server, **settings)
    with sockets.connect(X_Request_ID=sent) as one:
        ask(one)
    [connection_id] = {line["connection_id"] for line in lines}
    assert (connection_id == sent) is accepted
    assert connection_id not in {line["request_id"] for line in lines}
    assert ids.accept(connection_id)


def test_the_connections_id_in_another_header(sockets: Sockets, lines: list[Line]) -> None:
    """The one that the settings name."""
    asok_trace.instrument(sockets.server, request_id_header="X-Correlation-ID")
    with sockets.connect(X_Request_ID="no", X_Correlation_ID="yes") as one:
        ask(one)
    assert {line["connection_id"] for line in lines} == {"yes"}


# --- the current request -----------------------------------------------------------------------


@pytest.mark.usefixtures("users")
def test_the_current_request(sockets: Sockets) -> None:
    """Asok promises it in all three handlers. It says the connection's path, user and headers;
    each event has one of its own, and none is left on the thread."""
    seen: list[Any] = []

    def look(connection: Any, text: str = "") -> None:
        found = request_var.get()
        seen.append((found, bool(current_request), connection.request is found))
        assert current_request.path == "/here"
        assert current_request.user.name == "ada"
        assert current_request.headers["User-Agent"].startswith("Python")
        if text:
            connection.send(text)

    sockets.server.on_connect("/here")(look)
    sockets.server.on("/here")(look)
    sockets.server.on_disconnect("/here")(look)
    outside: list[Any] = []
    drive = sockets.server._handle_frame

    def driving(*args: Any) -> Any:
        outside.append(request_var.get())
        return drive(*args)

    sockets.server._handle_frame = driving
    asok_trace.instrument(sockets.server, isolate=False)
    with sockets.connect("/here", user=1) as one:
        ask(one)
        ask(one)
    assert [(known, shared) for _, known, shared in seen] == [(True, False)] * 4
    assert len({id(found) for found, _, _ in seen}) == 4
    assert set(outside) == {None}


def test_what_a_handler_does_to_its_request_stays_there(chat: Sockets, users: Any) -> None:
    """The log of queries that Asok keeps on the current request, above all: a connection would
    otherwise grow with each."""
    kept: list[Any] = []

    @chat.server.on("/query")
    def heard(connection: Any, text: str) -> None:
        users.find(id=1)
        current_request.args["seen"] = current_request.response_headers.append(("a", "b"))
        kept.append((connection.request, request_var.get()))
        connection.send(text)

    with chat.connect("/query") as one:
        for _ in range(3):
            ask(one)
    for of_connection, own in kept:
        assert not hasattr(of_connection, "_asok_sql_log")
        assert len(own.response_headers) == 1


def test_a_handshake_that_asok_makes_no_request_of(
    chat: Sockets, lines: list[Line], faults: Faults
) -> None:
    """It swallows that: no current request, but lines as ever."""

    @chat.server.on("/none")
    def heard(connection: Any, text: str) -> None:
        say("in", known=bool(current_request))
        connection.send(text)

    @chat.server.on_connect("/none")
    def opened(connection: Any) -> None:
        del connection.request

    with chat.connect("/none", X_Request_ID="id-1") as one:
        ask(one)
    line = named(lines, "in")
    assert (line["known"], line["path"], line["ip"]) == (False, "/none", "127.0.0.1")
    assert line["connection_id"] == "id-1"
    assert not faults


def test_another_request_made_current(chat: Sockets, lines: list[Line]) -> None:
    """A real one, by hand: the ids stay, ip, path and user are the other's."""
    other = Request(sites.environ("/other", peer="198.51.100.9"))
    other.user = SimpleNamespace(id=8)

    @chat.server.on("/here")
    def heard(connection: Any, text: str) -> None:
        say("own")
        with request_context(other):
            say("other")
        connection.send(text)

    with chat.connect("/here") as one:
        ask(one)
    own, foreign = lines
    assert own["request_id"] == foreign["request_id"]
    assert own["connection_id"] == foreign["connection_id"]
    assert (foreign["ip"], foreign["path"], foreign["user"]) == ("198.51.100.9", "/other", "8")


# --- live components ---------------------------------------------------------------------------


@pytest.fixture
def counter() -> Iterator[Any]:
    """A live component that logs."""

    class MessageCounter(Component):
        count = 0

        @exposed
        def more(self) -> None:
            say("exposed")
            self.count += 1

        @exposed
        def broken(self) -> None:
            raise LookupError("of the component")

        def render(self) -> str:
            say("render")
            return "<b>{{ count }}</b>"

    yield MessageCounter
    del COMPONENTS_REGISTRY["MessageCounter"]


@pytest.mark.usefixtures("users")
def test_a_live_component(chat: Sockets, counter: Any, lines: list[Line], ended: Ended) -> None:
    """Asok makes each operation a request without an address; the lines have the connection's ip
    and user all the same. One scope and one span per operation."""
    with chat.connect("/asok/live", user=2, X_Request_ID="conn-1") as one:
        join(chat, one, counter)
        assert "<b>1</b>" in operate(one, "call", method="more")["html"]
        assert "<b>2</b>" in operate(one, "call", method="more")["html"]
    assert [line["event"] for line in lines] == ["exposed", "render"] * 2
    for line in lines:
        assert (line["ip"], line["user"], line["path"]) == ("127.0.0.1", "2", "/asok/live")
        assert line["connection_id"] == "conn-1"
    first, _, second, last = [line["request_id"] for line in lines]
    assert (first != second, second == last) == (True, True)
    spans = [span for span in ended() if span.name == "websocket message /asok/live"]
    assert [about(span)["request.id"] for span in spans][1:] == [first, second]


def test_a_live_component_for_nobody(chat: Sockets, counter: Any, lines: list[Line]) -> None:
    """Null, as the connection said, though the operation's own request does not know."""
    with chat.connect("/asok/live") as one:
        join(chat, one, counter)
        operate(one, "call", method="more")
    assert [(line["ip"], line["user"]) for line in lines] == [("127.0.0.1", None)] * 2


def test_an_error_in_a_live_component(
    chat: Sockets, counter: Any, ended: Ended, records: list[Any]
) -> None:
    """Asok answers and logs it, and nobody else ever sees it: it is on the span."""
    with chat.connect("/asok/live", X_Request_ID="conn-1") as one:
        join(chat, one, counter)
        assert operate(one, "call", method="broken")["op"] == "error"
        assert operate(one, "call", method="more")["op"] == "render"
    _, _, failed, fine, _ = ended()
    assert_failed(failed, "LookupError", "of the component")
    assert fine.status.status_code is StatusCode.UNSET
    [record] = records
    assert (record.request_id, record.connection_id) == (about(failed)["request.id"], "conn-1")
    assert (record.ip, record.path) == ("127.0.0.1", "/asok/live")


# --- spans -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("users")
def test_spans(chat: Sockets, ended: Ended, lines: list[Line]) -> None:
    """One per event, each the root of a trace of its own whose id is the request id; the handler's
    spans are below it, and every line has its trace."""

    @chat.server.on("/room/[name]")
    def heard(connection: Any, text: str) -> None:
        say("message")
        with trace.get_tracer("shop").start_as_current_span("look up"):
            connection.send(text)

    with chat.connect("/room/blue", user=1, X_Request_ID="conn-1") as one:
        ask(one)
    connect, inner, got, disconnect = ended()
    assert [span.name for span in (connect, got, disconnect)] == [
        f"websocket {event} /room/[name]" for event in ("connect", "message", "disconnect")
    ]
    assert [span.kind for span in (connect, got, disconnect)] == [
        SpanKind.SERVER,
        SpanKind.CONSUMER,
        SpanKind.SERVER,
    ]
    for span in (connect, got, disconnect):
        assert span.parent is None
        assert about(span) == {
            "request.id": trace.format_trace_id(span.context.trace_id),
            "url.path": "/room/blue",
            "client.address": "127.0.0.1",
            "user.id": "1",
            "asok_trace.connection.id": "conn-1",
            "network.protocol.name": "websocket",
        }
        assert span.status.status_code is StatusCode.UNSET
    assert inner.parent is not None
    assert inner.parent.span_id == got.context.span_id
    assert about(inner)["request.id"] == about(got)["request.id"]
    assert about(inner)["asok_trace.connection.id"] == "conn-1"
    line = named(lines, "message")
    assert line["request_id"] == line["trace_id"] == about(got)["request.id"]
    assert line["span_id"] == trace.format_span_id(got.context.span_id)


def test_the_user_of_a_span_is_the_last_one_known(
    chat: Sockets, ended: Ended, users: Any, lines: list[Line]
) -> None:
    """Somebody who logs in within the message."""

    @chat.server.on("/login")
    def heard(connection: Any, text: str) -> None:
        current_request.user = users.find(id=2)
        connection.send(text)

    with chat.connect("/login") as one:
        ask(one)
    assert about(ended()[1])["user.id"] == "2"


def test_a_span_inside_another_scope(chat: Sockets, ended: Ended) -> None:
    """A test or a job that calls the server itself: below its span. Without one that is running,
    what the thread has as current was left there."""
    connection = Connection(None, ("::1", 1), "/chat", {})
    tracer = trace.get_tracer("shop")

    def dispatch() -> ReadableSpan:
        chat.server._dispatch_text_frame(connection, b"x", lambda connection, text: None)
        return ended()[-1]

    with asok_trace.scope("nightly", tenant="the job's"), tracer.start_as_current_span("job"):
        inner = dispatch()
    with tracer.start_as_current_span("left"):
        alone = dispatch()
    job = next(span for span in ended() if span.name == "job")
    assert inner.parent is not None
    assert inner.parent.span_id == job.context.span_id
    assert not {"tenant", "asok_trace.task"} & about(inner).keys()
    assert alone.parent is None
    assert ACTIVE.get() is None


NO_TRACING = """
import sys
from asok.ws.connection import Connection
from asok import Asok, WebSocketServer
import asok_trace

server = WebSocketServer(app=Asok(sys.argv[1]))
asok_trace.instrument(server)
seen = []
connection = Connection(None, ("::1", 1), "/chat", {})
server._dispatch_text_frame(connection, b"x", lambda *args: seen.append(asok_trace.current()))
assert seen[0].kind == "message", seen
assert "asok_trace.stamp.server_span" not in sys.modules
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""


def test_nothing_of_opentelemetry_is_loaded_for_who_does_not_trace(site: Site) -> None:
    """No provider, no import."""
    subprocess.run([sys.executable, "-c", NO_TRACING, str(site.root)], check=True, timeout=60)


# --- errors ------------------------------------------------------------------------------------


def assert_failed(span: ReadableSpan, kind: str, said: str) -> None:
    """The span says what was raised."""
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, kind)
    assert about(span)["error.type"] == kind
    [event] = span.events
    assert event.name == "exception"
    assert dict(event.attributes or {})["exception.message"] == said


@pytest.mark.parametrize("event", ["connect", "message", "disconnect"])
@pytest.mark.usefixtures("users")
def test_an_error_in_a_handler(chat: Sockets, ended: Ended, records: list[Any], event: str) -> None:
    """Asok swallows it and goes on: it is on the span of that event alone, and the line in which
    Asok reports it is stamped."""

    def fail(connection: Any, text: str = "") -> None:
        if text in ("", "fail"):
            raise LookupError(f"in {event}")
        connection.send(text)

    @chat.server.on("/broken")
    def heard(connection: Any, text: str) -> None:
        connection.send(text)

    register = {"connect": "on_connect", "message": "on", "disconnect": "on_disconnect"}[event]
    getattr(chat.server, register)("/broken")(fail)
    with chat.connect("/broken", user=1) as one:
        one.send("fail" if event == "message" else "hi")
        assert ask(one, "again") in ("hi", "again")
    failed = [span for span in ended() if span.status.status_code is StatusCode.ERROR]
    [span] = failed
    assert span.name == f"websocket {event} /broken"
    assert_failed(span, "LookupError", f"in {event}")
    assert len(ended()) == 4
    [record] = records
    assert record.request_id == about(span)["request.id"]
    assert (record.user, record.path, record.ip) == ("1", "/broken", "127.0.0.1")


def test_an_error_that_nobody_may_report(
    chat: Sockets, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asok's logger is disabled, as `dictConfig` does with loggers it is not told of."""
    monkeypatch.setattr(logging.getLogger("asok.ws"), "disabled", True)
    chat.server.on("/broken")(lambda connection, text: 1 / 0)
    with chat.connect("/broken") as one:
        one.send("x")
    assert_failed(ended()[1], "ZeroDivisionError", "division by zero")


def test_where_asok_reports_an_error(chat: Sockets, records: list[Any]) -> None:
    """Its line names its own source, not ours, though we looked on."""
    chat.server.on("/broken")(lambda connection, text: 1 / 0)
    with chat.connect("/broken") as one:
        one.send("x")
    [record] = records
    assert (record.module, record.funcName) == ("server", "_dispatch_text_frame")


def test_an_error_that_nobody_swallows(
    chat: Sockets, ended: Ended, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that raises SystemExit ends its thread, in Asok's own way: the scope and span are
    ended, the disconnect handler runs in a scope of its own."""
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_type))

    @chat.server.on("/exit")
    def heard(connection: Any, text: str) -> None:
        seen.append(asok_trace.current())
        raise SystemExit(3)

    @chat.server.on_disconnect("/exit")
    def gone(connection: Any) -> None:
        say("gone")

    with chat.connect("/exit") as one:
        one.send("x")
        until(lambda: len(ended()) == 3)
    until(lambda: len(seen) == 2)
    scope, escaped = seen
    assert (scope.open, escaped) == (False, SystemExit)
    assert_failed(ended()[1], "SystemExit", "3")
    assert ended()[2].status.status_code is StatusCode.UNSET
    assert named(lines, "gone")["request_id"] != scope.request_id


def test_an_error_of_a_request_is_not_that_of_a_message(
    chat: Sockets, site: Site, ended: Ended
) -> None:
    """A view that has Asok's WebSocket logger report an exception."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        try:
            raise LookupError
        except LookupError:
            logging.getLogger("asok.ws").exception("in a view")
        request.status = "500 Oops"
        return "page"

    sites.wsgi(site.app, "/page")
    assert "LookupError" not in about(ended()[0]).values()


@pytest.mark.parametrize("frame", [b"\xff\xfe", b"\xed\xa0\x80", b"ok\xc3"])
def test_a_frame_that_cannot_be_decoded(
    chat: Sockets, lines: list[Line], ended: Ended, faults: Faults, frame: bytes
) -> None:
    """Asok drops it. It has been a message, though nobody heard it; the next one is heard."""
    with chat.connect() as one:
        one.send(frame, text=True)
        assert ask(one, "heard") == "heard"
    assert [line["event"] for line in lines] == ["connect", "message", "disconnect"]
    assert [span.status.status_code for span in ended()] == [StatusCode.UNSET] * 4
    assert not faults


def test_binary_frames_and_pings(chat: Sockets, lines: list[Line], ended: Ended) -> None:
    """Asok gives neither to a handler: no message."""
    with chat.connect() as one:
        one.send(b"binary")
        assert one.ping().wait(DEADLINE)
        ask(one)
    assert len(ended()) == len(lines) == 3


def test_a_connection_that_is_cut(chat: Sockets, lines: list[Line], ended: Ended) -> None:
    """No close frame, no answer: the disconnect handler has its scope."""
    with contextlib.suppress(Exception), chat.connect() as one:
        ask(one)
        one.socket.shutdown(2)
        until(lambda: len(ended()) == 3)
    assert named(lines, "disconnect")["connection_id"] == lines[0]["connection_id"]


# --- what a message leaves behind --------------------------------------------------------------


@pytest.mark.parametrize("isolate", [True, False])
def test_what_a_handler_binds(sockets: Sockets, lines: list[Line], isolate: bool) -> None:
    """Context variables do not reach the connection's next message, unless `isolate` is off: then
    the thread's context is the handlers' own, and only our scope and request are taken out."""

    @sockets.server.on("/bind")
    def heard(connection: Any, text: str) -> None:
        structlog.contextvars.bind_contextvars(**{text: "left"})
        say("in")
        connection.send(text)

    asok_trace.instrument(sockets.server, isolate=isolate)
    with sockets.connect("/bind") as one:
        ask(one, "a")
        ask(one, "b")
    assert ("a" in lines[1]) is not isolate
    assert lines[0]["request_id"] != lines[1]["request_id"]


def test_background_work(chat: Sockets, lines: list[Line]) -> None:
    """Asok copies the context: the job has its own message's id, user and request, while the next
    message runs and when the connection is gone."""
    goes_on, jobs = threading.Event(), []

    def job(text: str) -> None:
        goes_on.wait(DEADLINE)
        say("job", text=text, at=current_request.path)

    @chat.server.on("/work")
    def heard(connection: Any, text: str) -> None:
        say("in", text=text)
        jobs.append(background(job, text))
        connection.send(text)

    with chat.connect("/work") as one:
        ask(one, "a")
        ask(one, "b")
    goes_on.set()
    for made in jobs:
        made.result(DEADLINE)
    own = {line["text"]: line["request_id"] for line in lines if line["event"] == "in"}
    late = {line["text"]: line["request_id"] for line in lines if line["event"] == "job"}
    assert own == late
    assert len(set(own.values())) == 2
    assert {(line["path"], line["ip"]) for line in lines} == {("/work", "127.0.0.1")}


def test_nothing_is_kept(
    chat: Sockets, ended: Ended, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections, requests, scopes and exceptions are freed once the client has gone."""
    # pytest keeps the records that reach the root, and with them the exception's frames.
    monkeypatch.setattr(logging.getLogger("asok.ws"), "propagate", False)
    alive: list[weakref.ref[Any]] = []

    @chat.server.on("/here")
    def heard(connection: Any, text: str) -> None:
        say("in")
        things = (connection, connection.request, request_var.get(), asok_trace.current())
        alive.extend(weakref.ref(thing) for thing in things)
        connection.send(text)
        raise LookupError

    known = len(message._ids)
    for _ in range(3):
        with chat.connect("/here") as one:
            ask(one)
            ask(one)
    assert len(alive) == 24

    def freed() -> bool:
        gc.collect()  # asok's connection and its exception's frames are a circle
        return not any(ref() for ref in alive)

    until(freed)
    assert len(message._ids) == known


# --- putting it in and taking it out -------------------------------------------------------------


def test_undo(chat: Sockets, lines: list[Line], records: list[Any]) -> None:
    """The server is what it was, its connections live on; a message in flight ends normally."""
    handle = asok_trace.instrument(chat.server)
    inside, goes_on = threading.Event(), threading.Event()

    @chat.server.on("/slow")
    def heard(connection: Any, text: str) -> None:
        inside.set()
        goes_on.wait(DEADLINE)
        say("slow", known=bool(current_request))
        connection.send(text)

    with chat.connect("/slow") as one:
        one.send("x")
        assert inside.wait(DEADLINE)
        handle.undo()
        handle.undo()
        goes_on.set()
        assert answer(one) == "x"
        ask(one)
    first, second = lines
    assert ("request_id" in first, first["known"]) == (True, True)
    assert ("request_id" in second, second["known"]) == (False, False)
    assert not {name for name in vars(chat.server) if name.startswith(("_fire", "_dispatch"))}
    assert "_asok_trace" not in vars(chat.server)


def test_undo_gives_asoks_logger_back(sockets: Sockets) -> None:
    """It is looked on for as long as the server is instrumented."""
    logger = logging.getLogger("asok.ws")
    before = vars(logger).get("error")
    handle = asok_trace.instrument(sockets.server)
    assert vars(logger).get("error") is not before
    handle.undo()
    assert vars(logger).get("error") is before


def test_undo_under_somebody_elses_wrapper(chat: Sockets, lines: list[Line]) -> None:
    """Ours passes through."""
    handle = asok_trace.instrument(chat.server)
    ours = chat.server._dispatch_text_frame
    chat.server._dispatch_text_frame = lambda *args: ours(*args)
    handle.undo()
    with chat.connect() as one:
        assert ask(one) == "hello"
    assert "request_id" not in named(lines, "message")


def test_instrumented_twice(sockets: Sockets, lines: list[Line]) -> None:
    """The same handle, one scope per message; other settings are refused."""
    first = asok_trace.instrument(sockets.server)
    assert asok_trace.instrument(sockets.server) is first
    with pytest.raises(ConfigError, match="instrumented already"):
        asok_trace.instrument(sockets.server, isolate=False)
    with sockets.connect() as one:
        ask(one)
    assert len({line["request_id"] for line in lines}) == len(lines) == 3
    first.undo()
    again = asok_trace.instrument(sockets.server, isolate=False)
    assert again is not first


def test_a_server_without_an_application(lines: list[Line], monkeypatch: Any) -> None:
    """Asok allows it: lines have everything but a user."""
    monkeypatch.setenv("SECRET_KEY", "k" * 32)
    sockets = Sockets(None)
    sockets.server.on("/chat")(lambda connection, text: say("in") or connection.send(text))
    asok_trace.instrument(sockets.server)
    try:
        with sockets.connect() as one:
            ask(one)
    finally:
        sockets.stop()
    assert (named(lines, "in")["ip"], named(lines, "in")["path"]) == ("127.0.0.1", "/chat")


def test_a_subclass(site: Site, lines: list[Line]) -> None:
    """With methods of its own, called with keywords."""
    from asok import WebSocketServer

    class Own(WebSocketServer):  # type: ignore[misc]
        def _dispatch_text_frame(self, conn: Any, payload: bytes, msg_handler: Any) -> None:
            super()._dispatch_text_frame(conn, payload.upper(), msg_handler)

    server = Own(app=site.app)
    asok_trace.instrument(server)
    connection = Connection(None, ("::1", 1), "/chat", {})
    server._dispatch_text_frame(connection, b"x", msg_handler=lambda c, text: say(text))
    assert named(lines, "X")["ip"] == "::1"


# --- faults of ours ------------------------------------------------------------------------------


class BrokenError(Exception):
    """What a part of ours fails with."""


def broken(*_args: Any, **_kwargs: Any) -> Any:
    """In place of any function of ours."""
    raise BrokenError("broken")


class BrokenManager:
    """In place of a context manager of ours that fails at its end."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exc_info: object) -> None:
        raise BrokenError("broken")


PARTS: dict[str, Any] = {
    "ids.make": ids,
    "ids.accept": ids,
    "text.clean": text,
    "text.address": text,
    "text.wsgi_path": text,
    "framework.connection": FRAMEWORK,
    "framework.client_ip": FRAMEWORK,
    "framework.activate": FRAMEWORK,
    "framework.carried": FRAMEWORK,
    "framework.peek": FRAMEWORK,
    "message.Scope": message,
    "message._Visit": message,
    "message._id": message,
    "notes._note_reported": notes,
    "Visit._activate": message._Visit,
    "Visit._trace": message._Visit,
    "scope.fresh": Scope,
    "scope.set_user": Scope,
    "scope.rename": Scope,
    "tracing.spans": tracing,
    "server_span.start_message": server_span,
    "server_span.attach": server_span,
    "server_span.detach": server_span,
    "span.end_message": server_span.ServerSpan,
}


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("ended")
def test_a_broken_part(
    sockets: Sockets,
    lines: list[Line],
    records: list[Any],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    isolate: bool,
) -> None:
    """Whichever it is, every event is handled, errors of handlers are reported as ever, and the
    fault is reported once."""

    @sockets.server.on("/loud")
    def heard(connection: Any, text: str) -> None:
        say("in")
        connection.send(text)
        if text == "fail":
            raise LookupError("of the handler")

    @sockets.server.on_disconnect("/loud")
    def gone(connection: Any) -> None:
        say("gone")

    monkeypatch.setattr(PARTS[part], part.partition(".")[2], broken)
    asok_trace.instrument(sockets.server, isolate=isolate)
    with sockets.connect("/loud", X_Request_ID="conn-1") as one:
        assert [ask(one, text) for text in ("a", "fail", "b")] == ["a", "fail", "b"]
    assert [line["event"] for line in lines] == ["in", "in", "in", "gone"]
    [record] = records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
    assert_reported(faults)
    assert ACTIVE.get() is None
    assert request_var.get() is None


def assert_reported(faults: Faults) -> None:
    """Each piece that has failed, once."""
    names = [record.args[0] for record in faults if isinstance(record.args, tuple)]
    assert names
    assert len(names) == len(set(names)), names
    for record in faults:
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], BrokenError), record.exc_info


def test_a_request_that_cannot_be_put_away(
    sockets: Sockets, records: list[Any], faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler's own error is not hidden by ours."""
    monkeypatch.setattr(FRAMEWORK, "activate", lambda request: BrokenManager())
    scopes: list[Any] = []

    @sockets.server.on("/loud")
    def heard(connection: Any, text: str) -> None:
        scopes.append(asok_trace.current())
        connection.send(text)
        raise LookupError("of the handler")

    asok_trace.instrument(sockets.server)
    with sockets.connect("/loud") as one:
        ask(one)
        ask(one)
    assert [type(record.exc_info[1]) for record in records] == [LookupError] * 2
    assert [scope.open for scope in scopes] == [False, False]
    assert_reported(faults)


def test_a_scope_that_cannot_be_brought_up_to_date(
    sockets: Sockets, ended: Ended, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of each message: it is closed and its span ended all the same."""
    scopes: list[Any] = []

    @sockets.server.on("/here")
    def heard(connection: Any, text: str) -> None:
        scopes.append(asok_trace.current())
        connection.send(text)

    asok_trace.instrument(sockets.server)
    monkeypatch.setattr(Scope, "fresh", broken)
    # The SDK's processor of ours stamps by it as well, which is another piece.
    with sockets.connect("/here") as one:
        ask(one)
        ask(one)
    assert [scope.open for scope in scopes] == [False, False]
    assert len(ended()) == 4
    assert_reported(faults)

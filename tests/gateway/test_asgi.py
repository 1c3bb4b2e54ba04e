"""An ASGI request is one scope from its first message to the return of the application, however
clients, servers and tasks end it. needs: asok"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from asok.context import request_var
from asok.core.signals import request_finished
from asok.testing import TestClient

import asok_trace
from asok_trace.core.scope import ACTIVE
from tests.gateway import sites
from tests.gateway.sites import FORM, HEADER, Line, Message, Site, canonical, named, say


class StopError(BaseException):
    """No Exception: nothing in asok catches it."""


def run(
    site: Site,
    path: str = "/plain",
    *,
    receive: Callable[[], Awaitable[Message]] | None = None,
    send: Callable[[Message], Awaitable[None]] | None = None,
    after: Callable[[], None] | None = None,
    **request: Any,
) -> list[Message]:
    """Serve one request with these callables; ``after`` runs in the server's own context."""
    sent: list[Message] = []

    async def remember(message: Message) -> None:
        sent.append(message)

    async def serve() -> None:
        try:
            await site.app(
                sites.asgi_scope(path, **request),
                receive or sites.receiving(request.get("body", b"")),
                send or remember,
            )
        finally:
            if after is not None:
                after()

    asyncio.run(serve())
    return sent


def assert_nobody() -> None:
    """This context is not inside any request."""
    assert ACTIVE.get() is None
    assert asok_trace.current() is None


def test_headers_are_lower_case_bytes(site: Site) -> None:
    """As the ASGI specification wants them; the message that asok made is not changed."""
    asok_trace.instrument(site.app)
    sent = run(site, headers=[(HEADER, "given")])
    [pair] = [pair for pair in sent[0]["headers"] if pair[0].lower() == b"x-request-id"]
    assert pair == (b"x-request-id", b"given")


@pytest.mark.parametrize("name", [b"x-request-id", b"X-Request-ID", b"X-REQUEST-ID"])
def test_a_header_of_somebody_under_us_is_replaced(site: Site, name: bytes) -> None:
    """In any case of letters, although ASGI wants lower case; its list is not changed."""
    theirs = [(name, b"theirs"), (b"x-other", b"kept"), (name, b"again")]

    async def odd(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": theirs})
        await send({"type": "http.response.body", "body": b""})

    site.app._asgi_call = odd
    asok_trace.instrument(site.app)
    sent = run(site, headers=[(HEADER, "given")])
    assert sent[0]["headers"] == [(b"x-other", b"kept"), (b"x-request-id", b"given")]
    assert len(theirs) == 3


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "something"])
def test_other_kinds_of_scope_pass(site: Site, lines: list[Line], kind: str) -> None:
    """Only HTTP requests are ours."""
    asok_trace.instrument(site.app)
    sent: list[Message] = []
    messages = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

    async def receive() -> Message:
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Message = {"type": kind}
    asyncio.run(site.app(scope, receive, send))
    assert lines == []
    assert scope == {"type": kind}


def test_a_scope_without_a_type(site: Site) -> None:
    """Asok's own KeyError, as without us."""
    asok_trace.instrument(site.app)
    with pytest.raises(KeyError, match="type"):
        asyncio.run(site.app({}, sites.receiving(), None))


def test_a_client_that_leaves_before_its_body_came(site: Site, lines: list[Line]) -> None:
    """Nothing is answered, so the line has no status; the scope is closed."""
    asok_trace.instrument(site.app)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    assert run(site, "/form", method="POST", receive=receive, after=assert_nobody) == []
    line = canonical(lines)
    assert "status" not in line
    assert (line["path"], line["level"]) == ("/form", "info")


def test_receive_raises(site: Site, lines: list[Line]) -> None:
    """The server gets its own exception back; the line names it."""
    asok_trace.instrument(site.app)

    async def receive() -> Message:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        run(site, receive=receive, after=assert_nobody)
    assert canonical(lines)["error"] == "ConnectionResetError"


def failing(at: int, sent: list[Message]) -> Callable[[Message], Awaitable[None]]:
    """A ``send`` that raises for good from its ``at``-th message on."""

    async def send(message: Message) -> None:
        if len(sent) >= at:
            raise OSError("gone")
        sent.append(message)

    return send


@pytest.mark.parametrize("view", ["/plain", "/stream", "/css/none.css"])
@pytest.mark.parametrize("at", [0, 1])
def test_send_raises(site: Site, lines: list[Line], at: int, view: str) -> None:
    """Before or after the response has started: the error that asok lets out, one line, the
    status that the client saw, and nobody is left."""
    asok_trace.instrument(site.app)
    site.views["stream"] = lambda request: (chunk for chunk in ["a", "b"])
    sent: list[Message] = []
    with pytest.raises(OSError, match="gone"):
        run(site, view, send=failing(at, sent), after=assert_nobody)
    line = canonical(lines)
    assert line["error"] == "OSError"
    if at:
        assert line["status"] == sent[0]["status"]
        assert sites.replied(sent).ids == [line["request_id"]]


def test_a_second_start_after_a_refused_first(site: Site, lines: list[Line]) -> None:
    """A server that refuses a header: asok answers 500 instead. That is the response the client
    sees, so it carries the id, and its status is the request's."""
    asok_trace.instrument(site.app)
    site.views["plain"] = lambda request: request.response_headers.append(("X-Bad", "1")) or "x"
    sent: list[Message] = []

    async def send(message: Message) -> None:
        if (b"x-bad", b"1") in message.get("headers", ()):
            raise ValueError("refused")
        sent.append(message)

    run(site, send=send)
    assert sites.replied(sent).status == 500
    assert sites.replied(sent).ids == [canonical(lines)["request_id"]]
    assert canonical(lines)["status"] == 500


def test_a_second_start_after_a_first_that_was_sent(site: Site, lines: list[Line]) -> None:
    """Asok sends one when the body fails; the client has the first, and so has the line."""
    asok_trace.instrument(site.app)
    sent: list[Message] = []
    failed = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and not failed:
            failed.append(message)
            raise OSError("gone")
        sent.append(message)

    run(site, send=send)
    assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [200, 500]
    assert canonical(lines)["status"] == 200


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": "200", "headers": []},
        {"type": "http.response.start", "status": 200, "headers": [("x-text", "1")]},
        {"type": "http.response.start", "status": 200, "headers": None},
        {"type": "http.response.trailers"},
        {"type": None},
        {},
    ],
    ids=repr,
)
def test_odd_messages(
    site: Site, lines: list[Line], faults: list[logging.LogRecord], message: Message
) -> None:
    """What a wrapper under us sends reaches the server, who may complain about it."""

    async def odd(scope: Message, receive: Any, send: Any) -> None:
        await send(message)

    site.app._asgi_call = odd
    asok_trace.instrument(site.app)
    [sent] = run(site, after=assert_nobody)
    assert {**sent, "headers": None} == {**message, "headers": None}
    assert len(lines) == 1
    assert len(faults) <= 1


# --- tasks --------------------------------------------------------------------------------------


def test_a_cancelled_task(site: Site, lines: list[Line]) -> None:
    """The server cancels: the scope is closed, the line names it, the cancellation goes on."""
    asok_trace.instrument(site.app)

    async def cancelled() -> None:
        entered = asyncio.Event()

        async def slow(request: Any) -> str:
            entered.set()
            await asyncio.Event().wait()
            return "never"

        site.views["slow"] = slow
        task = asyncio.create_task(
            site.app(sites.asgi_scope("/async/slow"), sites.receiving(), failing(0, []))
        )
        await asyncio.wait_for(entered.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_nobody()

    asyncio.run(cancelled())
    line = canonical(lines)
    assert (line["error"], line["level"]) == ("CancelledError", "info")
    assert "status" not in line


def test_a_view_that_goes_on_after_the_cancellation(site: Site, lines: list[Line]) -> None:
    """A thread cannot be cancelled: its late lines keep the id, and there is one canonical line."""
    asok_trace.instrument(site.app)
    entered, cancelled, done = threading.Event(), threading.Event(), threading.Event()

    @site.view
    def slow(request: Any) -> str:
        entered.set()
        cancelled.wait(10)
        say("late")
        done.set()
        return "late"

    async def cancel() -> None:
        task = asyncio.create_task(
            site.app(sites.asgi_scope("/slow"), sites.receiving(), failing(0, []))
        )
        assert await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        assert await asyncio.to_thread(done.wait, 10)

    asyncio.run(cancel())
    assert [line["event"] for line in lines] == ["request", "late"]
    assert len({line["request_id"] for line in lines}) == 1
    assert lines[1]["path"] == "/slow"


def test_a_base_exception(site: Site, lines: list[Line]) -> None:
    """It passes as it is; the line names it and has no status."""
    asok_trace.instrument(site.app)
    error = StopError("x")

    async def stop(request: Any) -> str:
        raise error

    site.views["stop"] = stop
    with pytest.raises(StopError) as raised:
        run(site, "/async/stop", after=assert_nobody)
    assert raised.value is error
    assert canonical(lines)["error"] == "StopError"
    assert "status" not in canonical(lines)


def test_requests_on_one_loop(site: Site, lines: list[Line]) -> None:
    """Many at once, sync and async views mixed: each line carries its own response's id, also
    after every await."""
    asok_trace.instrument(site.app)

    async def page(request: Any) -> str:
        for _ in range(3):
            say("inside", of=request.args["n"])
            await asyncio.sleep(0.001)
        return "x"

    def sync(request: Any) -> str:
        say("inside", of=request.args["n"])
        return "x"

    site.views.update(page=page, sync=sync)

    async def one(number: int) -> str:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        path = "/async/page" if number % 2 else "/sync"
        scope = sites.asgi_scope(path, query=f"n={number}")
        await site.app(scope, sites.receiving(), send)
        assert_nobody()
        return sites.replied(sent).ids[0]

    async def everything() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(40)))

    ids = asyncio.run(everything())
    for number, request_id in enumerate(ids):
        own = [line for line in lines if line.get("of") == str(number)]
        assert {line["request_id"] for line in own} == {request_id}
    assert len([line for line in lines if line["event"] == "request"]) == 40


def test_requests_one_after_the_other_in_one_task(site: Site, lines: list[Line]) -> None:
    """Servers reuse contexts: even a request that asok has left current does not reach the next."""
    asok_trace.instrument(site.app)
    site.views["plain"] = lambda request: say("inside") or "plain"
    stopping = [True]

    def receiver(_sender: Any, **_named: Any) -> None:
        if stopping.pop() if stopping else False:
            raise StopError

    async def serve() -> None:
        async def send(message: Message) -> None:
            pass

        with pytest.raises(StopError):
            await site.app(sites.asgi_scope("/first"), sites.receiving(), send)
        assert request_var.get() is not None
        assert ACTIVE.get() is None
        await site.app(sites.asgi_scope("/second"), sites.receiving(), send)
        assert ACTIVE.get() is None

    request_finished.connect(receiver)
    try:
        asyncio.run(serve())
    finally:
        request_finished.disconnect(receiver)
    first, second = lines[:2], lines[2:]
    assert {line["path"] for line in first} == {"/first"}
    assert {line["path"] for line in second} == {"/second"}
    assert len({line["request_id"] for line in second}) == 1


def test_a_request_inside_a_request(site: Site, lines: list[Line]) -> None:
    """Through ASGI in the same task, and through asok's test client in a sync view: the inner
    lines are the inner's, and the outer one goes on."""
    asok_trace.instrument(site.app)

    async def outer(request: Any) -> str:
        request.user = type("User", (), {})()
        request.user.id = 7
        asok_trace.bind(tenant="outer's")
        say("before")
        await site.app(sites.asgi_scope("/inner"), sites.receiving(), silent)
        say("after")
        return "outer"

    async def silent(message: Message) -> None:
        pass

    site.views.update(outer=outer, inner=lambda request: say("inner") or "inner")
    run(site, "/async/outer", after=assert_nobody)
    inner, own = (line for line in lines if line["event"] == "request")
    assert named(lines, "inner")["request_id"] == inner["request_id"] != own["request_id"]
    assert {named(lines, event)["request_id"] for event in ("before", "after")} == {
        own["request_id"]
    }
    assert inner["path"] == named(lines, "inner")["path"] == "/inner"
    assert (inner["user"], "tenant" in inner) == (None, False)
    assert (own["user"], own["tenant"], own["path"]) == ("7", "outer's", "/async/outer")


def test_a_test_client_in_a_sync_view(site: Site, lines: list[Line]) -> None:
    """WSGI inside ASGI."""
    asok_trace.instrument(site.app)

    @site.view
    def outer(request: Any) -> str:
        TestClient(site.app).get("/inner")
        say("after")
        return "outer"

    site.views["inner"] = lambda request: say("inner") or "inner"
    run(site, "/outer")
    inner, own = (line for line in lines if line["event"] == "request")
    assert named(lines, "inner")["request_id"] == inner["request_id"]
    assert named(lines, "after")["request_id"] == own["request_id"] != inner["request_id"]
    assert (inner["path"], own["path"]) == ("/inner", "/outer")


def test_the_scope_handed_on(site: Site, lines: list[Line]) -> None:
    """The same ASGI scope, passed on within the application, is one request: one id, one line."""
    asok = site.app._asgi_call

    async def forward(scope: Message, receive: Any, send: Any) -> None:
        if "test.forwarded" in scope:
            await asok(scope, receive, send)
        else:
            say("handing on")
            await site.app._asgi_call({**scope, "test.forwarded": True}, receive, send)

    site.app._asgi_call = forward
    asok_trace.instrument(site.app)
    site.views["plain"] = lambda request: say("inside") or "plain"
    run(site, after=assert_nobody)
    assert [line["event"] for line in lines] == ["handing on", "inside", "request"]
    assert len({line["request_id"] for line in lines}) == 1


def test_a_request_that_arrives_closed(site: Site, lines: list[Line]) -> None:
    """The same ASGI scope served twice, as by a server that retries: two requests, two ids."""
    asok_trace.instrument(site.app)
    scope = sites.asgi_scope()

    async def silent(message: Message) -> None:
        pass

    for _ in range(2):
        asyncio.run(site.app(scope, sites.receiving(), silent))
    assert len({line["request_id"] for line in lines}) == 2


def test_a_client_without_an_address(site: Site, lines: list[Line]) -> None:
    """A unix socket has no client; some adapters have one of None."""
    asok_trace.instrument(site.app)

    async def silent(message: Message) -> None:
        pass

    for client in (None, [None, None], ("", 0), ()):
        scope = {**sites.asgi_scope(), "client": client}
        asyncio.run(site.app(scope, sites.receiving(), silent))
    assert len(lines) == 4
    assert all("ip" not in line for line in lines)


# --- a real server ------------------------------------------------------------------------------


@pytest.fixture
def port(site: Site) -> Iterator[int]:
    """The port of a uvicorn that serves the instrumented site."""
    import uvicorn

    asok_trace.instrument(site.app)
    server = uvicorn.Server(
        uvicorn.Config(
            site.app, port=0, log_config=None, interface="asgi3", lifespan="off", ws="none"
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def test_the_servers_own_lines(port: int, lines: list[Line]) -> None:
    """Uvicorn's access line, and its report of what escaped, carry the id of their request."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    handler.addFilter(asok_trace.RequestFilter())
    loggers = [logging.getLogger("uvicorn.access"), logging.getLogger("uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        connection = sites.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/plain", headers={HEADER: "fine"})
        assert connection.getresponse().read()
        connection.request("POST", "/plain", b"\xff", {FORM[0]: FORM[1], HEADER: "failing"})
        assert connection.getresponse().read()
        connection.close()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    stamped = [
        (record.levelname, vars(record).get("request_id"))
        for record in records
        if record.name == "uvicorn.access" or record.exc_info
    ]
    assert stamped == [("INFO", "fine"), ("ERROR", "failing"), ("INFO", "failing")]
    assert [line["request_id"] for line in lines] == ["fine", "failing"]

"""A WSGI call runs in a context of its own: whatever a view raises, binds or leaves behind, the
response is as without us, the scope is closed, and nothing reaches the next request on the thread.
needs: asok"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import structlog
from asok.context import request_var
from asok.core.signals import Signal, request_finished, request_started
from asok.exceptions import AbortException, RedirectException
from asok.testing import TestClient

import asok_trace
from asok_trace.core.scope import ACTIVE, SERVED
from tests.gateway import sites
from tests.gateway.sites import Line, Site, Started, canonical, named, say

Receiver = Callable[..., None]


@pytest.fixture
def receive() -> Iterator[Callable[[Signal, Receiver], None]]:
    """Connects receivers to signals of asok, for this test alone."""
    connected: list[tuple[Signal, Receiver]] = []

    def receive(signal: Signal, receiver: Receiver) -> None:
        signal.connect(receiver)
        connected.append((signal, receiver))

    yield receive
    for signal, receiver in connected:
        signal.disconnect(receiver)


class StopError(BaseException):
    """No Exception: nothing in asok catches it."""


def assert_nothing_left() -> None:
    """This thread is as it was before the request."""
    assert ACTIVE.get() is None
    assert request_var.get() is None
    assert asok_trace.current() is None


# --- what views raise ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LookupError("x"), 500),
        (RecursionError("x"), 500),
        (StopIteration("x"), 500),
        (RedirectException("/elsewhere"), 302),
        (AbortException(403, "x"), 403),
        (AbortException(500, "x"), 500),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_that_asok_answers(
    site: Site, lines: list[Line], error: Exception, status: int
) -> None:
    """The line has the status of the answer, error level from 500 up, and the name of what asok
    made an error page of; a redirect and an abort are no errors."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        raise error

    reply = sites.wsgi(site.app, "/page")
    line = canonical(lines)
    assert (reply.status, reply.ids) == (status, [line["request_id"]])
    assert (line["status"], line["level"]) == (status, "error" if status >= 500 else "info")
    expected = isinstance(error, (RedirectException, AbortException))
    assert line.get("error") == (None if expected else type(error).__name__)
    assert_nothing_left()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopError])
@pytest.mark.parametrize("isolate", [True, False])
def test_what_is_no_exception_passes(
    site: Site, lines: list[Line], kind: type[BaseException], isolate: bool
) -> None:
    """The server gets the very object; the line names it, without a status that nobody sent."""
    asok_trace.instrument(site.app, isolate=isolate)
    error = kind("x")

    @site.view
    def page(request: Any) -> str:
        raise error

    with pytest.raises(kind) as raised:
        sites.wsgi(site.app, "/page")
    assert raised.value is error
    line = canonical(lines)
    assert (line["error"], line["level"]) == (kind.__name__, "info")
    assert "status" not in line
    assert_nothing_left()
    lines.clear()
    assert sites.wsgi(site.app).ids == [canonical(lines)["request_id"]]


def test_start_response_raises(site: Site, lines: list[Line]) -> None:
    """A server that refuses a header: asok gets the exception and answers 500, as without us."""
    asok_trace.instrument(site.app)
    site.views["plain"] = lambda request: request.response_headers.append(("X-Bad", "1")) or "x"
    started = Started()

    def start_response(status: str, headers: Any, *exc_info: Any) -> Any:
        if ("X-Bad", "1") in headers:
            raise ValueError("refused")
        return started(status, headers, *exc_info)

    with pytest.raises(ValueError, match="refused"):
        site.app(sites.environ(), start_response)
    assert canonical(lines)["error"] == "ValueError"
    assert_nothing_left()


def test_a_status_that_is_none(site: Site, lines: list[Line], faults: list[Any]) -> None:
    """What a wrapper under us passes to the server is the server's business."""
    asok = site.app._wsgi_call
    for status in (200, None, b"200 OK", "", "2xx Odd", "²00 Odd", "99"):

        def odd(environ: Any, start_response: Any, status: Any = status) -> Any:
            return asok(environ, lambda _status, headers, *rest: start_response(status, headers))

        site.app._wsgi_call = odd
        handle = asok_trace.instrument(site.app)
        started = Started()
        list(site.app(sites.environ(), started))
        assert started.calls[0][0] == status
        handle.undo()
    assert not faults
    assert len(lines) == 7
    assert {line.get("status") for line in lines} == {None, 99}


# --- signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [request_started, request_finished], ids=["started", "finished"])
def test_a_receiver_raises(
    site: Site, lines: list[Line], receive: Callable[..., None], signal: Signal
) -> None:
    """Asok logs it and goes on; its line carries the id."""
    asok_trace.instrument(site.app)

    def receiver(_sender: Any, **_named: Any) -> None:
        raise LookupError("receiver")

    receive(signal, receiver)
    records: list[Any] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    handler.addFilter(asok_trace.RequestFilter())
    logging.getLogger("asok.signals").addHandler(handler)
    try:
        reply = sites.wsgi(site.app)
    finally:
        logging.getLogger("asok.signals").removeHandler(handler)
    assert reply.status == 200
    assert [record.request_id for record in records] == reply.ids
    assert_nothing_left()


@pytest.mark.parametrize("signal", [request_started, request_finished], ids=["started", "finished"])
def test_a_receiver_stops(
    site: Site, lines: list[Line], receive: Callable[..., None], signal: Signal
) -> None:
    """Asok leaves its request current for good; the next request on the thread does not see it."""
    asok_trace.instrument(site.app)
    stopping = [True]

    def receiver(_sender: Any, **_named: Any) -> None:
        if stopping.pop() if stopping else False:
            raise StopError

    receive(signal, receiver)
    with pytest.raises(StopError):
        sites.wsgi(site.app, "/first")
    assert canonical(lines)["error"] == "StopError"
    assert canonical(lines)["path"] == "/first"
    assert_nothing_left()
    lines.clear()
    site.views["plain"] = lambda request: say("inside") or "plain"
    [request_id] = sites.wsgi(site.app, "/second").ids
    assert {(line["path"], line["request_id"]) for line in lines} == {("/second", request_id)}
    assert_nothing_left()


def test_a_receiver_stops_without_isolation(
    site: Site, lines: list[Line], receive: Callable[..., None]
) -> None:
    """Then asok's stale request stays, as it would without us; our lines still tell the two
    requests apart."""
    asok_trace.instrument(site.app, isolate=False)
    stopping = [True]

    def receiver(_sender: Any, **_named: Any) -> None:
        if stopping.pop() if stopping else False:
            raise StopError

    receive(request_finished, receiver)
    try:
        with pytest.raises(StopError):
            sites.wsgi(site.app, "/first")
        stale = request_var.get()
        assert stale is not None
        lines.clear()
        site.views["plain"] = lambda request: say("inside") or "plain"
        [request_id] = sites.wsgi(site.app, "/second").ids
        assert request_var.get() is stale
        assert {(line["path"], line["request_id"]) for line in lines} == {("/second", request_id)}
    finally:
        request_var.set(None)


# --- isolation --------------------------------------------------------------------------------

outer_var: ContextVar[str] = ContextVar("outer_var", default="nothing")
view_var: ContextVar[str] = ContextVar("view_var", default="nothing")


@pytest.mark.parametrize("isolate", [True, False])
def test_variables_go_in_and_not_out(site: Site, isolate: bool) -> None:
    """Outer middleware's are seen by the view; the view's are seen by nobody after it, unless
    isolation is off; each step of its body sees them."""
    asok_trace.instrument(site.app, isolate=isolate)
    seen: list[str] = []

    @site.view
    def page(request: Any) -> Any:
        seen.append(outer_var.get())
        view_var.set("of the view")

        def chunks() -> Iterator[str]:
            seen.append(view_var.get())
            yield "x"

        return chunks()

    token = outer_var.set("of the middleware")
    try:
        sites.wsgi(site.app, "/page")
        after = view_var.get()
    finally:
        outer_var.reset(token)
        view_var.set("nothing")
    assert seen == ["of the middleware", "of the view"]
    assert after == ("nothing" if isolate else "of the view")


@pytest.mark.parametrize("isolate", [True, False])
def test_what_structlog_was_told_stays_inside(site: Site, lines: list[Line], isolate: bool) -> None:
    """Variables bound by a view do not reach the next request on the thread; without isolation
    they do, as structlog's documentation warns."""
    asok_trace.instrument(site.app, isolate=isolate)
    site.views["first"] = lambda request: structlog.contextvars.bind_contextvars(cart=5) or "first"
    site.views["second"] = lambda request: say("inside") or "second"
    sites.wsgi(site.app, "/first")
    assert canonical(lines)["cart"] == 5
    lines.clear()
    sites.wsgi(site.app, "/second")
    assert [line.get("cart") for line in lines] == ([None, None] if isolate else [5, 5])


def test_the_server_remembers_whom_it_served(site: Site) -> None:
    """Its access line comes after the scope is closed, and outside of it."""
    for isolate in (True, False):
        handle = asok_trace.instrument(site.app, isolate=isolate)
        site.views["nested"] = lambda request: TestClient(site.app).get("/plain").text
        [request_id] = sites.wsgi(site.app, "/nested").ids
        served = SERVED.get()
        assert served is not None
        assert (served.request_id, served.open) == (request_id, False)
        handle.undo()


# --- a real server ----------------------------------------------------------------------------


@contextmanager
def serving(app: Any, threads: int) -> Iterator[int]:
    """As `sites.waitress_serving`, without waitress' own report of what escapes."""
    logging.getLogger("waitress").disabled = True
    try:
        with sites.waitress_serving(app, threads) as port:
            yield port
    finally:
        logging.getLogger("waitress").disabled = False


def test_stale_requests_on_many_threads(
    site: Site, lines: list[Line], receive: Callable[..., None]
) -> None:
    """A receiver that stops, on every thread of a waitress: no later request meets the stale one,
    nor what its view has bound."""
    asok_trace.instrument(site.app)
    met: list[Any] = []
    reached = threading.Barrier(4)
    stopped = threading.Semaphore(0)

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        met.append((request_var.get(), ACTIVE.get(), structlog.contextvars.get_contextvars()))
        try:
            return site.app(environ, start_response)
        except StopError:
            stopped.release()
            raise

    def receiver(_sender: Any, request: Any, **_named: Any) -> None:
        if request.path == "/stop":
            raise StopError

    @site.view
    def stop(request: Any) -> str:
        structlog.contextvars.bind_contextvars(left="behind")
        reached.wait(10)  # so that each thread serves one of these
        return "stop"

    site.views["plain"] = lambda request: say("inside", of=request.path) or "plain"
    receive(request_finished, receiver)

    with serving(outer, 4) as port, ThreadPoolExecutor(8) as clients, ExitStack() as waiting:
        for _ in range(4):  # waitress leaves their clients waiting
            connection = waiting.enter_context(sites.connect(port))
            connection.sendall(b"GET /stop HTTP/1.0\r\n\r\n")
        assert all(stopped.acquire(timeout=10) for _ in range(4))
        paths = [f"/page-{number}" for number in range(40)]
        replies = list(clients.map(lambda path: sites.fetch(port, path), paths))

    assert met == [(None, None, {})] * 44
    inside = {line["of"]: line for line in lines if line["event"] == "inside"}
    assert len(inside) == 40
    for number, reply in enumerate(replies):
        line = inside[f"/page-{number}"]
        assert reply.ids == [line["request_id"]]
        assert (line["path"], "left" in line) == (f"/page-{number}", False)
    ends = [line for line in lines if line["event"] == "request"]
    assert len(ends) == 44
    assert len({line["request_id"] for line in ends}) == 44


def test_many_requests_at_once(site: Site, lines: list[Line]) -> None:
    """On four threads, streams and pages mixed: each line carries the id of its own response."""
    asok_trace.instrument(site.app)

    @site.view
    def stream(request: Any) -> Any:
        number = request.args["n"]

        def chunks() -> Iterator[str]:
            say("inside", of=number)
            yield "x"

        return chunks()

    @site.view
    def page(request: Any) -> str:
        say("inside", of=request.args["n"])
        return "x"

    with serving(site.app, 4) as port, ThreadPoolExecutor(8) as clients:
        paths = [f"/{'stream' if n % 2 else 'page'}?n={n}" for n in range(60)]
        replies = list(clients.map(lambda path: sites.fetch(port, path), paths))
    ids = {line["of"]: line["request_id"] for line in lines if line["event"] == "inside"}
    assert [ids[str(number)] for number in range(60)] == [reply.ids[0] for reply in replies]
    assert {line["ip"] for line in lines} == {"127.0.0.1"}


def test_a_client_that_leaves_mid_stream(site: Site, lines: list[Line]) -> None:
    """Under a real server: the body is closed early, and the request has its line."""
    asok = site.app._wsgi_call
    closed = threading.Event()

    def endless(environ: dict[str, Any], start_response: Any) -> Any:
        asok(environ, lambda status, headers: start_response("200 OK", []))

        def body() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                say("finally")

        return body()

    site.app._wsgi_call = endless
    asok_trace.instrument(site.app)

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        body = site.app(environ, start_response)

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                return iter(body)

            def close(self) -> None:
                body.close()
                closed.set()

        return Body()

    with serving(outer, 1) as port:
        connection = sites.connect(port)
        connection.sendall(b"GET /endless HTTP/1.0\r\n\r\n")
        assert connection.recv(100)
        connection.close()
        assert closed.wait(10)
    assert [line["event"] for line in lines] == ["finally", "request"]
    assert named(lines, "finally")["request_id"] == canonical(lines)["request_id"]

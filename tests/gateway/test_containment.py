"""Each part of ours is broken in turn: the response is what it would be without us, the fault is
reported once, with a traceback and with what goes on without it, and so is the next request.
needs: asok"""

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from asok.context import request_context, request_var
from asok.request import Request
from opentelemetry.context import Context

import asok_trace
from asok_trace.core import errors, ids, text
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.frameworks import asgi_scope, lookup
from asok_trace.frameworks import environ as environs
from asok_trace.frameworks.asok import FRAMEWORK
from asok_trace.gateway import asgi, exchange, judge, wsgi
from asok_trace.stamp import access, tracing
from tests.gateway import sites
from tests.gateway.sites import Line, Reply, Site, say

Call = Callable[..., Reply]
Faults = list[logging.LogRecord]


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


def furnish(site: Site) -> None:
    """Pages that lead through all parts of ours, and, under WSGI, a body that is streamed."""
    asok = site.app._wsgi_call

    def streaming(environ: dict[str, Any], start_response: Any) -> Any:
        body = asok(environ, start_response)
        return (say("step") or chunk for chunk in body) if environ["PATH_INFO"] == "/page" else body

    site.app._wsgi_call = streaming

    @site.view
    def page(request: Any) -> str:
        say("before")
        logging.getLogger("shop").warning("before")
        request.user = SimpleNamespace(id=7)
        say("after")
        with request_context(Request(sites.environ("/other"))):
            say("inside")
        say("own again")
        return "page"

    @site.view
    def simple(request: Any) -> str:
        return "simple"


@pytest.fixture(autouse=True)
def stamped() -> Iterator[None]:
    """The standard library's lines are stamped too."""
    handle = asok_trace.stamp_logging()
    yield
    handle.undo()


@pytest.fixture
def send(call: Call, repeatable: Callable[[], None]) -> Callable[..., Reply]:
    """Sends a request for which asok draws the same tokens each time."""

    def send(site: Site, path: str = "/page") -> Reply:
        repeatable()
        return call(site.app, path)

    return send


def assert_reported(faults: Faults, *, count: int | None = 1) -> None:
    """Each fault once, with its traceback, what failed and what happens now."""
    names = [record.args[0] for record in faults if isinstance(record.args, tuple)]
    assert len(names) == len(set(names)), names
    if count is not None:
        assert len(names) == count, names
    for record in faults:
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], BrokenError)
        said = record.getMessage()
        assert "The request went on without it" in said
        assert "reported once" in said


BOTH = ("wsgi", "asgi")

# What is broken -> its owner, and under which interface it is reached.
PARTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "ids.make": (ids, BOTH),
    "ids.accept": (ids, BOTH),
    "text.clean": (text, BOTH),
    "text.wsgi_path": (text, BOTH),
    "text.address": (text, BOTH),
    "environs.header": (environs, ("wsgi",)),
    "environs.path": (environs, BOTH),
    "environs.carried": (environs, BOTH),
    "exchange.Exchange": (exchange, ()),
    "wsgi.Exchange": (wsgi, ("wsgi",)),
    "asgi.Exchange": (asgi, ("asgi",)),
    "wsgi._open": (wsgi, ("wsgi",)),
    "asgi._open": (asgi, ("asgi",)),
    "asgi_scope.header": (asgi_scope, ("asgi",)),
    "asgi_scope.method": (asgi_scope, ("asgi",)),
    "asgi_scope.path": (asgi_scope, ("asgi",)),
    "asgi_scope.peer": (asgi_scope, ("asgi",)),
    "asgi._forwarded": (asgi, ("asgi",)),
    "wsgi._with_id": (wsgi, ("wsgi",)),
    "asgi._with_id": (asgi, ("asgi",)),
    "exchange.Scope": (exchange, BOTH),
    "exchange.fnmatchcase": (exchange, BOTH),
    "framework.client_ip": (FRAMEWORK, BOTH),
    "framework.current": (FRAMEWORK, BOTH),
    "framework.carried": (FRAMEWORK, BOTH),
    "framework.facts": (FRAMEWORK, BOTH),
    "framework.peek": (FRAMEWORK, BOTH),
    "framework.route": (FRAMEWORK, BOTH),
    "framework.activate": (FRAMEWORK, ("wsgi",)),
    "lookup.here": (lookup, BOTH),
    "scope.fresh": (Scope, BOTH),
    "scope.set_user": (Scope, BOTH),
    "scope.seen_as": (Scope, BOTH),
    "scope._own_fields": (Scope, BOTH),
    "access._log_structlog": (access, BOTH),
    "Exchange._log": (exchange.Exchange, BOTH),
    "judge.Found": (judge, BOTH),
    "Found.report": (judge.Found, BOTH),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_broken_part(
    make_site: Callable[[], Site],
    send: Callable[..., Reply],
    request: pytest.FixtureRequest,
    lines: list[Line],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Whichever it is, the host does not notice, and hears of it once."""
    bare, watched = make_site(), make_site()
    for site in (bare, watched):
        furnish(site)
    without_us = [send(bare, path) for path in ("/page", "/simple", "/none/such")]

    owner, reached = PARTS[part]
    monkeypatch.setattr(owner, part.partition(".")[2], broken)
    asok_trace.instrument(watched.app, exclude=["/excluded"])
    with_us = [send(watched, path) for path in ("/page", "/simple", "/none/such")]
    assert [reply.without_id() for reply in with_us] == [reply.without_id() for reply in without_us]
    assert ACTIVE.get() is None
    assert request_var.get() is None

    interface = request.node.callspec.params["call"]
    assert_reported(faults, count=None)
    assert bool(faults) == (interface in reached)
    reported = len(faults)
    again = send(watched)
    assert again.without_id() == without_us[0].without_id()
    assert len(faults) == reported


@pytest.mark.parametrize("at", ["enter", "exit"])
def test_a_request_that_cannot_be_made_current(
    make_site: Callable[[], Site],
    send: Callable[..., Reply],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    """While a body is streamed: its chunks and its own exceptions arrive as without us."""
    site = make_site()
    furnish(site)
    without_us = send(site).without_id()
    manager: Any = BrokenManager()
    if at == "enter":
        manager = contextlib.contextmanager(broken)
        monkeypatch.setattr(
            FRAMEWORK, "activate", lambda request: SimpleNamespace(__enter__=broken)
        )
    else:
        monkeypatch.setattr(FRAMEWORK, "activate", lambda request: manager)
    asok_trace.instrument(site.app)
    for _ in range(2):
        assert send(site).without_id() == without_us
    if faults:  # under ASGI nothing is made current
        assert_reported(faults)


def test_an_error_of_the_body_is_not_hidden_by_ours(
    site: Site, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream raises, and so does our leaving of its request: the stream's own comes out."""
    asok = site.app._wsgi_call

    def streaming(environ: dict[str, Any], start_response: Any) -> Any:
        asok(environ, start_response)

        def body() -> Iterator[bytes]:
            raise LookupError("the stream's own")
            yield b""

        return body()

    site.app._wsgi_call = streaming
    monkeypatch.setattr(FRAMEWORK, "activate", lambda request: BrokenManager())
    asok_trace.instrument(site.app)
    with pytest.raises(LookupError, match="the stream's own"):
        sites.wsgi(site.app)
    assert_reported(faults)


def test_the_current_request_cannot_be_read(
    make_site: Callable[[], Site],
    send: Callable[..., Reply],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The function that reads it on each line, held since `instrument`."""
    site = make_site()
    furnish(site)
    without_us = send(site).without_id()
    monkeypatch.setattr(FRAMEWORK, "reader", lambda: broken)
    asok_trace.instrument(site.app)
    assert send(site).without_id() == without_us
    assert_reported(faults, count=None)
    reported = len(faults)
    assert send(site).without_id() == without_us
    assert len(faults) == reported > 0


def test_the_clock_fails(site: Site, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a request: its scope is closed all the same."""
    asok_trace.instrument(site.app)
    opened: list[Any] = []
    clock = SimpleNamespace(perf_counter=time.perf_counter)
    monkeypatch.setattr(exchange, "time", clock)

    @site.view
    def page(request: Any) -> str:
        opened.append(asok_trace.current())
        clock.perf_counter = broken
        return "page"

    for _ in range(2):
        assert len(sites.wsgi(site.app, "/page").ids) == 1
        clock.perf_counter = time.perf_counter
    assert_reported(faults)
    assert [scope.open for scope in opened] == [False, False]


def test_an_environ_that_takes_nothing(site: Site, faults: Faults) -> None:
    """A server's own mapping that refuses our key."""

    class Refusing(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            if key.startswith("asok_trace"):
                raise BrokenError("broken")
            super().__setitem__(key, value)

    asok_trace.instrument(site.app)
    started = sites.Started()
    body = site.app(Refusing(sites.environ()), started)
    assert started.reply(b"".join(body)).status == 200
    assert_reported(faults)


# --- what the host's own logging does --------------------------------------------------------


def test_a_structlog_chain_that_raises_for_the_canonical_line(
    site: Site, send: Callable[..., Reply], faults: Faults
) -> None:
    """A processor of the host that wants what this line does not have."""

    def demanding(_logger: Any, _name: str, event: Any) -> Any:
        if event["event"] == "request":
            raise BrokenError("broken")
        raise structlog.DropEvent

    structlog.configure(processors=[asok_trace.inject, demanding])
    asok_trace.instrument(site.app)
    for _ in range(2):
        assert len(send(site, "/plain").ids) == 1
    assert_reported(faults)


def test_a_handler_that_raises_for_the_canonical_line(
    site: Site, send: Callable[..., Reply], faults: Faults
) -> None:
    """Through the standard library, with a handler that does not even take our report."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise BrokenError("broken")

    handler = Raising()
    root = logging.getLogger()
    requests = logging.getLogger("asok_trace.request")
    requests.setLevel(logging.INFO)
    asok_trace.instrument(site.app)
    logging.getLogger("asok").propagate = False
    root.addHandler(handler)
    try:
        for _ in range(2):
            assert len(send(site, "/plain").ids) == 1
    finally:
        root.removeHandler(handler)
        requests.setLevel(logging.NOTSET)
        logging.getLogger("asok").propagate = True
    assert_reported(faults)


def test_a_stream_that_is_closed_for_logging(
    site: Site, send: Callable[..., Reply], faults: Faults
) -> None:
    """structlog prints to a file that is gone."""
    gone = io.StringIO()
    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.PrintLoggerFactory(gone)
    )
    gone.close()
    asok_trace.instrument(site.app)
    for _ in range(2):
        assert len(send(site, "/plain").ids) == 1
    [record] = faults
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


def test_a_resolver_that_raises_while_the_response_starts(
    site: Site, send: Callable[..., Reply], faults: Faults
) -> None:
    """No line was logged before: it is first asked between the view and the server."""
    asok_trace.instrument(site.app, user=broken)
    for _ in range(2):
        assert len(send(site, "/plain").ids) == 1
    assert_reported(faults)


def test_an_exhausted_stack_is_no_fault_of_ours(
    site: Site, call: Call, lines: list[Line], faults: Faults
) -> None:
    """A view that logs at the bottom of the stack gets its RecursionError; nothing is reported,
    nothing is switched off."""
    asok_trace.instrument(site.app)

    @site.view
    def deep(request: Any) -> str:
        def deeper() -> None:
            try:
                say("deep")
            finally:
                deeper()

        with pytest.raises(RecursionError):
            deeper()
        return "deep"

    assert call(site.app, "/deep").status == 200
    assert not faults
    assert all(piece.working for piece in errors.PIECES)
    lines.clear()
    site.views["plain"] = lambda request: say("fine") or "plain"
    [request_id] = call(site.app).ids
    assert [line["request_id"] for line in lines] == [request_id, request_id]


# --- what starts and ends spans ----------------------------------------------------------------


def spans(**broken_ones: Any) -> SimpleNamespace:
    """In place of our module of server spans: parts of it broken."""
    span = SimpleNamespace(context=Context(), end=lambda *args: None, ids=dict)
    working: dict[str, Any] = {
        "start": lambda *args, **kwargs: span,
        "attach": lambda context: object(),
        "detach": lambda token: None,
        "now": lambda: 0,
    }
    for name, function in broken_ones.items():
        if name in ("end", "ids"):
            setattr(span, name, function)
        else:
            working[name] = function
    return SimpleNamespace(**working)


@pytest.mark.parametrize("part", ["spans", "start", "attach", "detach", "end", "ids"])
def test_broken_spans(
    make_site: Callable[[], Site],
    send: Callable[..., Reply],
    faults: Faults,
    lines: list[Line],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """The application and its log lines go on without them."""
    bare, watched = make_site(), make_site()
    for site in (bare, watched):
        furnish(site)
    without_us = send(bare).without_id()
    lines.clear()
    monkeypatch.setattr(
        tracing, "spans", broken if part == "spans" else lambda: spans(**{part: broken})
    )
    asok_trace.instrument(watched.app)
    reply = send(watched)
    assert reply.without_id() == without_us
    assert ACTIVE.get() is None
    assert_reported(faults)
    send(watched)
    assert len(faults) == 1

"""What a request leaves behind: its finding, once, with the view that did it. needs: asok, flask"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import flask
import pytest
import structlog
from asok.context import request_context, request_var
from asok.core.signals import request_finished
from asok.request import Request
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import asok_trace
from asok_trace.core import findings
from asok_trace.gateway import judge
from tests.gateway import sites
from tests.gateway.found import leak, leaks, nothing_found, place
from tests.gateway.sites import Site, Started

__all__ = ["nothing_found"]


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Somebody traces."""
    provider = TracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield provider.get_tracer("shop")
    provider.shutdown()


class Flasks:
    """A Flask application whose pages are functions of the test."""

    def __init__(self, **settings: Any) -> None:
        self.app = flask.Flask("shop")
        self.app.testing = True
        self.handle = asok_trace.instrument(self.app, **settings)

    def page(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Serve ``function`` under its own name."""
        self.app.add_url_rule(f"/{function.__name__}", function.__name__, function)
        return function

    def ask(self, path: str, method: str = "GET") -> bytes:
        """One call, as a server does it, in a context of its own; the body."""
        return copy_context().run(sites.wsgi, self.app, path, method=method).body


@pytest.fixture
def flasks() -> Iterator[Flasks]:
    """An instrumented application."""
    made = Flasks()
    yield made
    made.handle.undo()


# --- the framework's request -------------------------------------------------------------------


@pytest.mark.parametrize("isolate", [True, False])
def test_a_receiver_that_raises_what_is_no_exception(site: Site, isolate: bool) -> None:
    """Asok then does not put its request away. One finding, at the end of the request that left
    it, and none at the next one's beginning."""

    @site.view
    def leaky(request: Any) -> str:
        return "leaky"

    def receiver(sender: Any, **_: Any) -> None:
        if request_var.get().path == "/leaky":
            raise KeyboardInterrupt

    handle = asok_trace.instrument(site.app, isolate=isolate)
    request_finished.connect(receiver)

    def thread() -> str:
        with pytest.raises(KeyboardInterrupt):
            sites.wsgi(site.app, "/leaky")
        for _ in range(2):
            assert sites.wsgi(site.app, "/plain").status == 200
        return ""

    try:
        copy_context().run(thread)
    finally:
        request_finished.disconnect(receiver)
        handle.undo()
    found = leak("bleed")
    assert found.path == "GET /leaky"
    assert found.callsite.endswith("page.py:1 /[name]")
    assert found.key == "bleed:/[name]"
    assert "its request current" in found.message
    assert "BaseException" in found.fix


def test_a_request_found_in_place(site: Site) -> None:
    """Without isolation, and left by what no gateway saw the end of: named is who left it."""
    handle = asok_trace.instrument(site.app, isolate=False)
    kept: list[Any] = []

    @site.view
    def kind(request: Any) -> str:
        kept.append(request)
        return "kind"

    def thread() -> None:
        sites.wsgi(site.app, "/kind")
        assert leaks() == []
        request_var.set(kept[0])  # a middleware around the application
        for _ in range(3):
            assert sites.wsgi(site.app, "/plain").status == 200

    copy_context().run(thread)
    handle.undo()
    found = leak("bleed")
    assert (found.path, found.count) == ("GET /kind", 3)
    assert found.request_id == kept[0].environ["asok_trace.scope"].request_id
    assert "another one began" in found.message


def test_a_context_that_a_flask_body_pushes(flasks: Flasks) -> None:
    """And never pops. The page is as it would be."""

    @flasks.page
    def stream() -> Any:
        def steps() -> Iterator[str]:
            flasks.app.test_request_context("/other").push()
            yield "x"

        return flask.Response(steps())

    for _ in range(2):
        assert flasks.ask("/stream") == b"x"
    found = leak("bleed")
    assert found.callsite == place(stream, "@flasks.page")
    assert found.key.endswith(".stream")
    assert "another request current" in found.message
    assert found.count == 2


# --- spans -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["attach", "enter"])
def test_a_span_that_stays_attached(flasks: Flasks, tracer: Any, how: str) -> None:
    """Attached and never detached; a with block that is entered by hand and never left."""
    kept = []

    @flasks.page
    def leaky() -> str:
        if how == "attach":
            span = tracer.start_span("charge")
            otel_context.attach(trace.set_span_in_context(span))
        else:
            manager = tracer.start_as_current_span("charge")
            manager.__enter__()
            kept.append(manager)
        return "leaky"

    for _ in range(2):
        assert flasks.ask("/leaky") == b"leaky"
    found = leak("bleed")
    assert (found.callsite, found.count) == (place(leaky, "@flasks.page"), 2)
    assert "the span 'charge' attached" in found.message
    assert found.path == "GET /leaky"
    kept.clear()


def test_spans_that_are_put_away(flasks: Flasks, tracer: Any) -> None:
    """In the view, and in a body that is streamed: silence."""

    @flasks.page
    def clean() -> Any:
        with tracer.start_as_current_span("one"):
            pass

        def steps() -> Iterator[str]:
            with tracer.start_as_current_span("two"):
                yield "x"
                yield "y"

        return flask.Response(flask.stream_with_context(steps()))

    assert flasks.ask("/clean") == b"xy"
    assert flasks.ask("/clean", "HEAD") == b""
    assert leaks() == []


# --- structlog -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["basic", "strict"])
def test_variables_that_stay_bound(level: str) -> None:
    """Looked for at strict alone; what was bound before is nobody's."""
    flasks = Flasks(level=level)

    @flasks.page
    def leaky() -> str:
        structlog.contextvars.bind_contextvars(cart=7, shop="x")
        return "leaky"

    @flasks.page
    def clean() -> str:
        with structlog.contextvars.bound_contextvars(cart=8):
            return "clean"

    structlog.contextvars.bind_contextvars(server=1)
    flasks.ask("/clean")
    flasks.ask("/leaky")
    flasks.ask("/leaky")
    flasks.handle.undo()
    if level == "basic":
        assert leaks() == []
    else:
        found = leak("bleed")
        assert "the structlog variables cart, shop bound" in found.message
        assert (found.callsite, found.count) == (place(leaky, "@flasks.page"), 2)


def test_variables_that_are_cleared_when_a_request_begins() -> None:
    """As structlog recommends it: what stays bound then reaches nobody. And a request that does
    not clear them is told of, wherever it comes in between."""
    flasks = Flasks(level="strict")

    @flasks.app.before_request
    def bind() -> None:
        if flask.request.path != "/leaky":
            structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(path=flask.request.path)

    @flasks.page
    def clean() -> str:
        return repr(structlog.contextvars.get_contextvars())

    @flasks.page
    def leaky() -> str:
        return "leaky"

    flasks.ask("/clean")
    flasks.ask("/leaky")
    assert flasks.ask("/clean") == b"{'path': '/clean'}"
    flasks.handle.undo()
    found = leak("bleed")
    assert (found.path, found.count) == ("GET /leaky", 1)


# --- bodies --------------------------------------------------------------------------------------


def test_a_body_that_is_dropped_half_way(flasks: Flasks) -> None:
    """By whoever iterates it, who forgets close()."""

    @flasks.page
    def stream() -> Any:
        return flask.Response(iter(["x", "y"]))

    def sloppy() -> None:
        body = flasks.app(sites.environ("/stream"), Started())
        assert next(iter(body)) == b"x"

    for _ in range(2):
        copy_context().run(sloppy)
        gc.collect()
    found = leak("unclosed")
    assert (found.callsite, found.count) == (place(stream, "@flasks.page"), 2)
    assert found.path == "GET /stream"
    assert "close() (PEP 3333)" in found.fix


def test_a_response_that_a_test_does_not_read(flasks: Flasks) -> None:
    """Many look at the status alone. What the request has left, keeps, and goes on with is found
    all the same."""
    flasks.handle.undo()
    flasks.handle = asok_trace.instrument(flasks.app, level="strict", threads="off", grace=0)
    kept, contexts = [], []

    @flasks.page
    def binds() -> str:
        structlog.contextvars.bind_contextvars(tenant="acme")
        return "bound"

    @flasks.page
    def keeps() -> str:
        kept.append(flask.request._get_current_object())  # type: ignore[attr-defined]
        return "kept"

    @flasks.page
    def goes_on() -> str:
        contexts.append(copy_context())
        return "gone"

    client = flasks.app.test_client()
    assert client.get("/binds").status_code == 200
    assert client.get("/goes_on").status_code == 200
    Kept.here = kept
    assert client.get("/keeps").status_code == 200
    findings.findings()
    with asok_trace.stamp_logging():
        contexts.pop().run(logging.getLogger("shop").warning, "still here")
    assert {(one.slug, one.path) for one in leaks()} == {
        ("bleed", "GET /binds"),
        ("late", "GET /goes_on"),
        ("retained", "GET /keeps"),
    }
    del Kept.here


class Kept:
    """What a test keeps, where it is looked for."""

    here: list[Any]


def test_bodies_that_are_not(flasks: Flasks) -> None:
    """Closed half-way, since the client has gone; never begun; read to the end and not closed; and
    what Flask's own test client leaves to the test."""

    @flasks.page
    def stream() -> Any:
        def steps() -> Iterator[str]:
            yield from "xyz"

        return flask.Response(flask.stream_with_context(steps()))

    def gone() -> None:
        body: Any = flasks.app(sites.environ("/stream"), Started())
        next(iter(body))
        body.close()

    def never_begun() -> None:
        flasks.app(sites.environ("/stream"), Started())

    def not_closed() -> None:
        assert b"".join(flasks.app(sites.environ("/stream"), Started())) == b"xyz"

    def status_alone() -> None:
        assert flasks.app.test_client().get("/stream").status_code == 200

    for visit in (gone, never_begun, not_closed, status_alone):
        copy_context().run(visit)
        gc.collect()
        assert leaks() == [], visit


# --- silence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("level", ["basic", "strict"])
def test_what_test_clients_do(tracer: Any, level: str, isolate: bool) -> None:
    """Nested requests, preserved contexts, contexts by hand, streams, HEAD, files, errors, and
    lines that are logged at each of their ends."""
    flasks = Flasks(level=level, isolate=isolate)
    app = flasks.app
    log = logging.getLogger("shop")

    @flasks.page
    def inner() -> str:
        log.warning("inner")
        return "inner"

    @flasks.page
    def nested() -> Any:
        return app.test_client().get("/inner").data

    @flasks.page
    def stream() -> Any:
        def steps() -> Iterator[str]:
            log.warning("step %s", flask.request.path)
            yield "x"

        return flask.Response(flask.stream_with_context(steps()))

    @flasks.page
    def closing() -> Any:
        response = flask.Response(iter(["x"]))
        response.call_on_close(lambda: log.warning("closed"))
        return response

    @flasks.page
    def file() -> Any:
        return flask.send_file(__file__)

    @flasks.page
    def boom() -> Any:
        raise LookupError("boom")

    app.teardown_request(lambda error: log.warning("down"))
    app.after_request(lambda response: log.warning("after") or response)
    app.testing = False
    client = app.test_client()
    with asok_trace.stamp_logging():
        for path in ("/inner", "/nested", "/stream", "/closing", "/file", "/boom", "/none"):
            for method in ("GET", "HEAD"):
                # What Flask's own client does not close, Python complains of.
                left_open = isolate and path != "/file"
                for buffered in (True, not left_open):
                    client.open(path, method=method, buffered=buffered)
                flasks.ask(path, method)
        with client:
            client.get("/inner")
            log.warning("goes on in %s", flask.request.path)
            client.get("/stream").get_data()
            log.warning("goes on in %s", flask.request.path)
        with app.test_request_context("/by-hand"):
            log.warning("by hand")
            client.get("/inner")
            log.warning("by hand")
        client.get("/inner")
    gc.collect()
    flasks.handle.undo()
    assert leaks() == []


@pytest.mark.parametrize("isolate", [True, False])
def test_what_asok_does(site: Site, call: Any, tracer: Any, isolate: bool) -> None:
    """Nested and hand-made requests, errors, receivers that log."""
    log = logging.getLogger("shop")

    @site.view
    def nested(request: Any) -> str:
        with request_context(Request(sites.environ("/other"))):
            log.warning("other")
        return sites.wsgi(site.app, "/plain").body.decode()

    @site.view
    def boom(request: Any) -> str:
        raise LookupError("boom")

    def receiver(sender: Any, **_: Any) -> None:
        log.warning("finished")

    handle = asok_trace.instrument(site.app, isolate=isolate, level="strict")
    request_finished.connect(receiver)
    try:
        with asok_trace.stamp_logging():
            for path in ("/plain", "/nested", "/boom", "/none/such") * 2:
                for method in ("GET", "HEAD"):
                    call(site.app, path, method=method)
    finally:
        request_finished.disconnect(receiver)
        handle.undo()
    assert leaks() == []


# --- containment -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["Found", "_report", "view", "_bound"])
def test_a_fault_of_ours(
    site: Site,
    call: Any,
    faults: list[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """A request that leaks is served as if nobody looked."""

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("ours")

    @site.view
    def leaky(request: Any) -> str:
        structlog.contextvars.bind_contextvars(cart=7)
        return "leaky"

    monkeypatch.setattr(judge, part, broken)
    handle = asok_trace.instrument(site.app, level="strict")
    for _ in range(2):
        assert copy_context().run(sites.wsgi, site.app, "/leaky").body == b"leaky"
    handle.undo()
    [record] = faults
    assert "looking at what a request leaves behind" in record.getMessage()
    assert leaks() == []

"""`instrument` gives the application back as it was, and keeps no request alive. needs: asok"""

import asyncio
import contextlib
import gc
import inspect
import logging
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from asok.context import request_context
from asok.request import Request
from asok.testing import TestClient

import asok_trace
from asok_trace.core.scope import ACTIVE
from asok_trace.gateway import wsgi as gateway
from tests.gateway import sites
from tests.gateway.sites import Line, Reply, Site, Started, named, say

Call = Callable[..., Reply]

ENTRIES = ("_wsgi_call", "_asgi_call", "_build_environ_from_asgi", "_resolve_request_page")


# --- requests are freed ---------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only reference counts free anything: a circle of ours would be seen."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _page(site: Site) -> None:
    site.views["plain"] = lambda request: say("inside") or "plain"


def _stream(site: Site) -> None:
    site.views["plain"] = lambda request: (say("inside") or "x" for _ in range(3))


def _failing(site: Site) -> None:
    def fail(request: Any) -> Any:
        say("inside")
        request.abort(404)

    site.views["plain"] = fail


def _boom(site: Site) -> None:
    def boom(request: Any) -> Any:
        raise LookupError

    site.views["plain"] = boom


def _login(site: Site) -> None:
    def login(request: Any) -> Any:
        request.user = SimpleNamespace(id=1, request=None)
        say("inside")
        asok_trace.bind(tenant=5)
        return "x"

    site.views["plain"] = login


def _nested(site: Site) -> None:
    def nested(request: Any) -> Any:
        with request_context(Request(sites.environ("/other"))):
            say("inside")
        return TestClient(site.app).get("/inner").text

    site.views.update(plain=nested, inner=lambda request: say("inner") or "inner")


VIEWS = [_page, _stream, _failing, _boom, _login, _nested]
HOW: dict[str, Callable[[Site], object]] = {
    "bare": lambda site: None,
    "inject alone": lambda site: None,
    "instrumented": lambda site: asok_trace.instrument(site.app),
    "not isolated": lambda site: asok_trace.instrument(site.app, isolate=False),
    "with a resolver": lambda site: asok_trace.instrument(site.app, user=lambda request: 7),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
@pytest.mark.parametrize("how", HOW)
def test_a_request_is_freed_with_its_response(
    site: Site, call: Call, request: pytest.FixtureRequest, how: str, view: Callable[[Site], None]
) -> None:
    """By its reference count alone, as it is without us."""
    if how != "bare":
        request.getfixturevalue("lines")
    HOW[how](site)
    view(site)
    kept: list[weakref.ref[Any]] = []
    original = site.views["plain"]

    def remembering(request: Any) -> Any:
        kept.append(weakref.ref(request))
        return original(request)

    site.views["plain"] = remembering
    call(site.app)
    assert [reference() for reference in kept] == [None]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["exhaust", "close", "drop"])
@pytest.mark.parametrize("isolate", [True, False])
def test_a_streamed_request_is_freed(site: Site, end: str, isolate: bool) -> None:
    """However its body ends; while it is streamed, it is there."""
    asok = site.app._wsgi_call
    kept: list[weakref.ref[Any]] = []

    def streaming(environ: dict[str, Any], start_response: Any) -> Any:
        asok(environ, start_response)
        return (chunk for chunk in [b"1", b"2"])

    site.app._wsgi_call = streaming
    site.views["plain"] = lambda request: kept.append(weakref.ref(request)) or "x"
    asok_trace.instrument(site.app, isolate=isolate)
    body = site.app(sites.environ(), Started())
    next(body)
    assert kept[0]() is not None
    if end == "exhaust":
        list(body)
    elif end == "close":
        body.close()
    else:
        del body
        gateway._end_dropped()  # as the next request does
    assert kept[0]() is None


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", HOW)
def test_a_request_whose_error_escaped_is_freed(site: Site, how: str) -> None:
    """As soon as the server has dropped the exception."""
    HOW[how](site)
    kept: list[weakref.ref[Any]] = []

    @site.view
    def page(request: Any) -> Any:
        kept.append(weakref.ref(request))
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        sites.wsgi(site.app, "/page")
    assert kept[0]() is None


@pytest.mark.usefixtures("no_collector")
def test_an_error_that_escaped_an_asgi_call_is_freed(site: Site) -> None:
    """No circle of ours between it, its traceback and our frames."""

    class MarkedError(Exception):
        pass

    kept: list[weakref.ref[Any]] = []

    def made() -> MarkedError:
        error = MarkedError()
        kept.append(weakref.ref(error))
        return error

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise made()

    site.app._asgi_call = failing
    asok_trace.instrument(site.app)
    # By hand: an event loop keeps the exceptions of its tasks.
    coroutine = site.app(sites.asgi_scope(), sites.receiving(), None)
    with contextlib.suppress(MarkedError):
        coroutine.send(None)
    assert kept[0]() is None


@pytest.mark.usefixtures("no_collector")
def test_the_body_is_freed_with_its_wrapper(site: Site) -> None:
    """No circle of ours between a body, its call and its context."""

    class Body(list[bytes]):
        pass

    kept: list[weakref.ref[Any]] = []

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        made = Body([b"x"])
        kept.append(weakref.ref(made))
        return made

    site.app._wsgi_call = serve
    asok_trace.instrument(site.app)
    assert sites.wsgi(site.app).body == b"x"
    assert kept[0]() is None


@pytest.mark.usefixtures("no_collector")
def test_a_scope_outlives_its_request_alone(site: Site, call: Call) -> None:
    """Kept by a thread or a line, it holds text: not the request."""
    asok_trace.instrument(site.app)
    scopes: list[Any] = []
    kept: list[weakref.ref[Any]] = []
    site.views["plain"] = lambda request: (
        scopes.append(asok_trace.current()) or kept.append(weakref.ref(request)) or "x"
    )
    call(site.app)
    assert scopes[0].fields["path"] == "/plain"
    assert not scopes[0].open
    assert kept[0]() is None


# --- there and back ---------------------------------------------------------------------------


def test_undo_gives_the_application_back(site: Site, call: Call, lines: list[Line]) -> None:
    """Nothing is left on the object; no header, no line."""
    assert call(site.app).ids == []
    before = dict(vars(site.app))
    handle = asok_trace.instrument(site.app)
    assert len(call(site.app).ids) == 1
    handle.undo()
    handle.undo()
    assert vars(site.app) == before
    assert not before.keys() & {*ENTRIES, "_asok_trace"}
    lines.clear()
    assert call(site.app).ids == []
    assert lines == []


def test_undo_gives_somebody_elses_wrapper_back(site: Site) -> None:
    """One that was there before us is what is there after us."""
    asok = site.app._wsgi_call

    def theirs(environ: Any, start_response: Any) -> Any:
        return asok(environ, start_response)

    site.app._wsgi_call = theirs
    asok_trace.instrument(site.app).undo()
    assert site.app._wsgi_call is theirs


def test_undo_under_a_later_wrapper(site: Site, lines: list[Line]) -> None:
    """It cannot be taken out: it passes everything through, and the wrapper stays."""
    handle = asok_trace.instrument(site.app)
    ours = {"_wsgi_call": site.app._wsgi_call, "_asgi_call": site.app._asgi_call}
    passed: list[str] = []

    def wsgi(*args: Any) -> Any:
        passed.append("wsgi")
        return ours["_wsgi_call"](*args)

    async def asgi(*args: Any) -> Any:
        passed.append("asgi")
        return await ours["_asgi_call"](*args)

    site.app._wsgi_call, site.app._asgi_call = wsgi, asgi
    for client in sites.CLIENTS.values():
        assert len(client(site.app).ids) == 1
    handle.undo()
    assert site.app._wsgi_call is wsgi
    lines.clear()
    for client in sites.CLIENTS.values():
        assert client(site.app).ids == []
    assert lines == []
    assert passed == ["wsgi", "asgi"] * 2
    with asok_trace.instrument(site.app):
        for client in sites.CLIENTS.values():
            assert len(client(site.app).ids) == 1
    assert len(lines) == 2
    assert site.app._wsgi_call is wsgi


def test_undo_while_a_request_is_in_flight(site: Site, call: Call, lines: list[Line]) -> None:
    """It ends as it began: with its header, its id and its line."""
    handle = asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        handle.undo()
        say("after undo")
        return "page"

    reply = call(site.app, "/page")
    assert [line["event"] for line in lines] == ["after undo", "request"]
    assert {line["request_id"] for line in lines} == set(reply.ids)
    assert ACTIVE.get() is None


def test_undo_while_a_body_is_streamed(site: Site, lines: list[Line]) -> None:
    """The rest of it still belongs to the request."""
    asok = site.app._wsgi_call

    def streaming(environ: dict[str, Any], start_response: Any) -> Any:
        asok(environ, start_response)
        return (say("step") or b"x" for _ in range(2))

    site.app._wsgi_call = streaming
    handle = asok_trace.instrument(site.app)
    body = site.app(sites.environ(), Started())
    next(body)
    handle.undo()
    list(body)
    assert [line["event"] for line in lines] == ["step", "step", "request"]
    assert len({line["request_id"] for line in lines}) == 1


def test_instrumenting_twice(site: Site, call: Call, lines: list[Line]) -> None:
    """The same handle, one header, one line; also by a second call with the same settings."""
    handle = asok_trace.instrument(site.app, isolate=False)
    assert asok_trace.instrument(site.app) is handle
    assert asok_trace.instrument(site.app, isolate=False) is handle
    assert len(call(site.app).ids) == 1
    assert len(lines) == 1
    handle.undo()
    assert asok_trace.instrument(site.app) is not handle


def test_instrumenting_twice_differently(site: Site) -> None:
    """Refused, with the settings there are, the reason and the remedy."""
    asok_trace.instrument(site.app, isolate=False)
    with pytest.raises(asok_trace.ConfigError) as refused:
        asok_trace.instrument(site.app, isolate=True)
    text = str(refused.value)
    assert "instrumented already" in text
    assert "isolate=False" in text
    assert "undo()" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"isolated": True}, ["isolated=True", "is not a setting", "isolate"]),
        ({"isolate": "maybe"}, ["isolate='maybe'", "neither on nor off", "True or False"]),
        ({"user": 7}, ["user=7", "cannot be called", "function"]),
        ({"user": "no.such:thing"}, ["no.such:thing", "cannot be imported", "package.module"]),
        (
            {"request_id_header": "X-\r\nY"},
            ["request_id_header", "not a header name", "X-Request-ID"],
        ),
        ({"request_id_header": "X-É"}, ["X-É", "not a header name"]),
        ({"exclude": 5}, ["exclude=5", "not a list", "/health"]),
    ],
)
def test_a_bad_setting_is_refused_at_once(
    site: Site, settings: dict[str, Any], said: list[str]
) -> None:
    """With the value, the reason and the remedy; the application is untouched."""
    before = dict(vars(site.app))
    with pytest.raises(asok_trace.ConfigError) as refused:
        asok_trace.instrument(site.app, **settings)
    assert all(part in str(refused.value) for part in said)
    assert vars(site.app) == before


def test_the_application_stays_what_it_is(site: Site) -> None:
    """The same object, of the same class; servers that look at it see what they saw."""
    app, signature = site.app, inspect.signature(type(site.app).__call__)
    handle = asok_trace.instrument(app)
    assert handle.app is app
    assert type(app).__name__ == "Asok"
    assert inspect.signature(type(app).__call__) == signature
    assert inspect.iscoroutinefunction(app._asgi_call)
    assert not inspect.iscoroutinefunction(app._wsgi_call)

    async def serve() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(sites.asgi_scope())(sites.receiving(), send)  # as ASGI 2
        return sent

    assert len(sites.replied(asyncio.run(serve())).ids) == 1


def test_a_second_setup_of_the_application(site: Site, call: Call) -> None:
    """Asok's commands run ``setup()`` again: it does not undo us."""
    asok_trace.instrument(site.app)
    site.app.setup()
    site.app._session_store.stop_cleanup_timer()
    assert len(call(site.app).ids) == 1


def test_asoks_handlers_do_not_matter(site: Site, lines: list[Line]) -> None:
    """Asok clears the handlers of its logger; the lines of the view go on."""
    logging.getLogger("asok").handlers.clear()
    asok_trace.instrument(site.app)
    site.views["plain"] = lambda request: say("inside") or "plain"
    [request_id] = sites.wsgi(site.app).ids
    assert named(lines, "inside")["request_id"] == request_id

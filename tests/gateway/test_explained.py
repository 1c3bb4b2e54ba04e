"""A view whose work elsewhere finds no request is told why: on the exception, in the log, on the
span, and by one finding.

needs: asok, flask, quart
"""

import asyncio
import io
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import flask
import pytest
import quart
import structlog
from asok import current_request
from asok.context import RequestProxy, request_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from asok_trace.core import findings
from asok_trace.core.finding import Finding
from tests.gateway import sites
from tests.gateway.sites import Reply, Site
from tests.gateway.sockets import Sockets, ask

SECONDS = 30

Call = Callable[..., Reply]


@pytest.fixture(autouse=True)
def nothing_found() -> Iterator[None]:
    findings.clear()
    yield
    findings.clear()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What a tracer provider, global for one test, has ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the standard library's logging writes, with its tracebacks."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logging.getLogger().addHandler(handler)
    yield out
    logging.getLogger().removeHandler(handler)


def found() -> Finding:
    """The only one there is."""
    [one] = asok_trace.findings()
    return one


def flask_app(view: Callable[[], Any], **settings: Any) -> flask.Flask:
    app = flask.Flask("explained")
    app.add_url_rule("/cart", "cart", view, methods=["POST"])
    asok_trace.instrument(app, **settings)
    return app


def post(app: Any) -> tuple[int, str]:
    """Ask for it; the status and the request id."""
    if isinstance(app, flask.Flask):
        reply = app.test_client().post("/cart")
        reply.get_data()
        return reply.status_code, reply.headers["X-Request-ID"]

    async def ask() -> tuple[int, str]:
        answer = await app.test_client().post("/cart")
        return answer.status_code, answer.headers["X-Request-ID"]

    return asyncio.run(ask())


def quart_app(view: Callable[[], Any], **settings: Any) -> quart.Quart:
    app = quart.Quart("explained")
    app.add_url_rule("/cart", "cart", view, methods=["POST"])
    asok_trace.instrument(app, **settings)
    return app


def charge_flask() -> str:
    return flask.request.path


def charge_quart() -> str:
    return quart.request.path


def flask_pool() -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(charge_flask).result(SECONDS)


async def quart_pool() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, charge_quart)


async def flask_async() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, charge_flask)


APPS: dict[str, tuple[Callable[..., Any], Any]] = {
    "flask": (flask_app, flask_pool),
    "flask, async": (flask_app, flask_async),
    "quart": (quart_app, quart_pool),
}
EACH = pytest.mark.parametrize("kind", APPS)


def assert_told(text: str, log: io.StringIO, spans: InMemorySpanExporter) -> None:
    """The log's traceback and the server span's say ``text``."""
    assert text in log.getvalue()
    [server] = [one for one in spans.get_finished_spans() if one.kind.name == "SERVER"]
    [event] = [one for one in server.events if one.name == "exception"]
    assert text in str((event.attributes or {})["exception.stacktrace"])


@EACH
def test_a_future_raises_it_in_the_view(
    kind: str, log: io.StringIO, spans: InMemorySpanExporter
) -> None:
    """Nobody watched: it says in which function of another thread it was, whose request got it,
    and how to learn more."""
    make, view = APPS[kind]
    status, request_id = post(make(view, threads="off"))
    assert status == 500
    work = "charge_quart" if kind == "quart" else "charge_flask"
    assert_told(
        f"{work}() ran in another thread, where no request was current; request {request_id} POST "
        f"/cart got its error from there. Hand over asok_trace.wrap({work}) where it is started; "
        f'asok_trace.propagate_threads("watch") tells where that is.',
        log,
        spans,
    )
    one = found()
    assert (one.slug, one.count, one.request_id, one.path) == ("lost", 1, request_id, "POST /cart")
    assert one.callsite.endswith(f" {work}")


@EACH
def test_watched_it_says_where_it_was_started(
    kind: str, log: io.StringIO, spans: InMemorySpanExporter
) -> None:
    """Once, though the job, the future, the framework and the gateway see it."""
    make, view = APPS[kind]
    status, request_id = post(make(view, threads="watch"))
    assert status == 500
    assert_told(f"during request {request_id} POST /cart, without its context", log, spans)
    assert log.getvalue().count("without its context. Hand over") == 1
    one = found()
    assert (one.slug, one.count, one.request_id, one.path) == ("lost", 1, request_id, "POST /cart")
    assert one.origin is not None
    assert view.__name__ in one.origin


@EACH
def test_carried_there_is_nothing_to_explain(kind: str) -> None:
    """The view works."""
    make, view = APPS[kind]
    assert post(make(view, threads="carry"))[0] == 200
    assert asok_trace.findings() == []


def test_to_thread_carries_it() -> None:
    """asyncio does so itself."""

    async def view() -> str:
        return await asyncio.to_thread(charge_quart)

    assert post(quart_app(view))[0] == 200
    assert asok_trace.findings() == []


def test_a_plain_body_of_flask() -> None:
    """It is iterated when Flask has put its request away: the error says what to return instead,
    and that works."""

    def rows() -> Iterator[str]:
        yield flask.request.path

    app = flask_app(rows)
    with pytest.raises(RuntimeError) as caught:
        app.test_client().post("/cart").get_data()
    [note] = caught.value.__notes__
    assert note.startswith("rows() is a body of request ")
    assert "Return asok_trace.wrap_stream(rows(...)) from the view" in note
    assert found().callsite.endswith(" rows")
    findings.clear()
    app = flask_app(lambda: flask.Response(asok_trace.wrap_stream(rows())))
    assert app.test_client().post("/cart").get_data() == b"/cart"
    assert asok_trace.findings() == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_plain_body_of_quart(asynchronous: bool, log: io.StringIO) -> None:
    """As of Flask; sync ones are iterated in a thread of their own."""

    async def rows_async() -> Any:
        yield quart.request.path

    def rows() -> Iterator[str]:
        yield quart.request.path

    async def view() -> Any:
        return rows_async() if asynchronous else rows()

    # From 0.23 on, Quart handles a request in a task group.
    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        post(quart_app(view))
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    [note] = error.__notes__
    assert " is a body of request " in note
    assert found().slug == "lost"


def test_a_task_of_its_own_context() -> None:
    """Awaited by the view, and yet in an empty context."""

    async def work() -> str:
        return quart.request.path

    async def view() -> str:
        return await asyncio.create_task(work(), context=Context())

    seen: list[BaseException] = []
    app = quart_app(view)
    app.register_error_handler(RuntimeError, partial(_noting, seen))
    assert post(app)[0] == 500
    [note] = seen[0].__notes__
    assert "POST /cart was served, but it was not current in " in note
    assert found().count == 1


def test_a_task_group() -> None:
    """The error in the group is the one that is explained."""

    async def work() -> str:
        return await quart_pool()

    async def view() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
        return "never"

    seen: list[Any] = []
    app = quart_app(view)
    app.register_error_handler(ExceptionGroup, partial(_noting, seen))
    post(app)
    [group] = seen
    assert not hasattr(group, "__notes__")
    [error] = group.exceptions
    assert "ran in another thread" in error.__notes__[0]
    assert found().callsite.endswith(" charge_quart")


def test_the_application_is_another_context() -> None:
    """``current_app`` where there is none is no request's, and is left alone."""

    def view() -> str:
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(lambda: flask.current_app.name).result(SECONDS))

    app = flask_app(view)
    app.testing = True
    with pytest.raises(RuntimeError, match="application context") as caught:
        app.test_client().post("/cart")
    assert not hasattr(caught.value, "__notes__")
    assert asok_trace.findings() == []


def test_a_websocket_in_a_view() -> None:
    """A mistake of another sort."""

    async def view() -> str:
        return quart.websocket.path

    seen: list[BaseException] = []
    app = quart_app(view)
    app.register_error_handler(RuntimeError, partial(_noting, seen))
    post(app)
    assert not hasattr(seen[0], "__notes__")
    assert asok_trace.findings() == []


def test_structlog_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as a dict."""
    out: list[Any] = []

    def view() -> str:
        try:
            return flask_pool()
        except RuntimeError as error:
            # It has passed nobody by now who could know.
            with pytest.raises(RuntimeError):
                asok_trace.wrap(_reraise)(error)
            text, mapping = (
                structlog.processors.format_exc_info,
                structlog.processors.dict_tracebacks,
            )
            out.append(text(None, "error", {"exc_info": error}))
            out.append(mapping(None, "error", {"exc_info": error}))
        return "page"

    post(flask_app(view))
    assert len(out) == 2
    for event in out:
        assert "ran in another thread, where no request was current" in str(event["exception"])


def _reraise(error: BaseException) -> None:
    raise error


def _noting(seen: list[Any], error: BaseException) -> tuple[str, int]:
    """Make a page of ``error``."""
    seen.append(error)
    return "oh", 500


# Asok.


def charge() -> str:
    return str(current_request.path)


def asok_pool(request: Any) -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(charge).result(SECONDS)


@pytest.mark.parametrize("errors", [False, True], ids=["as it passes", "at the raise"])
def test_a_pool_of_asoks_view(
    site: Site, call: Call, errors: bool, log: io.StringIO, spans: InMemorySpanExporter
) -> None:
    """The same, wherever it is explained."""
    site.views["cart"] = asok_pool
    with asok_trace.instrument(site.app, errors=errors, threads="watch"):
        reply = call(site.app, "/cart")
    [request_id] = reply.ids
    assert reply.status == 500
    said = f"charge() was started at {__file__}:"
    [server] = [one for one in spans.get_finished_spans() if one.kind.name == "SERVER"]
    [event] = [one for one in server.events if one.name == "exception"]
    trace_text = str((event.attributes or {})["exception.stacktrace"])
    assert said in trace_text
    assert f"during request {request_id} GET /cart, without its context" in trace_text
    one = found()
    assert (one.slug, one.count, one.request_id, one.path) == ("lost", 1, request_id, "GET /cart")
    assert one.callsite.endswith(" charge")


def test_at_the_raise_also_what_is_caught(site: Site) -> None:
    """An access that raised is one, whatever is made of it; also where nobody watches."""
    seen: list[Any] = []

    def asks() -> None:
        try:
            seen.append(current_request.path)
        except RuntimeError as error:
            seen.append(error.__notes__)
        try:
            hasattr(current_request, "path")
        except RuntimeError as error:
            seen.append(error.__notes__)

    def page(request: Any) -> str:
        thread = threading.Thread(target=asks)
        thread.start()
        thread.join(SECONDS)
        return "page"

    site.views["page"] = page
    with asok_trace.instrument(site.app, errors=True):
        assert sites.wsgi(site.app, "/page").status == 200
    assert len(seen) == 2
    for [note] in seen:
        assert note.startswith("No request is current in ")
        assert "asks)" in note
    assert [(one.slug, one.count) for one in asok_trace.findings()] == [("lost", 1)] * 2


@pytest.mark.parametrize(
    ("settings", "replaced"),
    [
        ({}, False),
        ({"level": "strict"}, True),
        ({"errors": True}, True),
        ({"level": "strict", "errors": False}, False),
        ({"level": "off"}, False),
    ],
)
def test_when_asoks_method_is_replaced(
    make_site: Callable[[], Site], settings: dict[str, Any], replaced: bool
) -> None:
    """At ``strict``, or as ``errors`` says; for several applications once, until the last."""
    before = vars(RequestProxy)["_get_current_object"]
    first, second = make_site(), make_site()
    with asok_trace.instrument(first.app, **settings):
        ours = vars(RequestProxy)["_get_current_object"]
        assert (ours is not before) is replaced
        with asok_trace.instrument(second.app, **settings):
            assert vars(RequestProxy)["_get_current_object"] is ours
        assert vars(RequestProxy)["_get_current_object"] is ours
    assert vars(RequestProxy)["_get_current_object"] is before


def test_in_a_request_it_is_as_before(site: Site, call: Call) -> None:
    """The proxy reads, writes and deletes; and says nothing."""

    def page(request: Any) -> str:
        current_request.cart = 5
        assert current_request.cart == request.cart == 5
        del current_request.cart
        assert current_request._get_current_object() is request
        assert bool(current_request)
        return str(current_request.path)

    site.views["page"] = page
    with asok_trace.instrument(site.app, errors=True):
        assert call(site.app, "/page").body == b"/page"
    assert asok_trace.findings() == []


def test_a_context_that_is_left_elsewhere(site: Site, call: Call) -> None:
    """Asok's ``request_context``, entered in a copy of the context: a ``foreign`` finding of this
    request, at the program's line."""

    def page(request: Any) -> str:
        managed = request_context(request)
        copy_context().run(managed.__enter__)
        managed.__exit__(None, None, None)
        return "page"

    site.views["page"] = page
    with asok_trace.instrument(site.app):
        reply = call(site.app, "/page")
    assert reply.status == 500
    [one] = [one for one in asok_trace.findings() if one.slug == "foreign"]
    assert "the ContextVar 'request' was reset in another context" in one.message
    assert one.callsite.endswith(" page")
    assert (one.request_id, one.path, one.count) == (reply.ids[0], "GET /page", 1)


def test_a_websocket_handler_of_asok(site: Site, log: io.StringIO) -> None:
    """The server swallows its error and logs it: with the note."""
    sockets = Sockets(site.app)

    @sockets.server.on("/chat")
    def heard(connection: Any, text: str) -> None:
        try:
            asok_pool(None)
        finally:
            connection.send(text)

    try:
        with asok_trace.instrument(sockets.server), sockets.connect() as connection:
            assert ask(connection, "hello") == "hello"
    finally:
        sockets.stop()
    assert "charge() ran in another thread, where no request was current" in log.getvalue()
    assert found().path == "message /chat"

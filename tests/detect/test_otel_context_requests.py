"""The strict runtime context in requests: one mistake, one finding; and none where there is none.

needs: asok, asgiref, flask, quart
"""

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import opentelemetry.context as api
import opentelemetry.trace
import pytest
import quart
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider

import asok_trace
from asok_trace.core import findings
from asok_trace.detect import attachments
from tests.detect.strict import complaints, line, only, strict_context, tracer
from tests.gateway import sites

Get = Callable[[str], int]


@pytest.fixture(autouse=True)
def strict(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry with our context, tracing; it never complains by itself."""
    before = opentelemetry.trace._TRACER_PROVIDER
    opentelemetry.trace._TRACER_PROVIDER = TracerProvider()
    try:
        with strict_context():
            yield
    finally:
        opentelemetry.trace._TRACER_PROVIDER = before
    assert complaints(caplog) == []


def _works() -> str:
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        token = api.attach(baggage.set_baggage("shop", "1"))
        try:
            return "fine"
        finally:
            api.detach(token)


def _leaves_a_span() -> str:
    for name in ("first", "second"):
        api.attach(trace.set_span_in_context(tracer.start_span(name)))  # left
    return "left"


def _leaves_baggage() -> str:
    api.attach(baggage.set_baggage("shop", "1"))  # forgotten
    return "left"


_held: list[Any] = []


def _leaves_a_token() -> str:
    _held.append(api.attach(trace.set_span_in_context(tracer.start_span("held"))))  # left
    return "left"


def _detaches_elsewhere() -> str:
    token = api.attach(trace.set_span_in_context(tracer.start_span("moved")))  # opened
    contextvars.copy_context().run(api.detach, token)  # closed
    _held.append(token)
    return "left"


def _stream() -> Iterator[str]:
    with tracer.start_as_current_span("stream"):
        yield "a"
        with tracer.start_as_current_span("step"):
            yield "b"


VIEWS = {
    "works": _works,
    "span": _leaves_a_span,
    "baggage": _leaves_baggage,
    "token": _leaves_a_token,
    "moved": _detaches_elsewhere,
}


def _flask() -> Get:
    app = flask.Flask("shop")
    for name, view in VIEWS.items():
        app.add_url_rule(f"/{name}", name, view)
    app.add_url_rule("/stream", "stream", lambda: flask.Response(_stream()))
    app.add_url_rule("/held", "held", lambda: flask.Response(flask.stream_with_context(_stream())))
    asok_trace.instrument(app)
    return lambda path: app.test_client().get(path, buffered=True).status_code


def _quart() -> Get:
    app = quart.Quart("shop")
    for name, view in VIEWS.items():
        app.add_url_rule(f"/{name}", name, _awaited(view))

    async def stream() -> AsyncIterator[str]:
        with tracer.start_as_current_span("stream"):
            yield "a"
            await asyncio.sleep(0)
            yield "b"

    async def streamed() -> quart.Response:
        return quart.Response(stream())

    app.add_url_rule("/stream", "stream", streamed)
    asok_trace.instrument(app)

    async def get(path: str) -> int:
        return (await app.test_client().get(path)).status_code

    return lambda path: asyncio.run(get(path))


def _awaited(view: Callable[[], str]) -> Callable[[], Any]:
    async def awaited() -> str:
        await asyncio.sleep(0)
        return view()

    return awaited


@pytest.fixture(params=["flask", "quart", "wsgi", "asgi"])
def get(request: pytest.FixtureRequest, tmp_path: Path) -> Get:
    """Asks an instrumented site of each framework: of Asok's, over WSGI and ASGI."""
    get = _get(request.param, tmp_path)
    get.__name__ = request.param
    return get


def _get(name: str, tmp_path: Path) -> Any:
    if name == "flask":
        return _flask()
    if name == "quart":
        return _quart()
    site = sites.Site(tmp_path)
    for path, view in VIEWS.items():
        site.views[path] = lambda request, view=view: view()
    site.views["stream"] = lambda request: _stream()
    asok_trace.instrument(site.app)
    client = sites.CLIENTS[name]
    return lambda path: client(site.app, path).status


@pytest.mark.parametrize("path", ["/works", "/stream"])
def test_what_is_right_is_no_finding(get: Get, path: str) -> None:
    """Of the views' nor of the gateways' own attaching, streams included."""
    assert [get(path), get(path)] == [200, 200]
    gc.collect()
    assert findings.findings() == []


def test_a_stream_with_its_request_is_no_finding() -> None:
    """Flask's stream_with_context() enters and leaves more than once."""
    assert _flask()("/held") == 200
    gc.collect()
    assert findings.findings() == []


@pytest.mark.parametrize(("path", "view"), [("/span", _leaves_a_span), ("/token", _leaves_a_token)])
def test_a_span_that_is_left_attached_is_one_finding(get: Get, path: str, view: Any) -> None:
    """However often it is attached, and whatever becomes of its token: it tells who did it."""
    assert [get(path), get(path)] == [200, 200]
    _held.clear()
    gc.collect()
    found = only()
    if get.__name__ in ("flask", "wsgi"):
        assert found.slug == "bleed"
        assert found.count == 2
        assert f"attached to its context at {line(view, '# left')}" in found.message
    else:  # the framework runs the view in a context of its own, which no gateway sees
        assert (found.slug, found.count) == ("unclosed", 4 if path == "/span" else 2)
        assert found.callsite == f"{line(view, '# left')} {view.__name__}"


def test_baggage_that_is_left_attached_is_unclosed(get: Get) -> None:
    """The gateway speaks of spans alone."""
    assert get("/baggage") == 200
    gc.collect()
    found = only()
    assert found.slug == "unclosed"
    assert found.callsite == f"{line(_leaves_baggage, '# forgotten')} _leaves_baggage"
    assert found.path == "GET /baggage"
    assert found.request_id


def test_a_span_detached_elsewhere_is_not_left_behind_as_well(get: Get) -> None:
    """It is still attached when the request ends: the same mistake."""
    assert get("/moved") == 200
    _held.clear()
    gc.collect()
    found = only()
    assert found.slug == "foreign"
    assert found.callsite == f"{line(_detaches_elsewhere, '# closed')} _detaches_elsewhere"
    assert found.origin is not None
    assert line(_detaches_elsewhere, "# opened") in found.origin
    assert found.path == "GET /moved"
    assert not attachments.dropped

"""Requests are measured as OpenTelemetry's HTTP conventions say, with labels of which there is an
end, and with an exemplar that leads to the trace.

needs: asok, flask, opentelemetry.instrumentation.flask, quart, waitress
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
import quart
from opentelemetry import trace
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiMiddleware
from opentelemetry.metrics import NoOpMeterProvider, _internal
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import asok_trace
from asok_trace.gateway import wsgi
from asok_trace.stamp import metrics
from tests.gateway import sites
from tests.gateway.sites import Site
from tests.metrics.conftest import ACTIVE, DURATION, Measured
from tests.programs import run

Faults = list[logging.LogRecord]


def flask_app() -> flask.Flask:
    """Pages that answer, fail, and stream."""
    app = flask.Flask("shop")

    @app.get("/items/<int:number>")
    def item(number: int) -> str:
        return str(number)

    @app.get("/boom")
    def boom() -> str:
        raise LookupError("boom")

    @app.get("/teapot")
    def teapot() -> tuple[str, int]:
        return "teapot", 418

    @app.get("/down")
    def down() -> tuple[str, int]:
        return "down", 503

    return app


def quart_app() -> quart.Quart:
    """The same, and a WebSocket."""
    app = quart.Quart("shop")

    @app.get("/items/<int:number>")
    async def item(number: int) -> str:
        return str(number)

    @app.get("/boom")
    async def boom() -> str:
        raise LookupError("boom")

    @app.get("/teapot")
    async def teapot() -> tuple[str, int]:
        return "teapot", 418

    @app.get("/down")
    async def down() -> tuple[str, int]:
        return "down", 503

    @app.websocket("/chat")
    async def chat() -> None:
        await quart.websocket.accept()
        await quart.websocket.receive()

    @app.websocket("/closed")
    async def closed() -> None:
        quart.abort(403)

    return app


def ask(app: Any, path: str, method: str = "GET") -> int:
    """Ask with the application's own test client, which reads the whole answer."""
    if isinstance(app, flask.Flask):
        return app.test_client().open(path, method=method, buffered=True).status_code

    async def asking() -> int:
        return (await app.test_client().open(path, method=method)).status_code

    return asyncio.run(asking())


@pytest.fixture(params=[flask_app, quart_app], ids=["flask", "quart"])
def app(request: pytest.FixtureRequest) -> Any:
    """An instrumented application."""
    made = request.param()
    asok_trace.instrument(made)
    return made


def counted(measured: Measured) -> dict[tuple[Any, ...], int]:
    """Route, status and error -> how many requests."""
    keys = ("http.route", "http.response.status_code", "error.type")
    return {
        tuple(point.attributes.get(key) for key in keys): point.count
        for point in measured.points(DURATION)
    }


def test_requests_by_route_status_and_error(measured: Measured, app: Any) -> None:
    """One series a route, whatever the path; none for what has no route. A 4xx is no error, a 5xx
    is one: by the class of the exception, or by the status."""
    for number in range(5):
        assert ask(app, f"/items/{number}") == 200
        assert ask(app, f"/nowhere/{number}") == 404
    assert (ask(app, "/boom"), ask(app, "/teapot"), ask(app, "/down")) == (500, 418, 503)
    assert counted(measured) == {
        ("/items/<int:number>", 200, None): 5,
        (None, 404, None): 5,
        ("/boom", 500, "LookupError"): 1,
        ("/teapot", 418, None): 1,
        ("/down", 503, "503"): 1,
    }
    for point in measured.points(DURATION):
        assert point.attributes["http.request.method"] == "GET"
        assert point.attributes["url.scheme"] == "http"
        assert point.attributes["network.protocol.version"] == "1.1"
        assert point.explicit_bounds[0] == 0.005
        assert point.explicit_bounds[-1] == 10
        assert 0 < point.sum < 60
    assert measured.active() == 0


def test_pages_of_asok(measured: Measured, site: Site) -> None:
    """Under both of its interfaces: the route is the page's pattern, and an error page's request
    has none of its own."""
    asok_trace.instrument(site.app)
    for call in sites.CLIENTS.values():
        assert call(site.app, "/plain").status == 200
        assert call(site.app, "/other").status == 200
        assert call(site.app, "/none/such").status == 404
    assert counted(measured) == {("/[name]", 200, None): 4, (None, 404, None): 2}
    assert measured.active() == 0


def test_no_label_without_an_end(measured: Measured, site: Site) -> None:
    """Method, scheme and protocol come from the network: what is not known is one label or none.
    No path, address, user or id is in any."""
    asok_trace.instrument(site.app)
    for number in range(20):
        environ = sites.environ(f"/p{number}", method=f"M{number}", peer=f"203.0.113.{number}")
        environ["wsgi.url_scheme"] = f"s{number}"
        environ["SERVER_PROTOCOL"] = f"HTTP/1.{number + 2}"
        environ["HTTP_X_REQUEST_ID"] = f"id-{number}"
        body = site.app(environ, sites.Started())
        b"".join(body)
        getattr(body, "close", lambda: None)()
    [point] = measured.points(DURATION)
    assert point.count == 20
    assert dict(point.attributes).keys() <= {
        *("http.request.method", "http.response.status_code", "http.route", "url.scheme")
    }
    assert point.attributes["http.request.method"] == "_OTHER"
    assert point.attributes["url.scheme"] == "_OTHER"


def test_active_while_it_is_served(measured: Measured) -> None:
    """Counted from its first byte to the last of its body, in which time it is one."""
    app = flask_app()
    seen: list[int] = []

    @app.get("/stream")
    def stream() -> flask.Response:
        def parts() -> Iterator[str]:
            seen.append(measured.active())
            yield "a"
            assert not measured.points(DURATION)
            yield "b"

        seen.append(measured.active())
        return flask.Response(parts())

    asok_trace.instrument(app)
    assert ask(app, "/stream") == 200
    assert seen == [1, 1]
    assert measured.active() == 0
    assert counted(measured) == {("/stream", 200, None): 1}


def test_a_body_that_is_thrown_away(measured: Measured) -> None:
    """It is served no more, once that is noticed."""
    app = flask_app()
    app.add_url_rule("/stream", view_func=lambda: (part for part in "ab"), endpoint="stream")
    asok_trace.instrument(app, level="off")
    body = app(sites.environ("/stream"), sites.Started())
    next(iter(body))
    assert measured.active() == 1
    del body
    wsgi._end_dropped()
    assert measured.active() == 0
    assert sum(counted(measured).values()) == 1


def test_exemplars_lead_to_the_trace(
    measured: Measured, spans: InMemorySpanExporter, app: Any
) -> None:
    """A request's server span is the exemplar of its duration; that a view's own span ended in
    between changes nothing."""
    view = trace.get_tracer("shop")
    app.before_request(lambda: view.start_span("work").end())
    assert ask(app, "/items/7") == 200
    [server] = [span for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER]
    [point] = measured.points(DURATION)
    [exemplar] = point.exemplars
    assert exemplar.trace_id == server.context.trace_id
    assert exemplar.span_id == server.context.span_id
    assert exemplar.value == point.sum


def test_without_a_tracer_there_is_no_exemplar(measured: Measured, app: Any) -> None:
    """Metrics need no tracer provider."""
    assert ask(app, "/items/7") == 200
    [point] = measured.points(DURATION)
    assert not point.exemplars


def test_the_server_span_of_another_instrumentation(
    measured: Measured, spans: InMemorySpanExporter
) -> None:
    """Who starts the span, around the application, measures as well."""
    app = flask_app()
    asok_trace.instrument(app)
    app.wsgi_app = WsgiMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    assert ask(app, "/items/7") == 200
    assert not measured.points(DURATION)
    assert measured.active() == 0
    assert measured.points("http.server.duration", "opentelemetry.instrumentation.wsgi")


@pytest.mark.parametrize("stable", ["", "http", "http/dup"])
def test_a_metric_is_counted_once(stable: str) -> None:
    """Flask's own instrumentation, told to use the stable conventions, measures by the same name;
    else by one of its own. Either way a request counts once."""
    run(
        """
import flask, asok_trace
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
trace.set_tracer_provider(TracerProvider())
app = flask.Flask("shop")
app.add_url_rule("/", view_func=lambda: "home")
FlaskInstrumentor().instrument_app(app)
asok_trace.instrument(app, access_log=False)
for _ in range(3):
    assert app.test_client().get("/", buffered=True).status_code == 200
[resource] = reader.get_metrics_data().resource_metrics
counts = [
    point.count
    for scope in resource.scope_metrics
    for metric in scope.metrics
    if metric.name == "http.server.request.duration"
    for point in metric.data.data_points
]
assert counts == [3], counts
""",
        OTEL_SEMCONV_STABILITY_OPT_IN=stable,
    )


def test_a_forked_child_serves_nothing_of_its_parents() -> None:
    """What its parent was at when it forked ends there."""
    run(
        """
import os, flask, asok_trace
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

def active():
    [resource] = reader.get_metrics_data().resource_metrics
    found = [m for s in resource.scope_metrics for m in s.metrics]
    [found] = [m for m in found if m.name == "http.server.active_requests"]
    return [point.value for point in found.data.data_points]

app = flask.Flask("shop")

@app.get("/")
def home():
    assert active() == [1]
    child = os.fork()
    if child == 0:
        os._exit(active() != [0])
    assert os.waitpid(child, 0)[1] == 0
    return "home"

asok_trace.instrument(app, access_log=False)
assert app.test_client().get("/", buffered=True).status_code == 200
assert active() == [0]
"""
    )


def test_a_process_begins_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads serve its first requests: it listens on one port."""
    begun: list[str] = []
    monkeypatch.setattr(metrics, "at_first", [lambda: begun.append("once")])
    monkeypatch.setattr(metrics, "_begun", {})
    together = threading.Barrier(8)

    def first() -> None:
        together.wait(20)
        metrics._begin()

    threads = [threading.Thread(target=first) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun == ["once"]


def test_a_server_span_made_by_hand(measured: Measured, spans: InMemorySpanExporter) -> None:
    """Whoever made it measures nothing: we do, and it is the exemplar."""
    app = flask_app()
    asok_trace.instrument(app)
    tracer = trace.get_tracer("shop.edge")
    with tracer.start_as_current_span("edge", kind=SpanKind.SERVER) as span:
        assert ask(app, "/items/7") == 200
    [point] = measured.points(DURATION)
    [exemplar] = point.exemplars
    assert exemplar.span_id == span.get_span_context().span_id
    assert measured.active() == 0


@pytest.mark.parametrize(
    ("path", "expected"), [("/chat", {}), ("/closed", {("/closed", 403, None): 1})]
)
def test_websockets(measured: Measured, path: str, expected: dict[Any, int]) -> None:
    """A handshake that is refused is an HTTP request; a connection is none that ever ends."""
    app = quart_app()
    asok_trace.instrument(app)
    active: list[int] = []

    async def connecting() -> None:
        async with app.test_client().websocket(path) as socket:
            await socket.send("hello")
            active.append(measured.active())

    with pytest.raises(quart.testing.WebsocketResponseError) if expected else _nothing():
        asyncio.run(connecting())
    assert not any(active)
    assert counted(measured) == expected
    assert measured.active() == 0


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_a_provider_that_does_nothing(monkeypatch: pytest.MonkeyPatch, app: Any) -> None:
    """The API's no-op says that nobody measures: there are no instruments."""
    monkeypatch.setattr(_internal, "_METER_PROVIDER", NoOpMeterProvider())
    monkeypatch.setattr(metrics, "Instruments", None)
    assert ask(app, "/items/7") == 200


def test_nothing_is_loaded_where_nobody_measures() -> None:
    """Requests of an instrumented application load neither our module nor OpenTelemetry's."""
    run(
        """
import sys, flask, asok_trace
app = flask.Flask("shop")
app.add_url_rule("/", view_func=lambda: "home")
asok_trace.instrument(app, access_log=False)
assert app.test_client().get("/", buffered=True).status_code == 200
assert "asok_trace.stamp.metrics" not in sys.modules
assert not [name for name in sys.modules if name.startswith("opentelemetry.metrics")]
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""
    )


def test_a_provider_that_is_set_later(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request asks: the first after it is counted, with the instruments of that one."""
    app = flask_app()
    asok_trace.instrument(app)
    assert ask(app, "/items/1") == 200
    other = Measured()
    monkeypatch.setattr(_internal, "_METER_PROVIDER", other.provider)
    assert ask(app, "/items/2") == 200
    assert [sum(counted(one).values()) for one in (measured, other)] == [1, 1]
    other.provider.shutdown()


def broken(*_args: Any, **_kwargs: Any) -> Any:
    """In place of any function of ours."""
    raise ValueError("broken")


PARTS: dict[str, tuple[Any, str]] = {
    "making": (metrics, "instruments"),
    "beginning": (metrics.Instruments, "begun"),
    "ending": (metrics.Measured, "ended"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_broken_part(
    measured: Measured,
    site: Site,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Requests go on without it; it is reported once, and nothing is measured any more."""
    owner, attribute = PARTS[part]
    monkeypatch.setattr(owner, attribute, broken)
    asok_trace.instrument(site.app)
    call: Callable[..., Any]
    for call in (sites.wsgi, sites.asgi, sites.wsgi):
        assert call(site.app, "/plain").status == 200
    [record] = faults
    assert "measuring requests and jobs failed" in record.getMessage()
    assert not measured.points(DURATION)
    assert part == "ending" or not measured.points(ACTIVE)

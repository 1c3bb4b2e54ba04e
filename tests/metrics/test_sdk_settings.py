"""What the SDK can be told about metrics holds for ours, and they end when they are undone.

needs: flask, opentelemetry.exporter.prometheus
"""

import re
import threading
from typing import Any

import pytest
from opentelemetry.metrics import _internal
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from tests.metrics.conftest import ACTIVE, DURATION, FINDINGS, Measured
from tests.metrics.ports import free
from tests.metrics.test_requests import ask, flask_app
from tests.programs import run


def provided(monkeypatch: pytest.MonkeyPatch, measured: Measured, **how: Any) -> None:
    """A meter provider of the program's own."""
    measured._reader = InMemoryMetricReader()
    measured.provider.shutdown()
    measured.provider = MeterProvider([measured._reader], **how)
    monkeypatch.setattr(_internal, "_METER_PROVIDER", measured.provider)


def test_views(monkeypatch: pytest.MonkeyPatch, measured: Measured) -> None:
    """What a program wants otherwise: other buckets, fewer labels, a metric less."""
    buckets = ExplicitBucketHistogramAggregation([1.0, 60.0])
    views = [
        View(instrument_name=DURATION, aggregation=buckets, attribute_keys={"http.route"}),
        View(instrument_name=ACTIVE, aggregation=DropAggregation()),
    ]
    provided(monkeypatch, measured, views=views)
    app = flask_app()
    asok_trace.instrument(app)
    ask(app, "/items/7")
    ask(app, "/down")
    points = {point.attributes["http.route"]: point for point in measured.points(DURATION)}
    assert points.keys() == {"/items/<int:number>", "/down"}
    for point in points.values():
        assert list(point.explicit_bounds) == [1.0, 60.0]
        assert len(point.attributes) == 1
    assert not measured.points(ACTIVE)
    assert measured.points(FINDINGS)


def test_exemplars_that_nobody_wants(
    monkeypatch: pytest.MonkeyPatch, measured: Measured, spans: InMemorySpanExporter
) -> None:
    """The filter has its say; the trace is there as ever."""
    provided(monkeypatch, measured, exemplar_filter=AlwaysOffExemplarFilter())
    app = flask_app()
    asok_trace.instrument(app)
    ask(app, "/items/7")
    [point] = measured.points(DURATION)
    assert not point.exemplars
    assert len(spans.get_finished_spans()) == 1


def test_the_variable_for_exemplars_and_the_one_that_disables_all() -> None:
    """``OTEL_METRICS_EXEMPLAR_FILTER`` is read by the provider that `setup` makes; with
    ``OTEL_SDK_DISABLED`` there is none, and nobody listens for Prometheus."""
    program = """
import threading
import asok_trace, flask
from opentelemetry import metrics
app = flask.Flask("shop")
app.add_url_rule("/", view_func=lambda: "home")
asok_trace.setup(app, service="shop", access_log=False)
assert app.test_client().get("/", buffered=True).text == "home"
flush = getattr(metrics.get_meter_provider(), "force_flush", None)
print(type(metrics.get_meter_provider()).__name__)
print([thread.name for thread in threading.enumerate()])
if flush is not None:
    flush()
"""
    console = {"OTEL_METRICS_EXPORTER": "console", "OTEL_TRACES_EXPORTER": "console"}
    traced = run(program, **console)
    assert re.search(r'"exemplars": \[\s*\{[^}]*\}[^]]*"trace_id"', traced)
    plain = run(program, OTEL_METRICS_EXEMPLAR_FILTER="always_off", **console)
    assert '"http.server.request.duration"' in plain
    assert set(re.findall(r'"exemplars": \[\s*(\S)', plain)) == {"]"}
    disabled = run(
        program,
        OTEL_SDK_DISABLED="true",
        OTEL_METRICS_EXPORTER="prometheus",
        OTEL_EXPORTER_PROMETHEUS_PORT=str(free(1)),
    )
    assert disabled.splitlines()[1] == "['MainThread']"


def test_undo(measured: Measured) -> None:
    """What comes later is not counted; what is being served then is, to its end."""
    app = flask_app()
    served, let = threading.Event(), threading.Event()

    @app.get("/long")
    def long() -> str:
        served.set()
        assert let.wait(30)
        return "long"

    handle = asok_trace.instrument(app)
    serving = threading.Thread(target=ask, args=(app, "/long"))
    serving.start()
    assert served.wait(30)
    assert measured.active() == 1
    handle.undo()
    assert ask(app, "/items/7") == 200
    let.set()
    serving.join(30)
    assert measured.active() == 0
    assert [point.attributes["http.route"] for point in measured.points(DURATION)] == ["/long"]

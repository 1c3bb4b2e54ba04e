"""The names of metrics, as the official exporter for Prometheus writes them.

needs: flask, opentelemetry.exporter.prometheus
"""

from grafana import names
from tests.programs import run

PROGRAM = """
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry import metrics
metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
import flask
import asok_trace
from asok_trace.core import finding, findings
app = flask.Flask("shop")
app.add_url_rule("/", "index", lambda: "hello")
app.add_url_rule("/broken", "broken", lambda: 1 / 0)
asok_trace.setup(app)
for path in "/", "/broken":
    app.test_client().get(path).close()
def work():
    raise ValueError
with asok_trace.scope("nightly"):
    work = asok_trace.wrap(work, outlive=True)
try:
    work()
except ValueError:
    pass
findings.count(finding.LATE)
from prometheus_client import generate_latest
print(generate_latest().decode())
"""


def test_metrics_and_labels() -> None:
    """Each that dashboards and rules ask for is there; the job is what Prometheus adds."""
    said = run(PROGRAM, OTEL_TRACES_EXPORTER="console")
    for metric in names.METRICS:
        assert f"\n{metric}{{" in said, metric
    for label in set(names.LABELS) - {names.SERVICE}:
        assert f'{label}="' in said, label

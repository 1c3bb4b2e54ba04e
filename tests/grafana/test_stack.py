"""An application behind the real collector, Jaeger, Loki and Prometheus, as grafana/ sets them up.

needs: flask, grafana_foundation_sdk, jsonschema, opentelemetry.exporter.otlp.proto.http, yaml
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from grafana import names, queries
from tests.grafana import stack
from tests.metrics import ports
from tests.programs import run

SERVICE = "stack-shop"
OWN_ID = "from-the-client"

# Requests that log lines, fail, lose their context, and leave late work behind; and work by the
# clock.
PROGRAM = """
import contextlib, logging, threading, time
import flask
import asok_trace

app = flask.Flask("shop")
log = logging.getLogger("shop")
logging.basicConfig(level=logging.INFO)
handle = asok_trace.setup(app, threads="watch")
over = threading.Event()
done = threading.Event()

@app.get("/pay")
def pay():
    log.info("paying")
    return "paid"

@app.get("/broken")
def broken():
    log.warning("about to fail")
    raise ValueError("broken")

@app.get("/late")
def late():
    def work():
        over.wait(30)
        log.info("still at it")
        done.set()
    threading.Thread(target=asok_trace.wrap(work)).start()
    return "soon"

@app.get("/lost")
def lost():
    lines = threading.Thread(target=lambda: log.info("whose?"))
    lines.start()
    lines.join()
    return "gone"

def charge(fails):
    log.info("charging")
    if fails:
        raise LookupError("no such card")

@app.get("/later")
def later():
    charged = asok_trace.wrap(charge, outlive=True)
    threading.Thread(target=charged, args=(False,)).start()
    return "soon"

def at_night(fails):
    with asok_trace.scope("nightly"):
        charged = asok_trace.wrap(charge, outlive=True)
    with contextlib.suppress(LookupError):
        charged(fails)

client = app.test_client()
for turn in range(4):
    client.get("/pay").close()
    client.get("/broken").close()
    client.get("/lost").close()
    client.get("/later").close()
    at_night(fails=True)
    time.sleep(1.2)  # between two readings of the metrics
ours = client.get("/pay", headers={"X-Request-ID": "from-the-client"})
ours.close()
made = client.get("/pay")
print("made=" + made.headers["X-Request-ID"])
made.close()
client.get("/late").close()
over.set()
done.wait(30)
from opentelemetry import metrics
metrics.get_meter_provider().force_flush()
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[stack.Stack, str]]:
    """The stack that the program has sent to, and the id that one of its requests was given."""
    with stack.started(tmp_path_factory.mktemp("stack")) as up:
        said = run(
            PROGRAM,
            OTEL_SERVICE_NAME=SERVICE,
            OTEL_EXPORTER_OTLP_ENDPOINT=up.endpoint,
            OTEL_METRIC_EXPORT_INTERVAL="500",
        )
        made = re.search("made=([0-9a-f]{32})", said)
        assert made is not None
        stack.wait_for(lambda: up.lines(f'{{service_name="{SERVICE}"}}'), "no lines in Loki")
        stack.wait_for(lambda: len(up.traces(SERVICE)) > 10, "no traces in Jaeger")
        stack.wait_for(
            lambda: up.samples(f'{names.LATE_LINES}{{job="{SERVICE}"}} > 0'), "no metrics"
        )
        yield up, made[1]


def test_every_logql_of_the_dashboards_returns_data(seen: tuple[stack.Stack, str]) -> None:
    """For the run of the application, with what stands for the variables."""
    up, made = seen
    for query in queries.logql(service=SERVICE, request_id=made):
        found = up.rows(query.expr) if query.instant else up.lines(query.expr)
        assert found, query


def test_every_promql_of_the_dashboards_returns_data(seen: tuple[stack.Stack, str]) -> None:
    """What there was nothing of is zero: nothing was lost on its way."""
    up, _ = seen
    asked = queries.promql(service=SERVICE, __rate_interval="30s")

    def finite(query: queries.Query) -> bool:
        return any(math.isfinite(float(it["value"][1])) for it in up.samples(query.own))

    assert not [query for query in asked if not finite(query)]


def test_the_top_places_are_those_of_the_program(seen: tuple[stack.Stack, str]) -> None:
    """Where it lost its context, and where it was late, with the key to ignore each by."""
    up, _ = seen
    (query,) = (q for q in queries.logql(service=SERVICE) if q.panel == "Top places")
    found = {row["metric"]["finding"]: row["metric"] for row in up.rows(query.expr)}
    assert {"lost", "late"} <= found.keys()
    for slug, function in (("lost", "<lambda>"), ("late", "work")):
        assert found[slug]["service_name"] == SERVICE
        assert re.fullmatch(rf"\S+:\d+ .*{function}", found[slug]["finding_callsite"])
        assert found[slug]["finding_key"].startswith(f"{slug}:__main__.")


def test_ids_are_structured_metadata_and_no_labels(seen: tuple[stack.Stack, str]) -> None:
    """A stream is a service's, not a request's; the ids are found with its lines."""
    up, made = seen
    labels = stack.ask(f"{up.loki}/loki/api/v1/labels")["data"]
    assert labels == [names.LOKI_SERVICE]
    found = up.lines(f'{{service_name="{SERVICE}"}} | request_id="{made}"')
    said = {line for stream in found for _, line in stream["values"]}
    assert "paying" in said
    assert all(stream["stream"]["trace_id"] == made for stream in found)
    assert all(stream["stream"]["span_id"] for stream in found)


def test_from_a_line_to_its_trace_and_back(seen: tuple[stack.Stack, str]) -> None:
    """The id that the client sent finds its lines; these have the trace's id, by which Jaeger has
    it; its spans have the request's id again, as a search in Jaeger finds."""
    up, _ = seen
    found = up.lines(f'{{service_name=~".+"}} | request_id="{OWN_ID}"')
    (trace_id,) = {stream["stream"]["trace_id"] for stream in found}
    (trace,) = stack.ask(f"{up.jaeger}/api/traces/{trace_id}")["data"]
    tags = {tag["key"]: tag["value"] for span in trace["spans"] for tag in span["tags"]}
    assert tags["request.id"] == OWN_ID
    (searched,) = up.traces(SERVICE, **{"request.id": OWN_ID})
    assert searched["traceID"] == trace_id


def test_exemplars_lead_to_traces(seen: tuple[stack.Stack, str]) -> None:
    """Prometheus keeps with a duration the id of a trace that Jaeger has."""
    up, _ = seen

    def exemplars() -> list[dict[str, Any]]:
        answer = stack.ask(
            f"{up.prometheus}/api/v1/query_exemplars",
            query=f'{names.REQUEST_BUCKETS}{{job="{SERVICE}"}}',
            start=0,
            end=99999999999,
        )
        return [it for series in answer["data"] for it in series["exemplars"]]

    found = stack.wait_for(exemplars, "no exemplars")
    (trace,) = stack.ask(f"{up.jaeger}/api/traces/{found[0]['labels']['trace_id']}")["data"]
    assert any(span["operationName"].startswith("GET ") for span in trace["spans"])


def test_metrics_have_the_names_that_are_written_once(seen: tuple[stack.Stack, str]) -> None:
    """By way of the collector: each metric, and each label."""
    up, _ = seen
    for metric in names.METRICS:
        assert up.samples(f'{metric}{{job="{SERVICE}"}}'), metric
    found = up.samples(f'{{job="{SERVICE}"}}')
    assert {label for sample in found for label in sample["metric"]} >= set(names.LABELS)


def test_the_rules_are_loaded_and_fire(seen: tuple[stack.Stack, str]) -> None:
    """Half of the requests fail: the real Prometheus has the alert waiting for its five minutes."""
    up, _ = seen

    def states() -> dict[str, str]:
        groups = stack.ask(f"{up.prometheus}/api/v1/rules")["data"]["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}

    stack.wait_for(lambda: states()["RequestsFail"] == "pending", "no alert")
    assert json.dumps(states()).count("firing") == 0


def test_names_are_the_same_for_a_newer_prometheus(seen: tuple[stack.Stack, str]) -> None:
    """Prometheus 3, which the compose file runs, takes dots as well: it gets none."""
    up, _ = seen
    said = ports.fetched(up.metrics)
    assert said.rstrip().endswith("# EOF")
    assert set(names.METRICS) <= set(re.findall(r"^(\w+)\{", said, re.MULTILINE))

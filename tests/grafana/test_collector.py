"""The collector's configurations, by a collector: Jaeger's binary, which is one.

needs: yaml
"""

import json
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from asok_trace.core import names as wire
from tests import outside
from tests.grafana import stack

FILES = sorted((outside.GRAFANA / "collector").glob("*.yml"))

each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@each
def test_it_is_valid(path: Path) -> None:
    """Every component and each of its settings is known."""
    outside.run("jaeger", "validate", "--config", path)


def test_a_misspelt_setting_is_found(tmp_path: Path) -> None:
    """So the validation above says something."""
    text = FILES[0].read_text(encoding="utf-8").replace("enable_open_metrics", "open_metrics")
    (tmp_path / "wrong.yml").write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match="open_metrics"):
        outside.run("jaeger", "validate", "--config", tmp_path / "wrong.yml")


@each
def test_all_three_signals_pass(path: Path) -> None:
    """Traces, metrics and logs, each with a limit to the memory that it takes."""
    pipelines = yaml.safe_load(path.read_text(encoding="utf-8"))["service"]["pipelines"]
    assert pipelines.keys() == {"traces", "metrics", "logs"}
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in pipelines.values())


def spans(**attributes: str) -> dict[str, Any]:
    """What distinguishes a span of OTLP's JSON."""
    return {"attributes": [{"key": k, "value": {"stringValue": v}} for k, v in attributes.items()]}


TRACES: dict[str, dict[str, Any]] = {
    "quick": {},
    "failed": {"status": {"code": 2}},
    "slow": {"seconds": 2},
    "found": spans(**{wire.ATTRIBUTE_FINDING: "lost"}),
}


def test_what_is_of_interest_is_kept(tmp_path: Path) -> None:
    """production.yml, with no share of the others: traces with an error, a long one, and one with a
    finding reach Jaeger, and no other does."""
    with stack.started(tmp_path, "production.yml", KEEP_PERCENT="0", DECISION_WAIT="1s") as up:
        now = time.time_ns()
        for number, (name, special) in enumerate(TRACES.items(), 1):
            span = {
                "traceId": f"{number:032x}",
                "spanId": f"{number:016x}",
                "name": name,
                "kind": 2,
                "startTimeUnixNano": str(now),
                "endTimeUnixNano": str(now + 10**9 * special.get("seconds", 0) + 1000),
                **{key: value for key, value in special.items() if key != "seconds"},
            }
            service = {"key": "service.name", "value": {"stringValue": "sampled"}}
            body = {
                "resourceSpans": [
                    {"resource": {"attributes": [service]}, "scopeSpans": [{"spans": [span]}]}
                ]
            }
            headers = {"Content-Type": "application/json"}
            url = f"{up.endpoint}/v1/traces"
            urlopen(Request(url, json.dumps(body).encode(), headers), timeout=30).close()
        found = stack.wait_for(
            lambda: len(up.traces("sampled")) >= 3 and up.traces("sampled"), "too few traces"
        )
        # The quick one was the first to be decided on.
        kept = {span["operationName"] for trace in found for span in trace["spans"]}
        assert kept == {"failed", "slow", "found"}

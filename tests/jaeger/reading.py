"""A real Jaeger, and the traces that its interface would show."""

import json
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.queues.processes import WAIT_SECONDS, until


class Span(NamedTuple):
    """A span as Jaeger tells it."""

    name: str
    id: str
    trace_id: str
    parent: str | None
    links: list[tuple[str, str]]
    """Trace and span."""
    tags: dict[str, Any]
    logs: list[dict[str, Any]]
    service: str
    start: int
    end: int
    """Microseconds since the epoch."""


Trace = dict[str, Span]
"""The spans of a trace by their names."""


class Jaeger:
    """The query API of one that is running, and where it takes spans in."""

    def __init__(self, port: int, otlp_port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{otlp_port}"
        self.port = port

    def ask(self, path: str) -> Any:
        """What the API answers; nothing where it knows no such trace."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status in (200, 404), body
        return json.loads(body)["data"] if response.status == 200 else []

    def services(self) -> list[str]:
        """The services it has spans of."""
        return self.ask("/api/services") or []

    def trace(self, trace_id: str) -> list[Span]:
        """The spans with this trace id: what the search box finds."""
        traces = self.ask(f"/api/traces/{trace_id}")
        assert len(traces) <= 1
        return _spans(traces[0]) if traces else []

    def search(self, service: str, **tags: str) -> list[list[Span]]:
        """The traces with a span that has these tags; dots are written as two underscores."""
        wanted = {name.replace("__", "."): value for name, value in tags.items()}
        query = {"service": service, "limit": 500, "lookback": "1h", "tags": json.dumps(wanted)}
        return [_spans(trace) for trace in self.ask(f"/api/traces?{urlencode(query)}")]

    def until(self, trace_id: str, names: Sequence[str]) -> Trace:
        """Wait until a trace has spans of these names, and no others; return them by name."""
        wanted = sorted(names)

        def found() -> list[Span]:
            spans = self.trace(trace_id)
            assert len(spans) <= len(wanted), [span.name for span in spans]
            return spans if sorted(span.name for span in spans) == wanted else []

        spans = until(found, lambda: f"{wanted} in {[s.name for s in self.trace(trace_id)]}")
        return {span.name: span for span in spans}

    def until_found(self, service: str, **tags: str) -> list[list[Span]]:
        """Wait until a search finds something."""
        return until(lambda: self.search(service, **tags), lambda: f"{tags} in {self.services()}")


def _spans(trace: Mapping[str, Any]) -> list[Span]:
    return [_span(one, trace["processes"]) for one in trace["spans"]]


def _span(one: Mapping[str, Any], processes: Mapping[str, Any]) -> Span:
    def refers(kind: str) -> list[tuple[str, str]]:
        return [(r["traceID"], r["spanID"]) for r in one["references"] if r["refType"] == kind]

    parents = refers("CHILD_OF")
    assert len(parents) <= 1
    return Span(
        one["operationName"],
        one["spanID"],
        one["traceID"],
        parents[0][1] if parents else None,
        refers("FOLLOWS_FROM"),
        _values(one["tags"]),
        [_values(log["fields"]) for log in one["logs"]],
        processes[one["processID"]]["serviceName"],
        one["startTime"],
        one["startTime"] + one["duration"],
    )


def _values(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: pair["value"] for pair in pairs}

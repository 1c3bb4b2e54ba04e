"""A meter provider, and a tracer provider, for one test."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.gateway.conftest import faults as faults
from tests.gateway.conftest import make_site as make_site
from tests.gateway.conftest import site as site

DURATION = "http.server.request.duration"
ACTIVE = "http.server.active_requests"
JOBS = "asok_trace.job.duration"
FINDINGS = "asok_trace.findings"
LATE = "asok_trace.late_lines"


class Measured:
    """What was measured so far."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def points(self, name: str, scope: str = "asok_trace") -> list[Any]:
        """The data points of one metric of ``scope``."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for measured in resource.scope_metrics
            if measured.scope.name == scope
            for metric in measured.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def labels(self) -> set[tuple[str, Any]]:
        """Every label of every metric of ours."""
        names = (DURATION, ACTIVE, JOBS, FINDINGS, LATE)
        return {
            pair
            for name in names
            for point in self.points(name)
            for pair in point.attributes.items()
        }

    def active(self) -> int:
        """How many requests are being served."""
        return sum(point.value for point in self.points(ACTIVE))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measured]:
    """A meter provider that keeps what is measured."""
    made = Measured()
    monkeypatch.setattr(_internal, "_METER_PROVIDER", made.provider)
    assert metrics.get_meter_provider() is made.provider
    yield made
    made.provider.shutdown()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """A tracer provider, and the spans that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()

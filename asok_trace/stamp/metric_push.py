"""Metrics on their way out."""

from typing import Any

from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from asok_trace.stamp.exporting import METRICS, Watched
from asok_trace.stamp.outgoing import Outgoing


class MetricPush(Outgoing, PeriodicExportingMetricReader):
    """OpenTelemetry's reader that exports every minute (``OTEL_METRIC_EXPORT_INTERVAL``),
    watched."""

    def __init__(self, exporter: Any) -> None:
        self._watched = Watched(exporter, METRICS)
        super().__init__(self._watched)  # type: ignore[arg-type]  # acts as one

    def _shut_down(self, timeout_millis: int) -> None:
        PeriodicExportingMetricReader.shutdown(self, timeout_millis)

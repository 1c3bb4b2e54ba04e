"""Log lines on their way out."""

from typing import Any

from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

from asok_trace.stamp.exporting import LINES
from asok_trace.stamp.outgoing import Queue


class LineQueue(Queue, BatchLogRecordProcessor):
    """OpenTelemetry's batch processor, watched. When its queue is full
    (``OTEL_BLRP_MAX_QUEUE_SIZE``) a line is dropped."""

    def __init__(self, exporter: Any) -> None:
        super().__init__(self._watch(exporter, LINES))  # type: ignore[arg-type]  # acts as one

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Queue ``log_record``, if there is room."""
        if self._takes():
            super().on_emit(log_record)

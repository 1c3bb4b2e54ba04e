"""Log lines on their way out: never more than a queue holds, and nobody waits for a collector that
is not there."""

import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)

_SHUTDOWN_MILLIS = 5000


class LineQueue(BatchLogRecordProcessor):
    """OpenTelemetry's batch processor, in which a flush lasts as long as it may; and the end five
    seconds at the most, or one attempt once an export has failed. The SDK's own take as long as
    the collector does."""

    def __init__(self, exporter: Any) -> None:
        self._watched = _Watched(exporter)
        super().__init__(self._watched)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what was logged, in so many milliseconds at the most."""
        flushing = threading.Thread(target=super().force_flush, args=(timeout_millis,), daemon=True)
        try:
            flushing.start()
        except RuntimeError:  # the interpreter ends
            return super().force_flush(timeout_millis)
        flushing.join(timeout_millis / 1000)
        return not flushing.is_alive()

    def shutdown(self) -> None:
        """Export what is left, if it can be."""
        if self._watched.failing:
            self._watched.shutdown()
        self._batch_processor.shutdown(_SHUTDOWN_MILLIS)


class _Watched(LogRecordExporter):
    """An exporter of which it is known whether it fails."""

    def __init__(self, exporter: Any) -> None:
        self.failing = False
        self._exporter = exporter
        self._shut = False

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export ``batch``; nothing any more after the end."""
        result = LogRecordExportResult.FAILURE
        try:
            if not self._shut:
                result = self._exporter.export(batch)
        finally:
            self.failing = result is not LogRecordExportResult.SUCCESS
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return bool(self._exporter.force_flush(timeout_millis))

    def shutdown(self) -> None:
        """Shut the exporter down, once: what it waits for ends now."""
        if not self._shut:
            self._shut = True
            self._exporter.shutdown()

"""Spans on their way out."""

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from asok_trace.stamp.exporting import SPANS
from asok_trace.stamp.outgoing import Queue


class SpanQueue(Queue, BatchSpanProcessor):
    """OpenTelemetry's batch processor, watched. When its queue is full
    (``OTEL_BSP_MAX_QUEUE_SIZE``) a span that ends is dropped."""

    def __init__(self, exporter: Any) -> None:
        super().__init__(self._watch(exporter, SPANS))  # type: ignore[arg-type]  # acts as one

    def on_end(self, span: ReadableSpan) -> None:
        """Queue ``span``, if there is room."""
        context = span.get_span_context()
        # What is not sampled is not queued.
        if context is None or not context.trace_flags.sampled or self._takes():
            super().on_end(span)

    def _shut_down(self, timeout_millis: int) -> None:
        if hasattr(self, "_batch_processor"):
            super()._shut_down(timeout_millis)
        else:  # SDKs before 1.34: an attempt lasts as long as the exporter's timeout
            BatchSpanProcessor.shutdown(self)  # type: ignore[no-untyped-call]  # the SDK's

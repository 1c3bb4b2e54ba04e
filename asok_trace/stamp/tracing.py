"""Whether this process traces and measures at all: asked without importing OpenTelemetry."""

from importlib import import_module
from typing import Any, Final

from asok_trace.core.errors import Piece, contained
from asok_trace.frameworks import otel

tracing: Final = Piece("tracing requests")
tracing_work: Final = Piece("tracing tasks and jobs")
measuring: Final = Piece("measuring requests and jobs")
mirroring: Final = Piece("showing the framework's own spans in the trace")

# Our modules that start spans and measure, once they were needed.
_server_span: Any = None
_work_span: Any = None
_metrics: Any = None


def spans() -> Any:
    """Return `asok_trace.stamp.server_span` if a tracer provider was set up, else None.

    Asked once per request, since a program sets its provider when it likes.
    """
    global _server_span
    if not tracing.working or not otel.configured():
        return None
    if _server_span is None:
        import_module("asok_trace.stamp.marks").install()
        _server_span = import_module("asok_trace.stamp.server_span")
    return _server_span


def work_spans() -> Any:
    """Return `asok_trace.stamp.work_span` if a tracer provider was set up, else None."""
    global _work_span
    if not tracing_work.working or not otel.configured():
        return None
    if _work_span is None:
        _work_span = import_module("asok_trace.stamp.work_span")
    return _work_span


def meters() -> Any:
    """Return the `asok_trace.stamp.metrics.Instruments` of the process if a meter provider was set
    up, else None. Never raises an Exception."""
    return contained(measuring, _instruments) if otel.measured() else None


def _instruments() -> Any:
    global _metrics
    if _metrics is None:
        _metrics = import_module("asok_trace.stamp.metrics")
    return _metrics.instruments()

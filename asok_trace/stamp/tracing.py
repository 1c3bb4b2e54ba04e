"""Whether this process traces at all: asked without importing OpenTelemetry."""

from importlib import import_module
from typing import Any, Final

from asok_trace.core.errors import Piece
from asok_trace.frameworks import otel

tracing: Final = Piece("tracing requests")
tracing_work: Final = Piece("tracing tasks and jobs")

# Our modules that start spans, once they were needed.
_server_span: Any = None
_work_span: Any = None


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

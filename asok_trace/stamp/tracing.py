"""Whether this process traces at all: asked without importing OpenTelemetry."""

from importlib import import_module
from types import ModuleType
from typing import Any, Final

from asok_trace.core.errors import Piece
from asok_trace.frameworks import otel

tracing: Final = Piece("tracing requests")

# Our module that starts server spans, once it was needed.
_spans: ModuleType | None = None


def spans() -> Any:
    """Return `asok_trace.stamp.server_span` if a tracer provider was set up, else None.

    Asked once per request, since a program sets its provider when it likes.
    """
    global _spans
    if not tracing.working or not otel.configured():
        return None
    if _spans is None:
        _spans = import_module("asok_trace.stamp.server_span")
    return _spans

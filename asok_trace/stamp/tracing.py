"""Whether this process traces at all: asked without importing OpenTelemetry."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple

from asok_trace.core.errors import Piece
from asok_trace.frameworks import otel


class Facts(NamedTuple):
    """What a server says of a request, beside what its scope holds."""

    header: Callable[[str], str | None]
    scheme: str
    protocol: str
    """The version alone: ``1.1``, ``2``."""


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

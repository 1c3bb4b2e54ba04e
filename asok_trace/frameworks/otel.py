"""OpenTelemetry: which span is current, told without importing it."""

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from asok_trace.core import names
from asok_trace.core.scope import Fields, Live, Scope


def configured() -> bool:
    """Whether somebody has set a tracer provider that does something. Costs a dictionary
    look-up where nobody has."""
    api = sys.modules.get("opentelemetry.trace")
    # The variable behind get_tracer_provider(), which would look at the environment each time
    # and set up a provider itself. None, too, while the API is being imported.
    provider = getattr(api, "_TRACER_PROVIDER", None)
    return provider is not None and type(provider).__name__ != "NoOpTracerProvider"


def measured() -> bool:
    """Whether somebody has set a meter provider that does something, told as `configured` is."""
    api = sys.modules.get("opentelemetry.metrics._internal")
    provider = getattr(api, "_METER_PROVIDER", None)
    return provider is not None and type(provider).__name__ != "NoOpMeterProvider"


def measures(app: Any) -> bool:
    """Whether OpenTelemetry's own instrumentation of ``app`` measures requests by the names that we
    do, as it does if it is told to."""
    return getattr(app, "_is_instrumented_by_opentelemetry", False) is True and "http" in (
        os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")
    )


def current() -> Any:
    """Return OpenTelemetry's current context. Only where it is `configured`."""
    return _reader(sys.modules["opentelemetry.context"])()


def left(expected: Any) -> str | None:
    """Return the name of the span that is attached over the context ``expected``; None if that
    one is current, or what is attached has none of its own."""
    now = current()
    if now is expected:
        return None
    api: Any = sys.modules["opentelemetry.trace"]
    span = api.get_current_span(now)
    if span is api.get_current_span(expected) or not span.get_span_context().is_valid:
        return None
    return str(getattr(span, "name", "?"))


def strict() -> bool:
    """Whether OpenTelemetry's runtime context is ours, which looks at each attach and detach."""
    return hasattr(_runtime(), "attached")


def attached() -> Any:
    """Return who attached the current context, as `asok_trace.detect.attachments.Attached`; None
    if that is not known, or the runtime context is not `strict`."""
    who = getattr(_runtime(), "attached", None)
    return None if who is None else who()


def _runtime() -> Any:
    return getattr(sys.modules.get("opentelemetry.context"), "_RUNTIME_CONTEXT", None)


def line() -> Live | None:
    """Return how the lines of a scope opened now get the ids of their spans; None if nobody
    traces."""
    return _traced(sys.modules["opentelemetry.context"]) if configured() else None


@lru_cache(maxsize=1)
def _reader(api: Any) -> Callable[[], Any]:
    # The ContextVar itself where the plain runtime context is in use: get_current() is three
    # calls deep.
    variable = getattr(getattr(api, "_RUNTIME_CONTEXT", None), "_current_context", None)
    read: Callable[[], Any] = getattr(variable, "get", None) or api.get_current
    return read


@lru_cache(maxsize=1)
def _traced(api: Any) -> Live:
    read = _reader(api)

    def line(scope: Scope) -> Fields:
        live = scope._live
        fields = scope._fields if live is None else live(scope)
        context = read()
        # Most lines find what the line before them did. One tuple, because tasks that share a
        # scope have spans of their own.
        seen = scope._traced
        if seen is not None and seen[0] is context and seen[1] is fields:
            return seen[2]
        stamped = _with_ids(fields, context)
        if scope._open:  # a closed scope holds on to nothing
            scope._traced = (context, fields, stamped)
        return stamped

    return line


def _with_ids(fields: Fields, context: Any) -> Fields:
    api: Any = sys.modules["opentelemetry.trace"]
    span = api.get_current_span(context).get_span_context()
    if not span.is_valid:
        return fields
    return {
        **fields,
        names.TRACE_ID: api.format_trace_id(span.trace_id),
        names.SPAN_ID: api.format_span_id(span.span_id),
    }

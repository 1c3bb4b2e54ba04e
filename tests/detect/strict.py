"""The strict runtime context in place of the plain one, and where the lines of a test are."""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import opentelemetry.context
import pytest
from opentelemetry.sdk.trace import TracerProvider

from asok_trace.core import findings
from asok_trace.core.finding import Finding
from asok_trace.detect import attachments
from asok_trace.detect.otel_context import StrictContext
from asok_trace.frameworks import otel

tracer = TracerProvider().get_tracer("shop")


@contextmanager
def strict_context() -> Iterator[StrictContext]:
    """Have OpenTelemetry use a strict context; nothing is found yet."""
    plain = opentelemetry.context._RUNTIME_CONTEXT
    made = StrictContext()
    _use(made)
    try:
        yield made
    finally:
        _use(plain)


def _use(runtime: Any) -> None:
    opentelemetry.context._RUNTIME_CONTEXT = runtime
    otel._reader.cache_clear()
    otel._traced.cache_clear()
    findings.clear()
    attachments.dropped.clear()
    attachments._here.last = None


def line(function: Callable[..., Any], mark: str) -> str:
    """``file:line`` of the one line of ``function`` that ends in ``mark``."""
    source, first = inspect.getsourcelines(function)
    [number] = [first + i for i, text in enumerate(source) if text.rstrip().endswith(mark)]
    return f"tests/detect/{inspect.getsourcefile(function).rpartition('/')[2]}:{number}"


def only() -> Finding:
    """The one finding that there is."""
    [found] = findings.findings()
    return found


def complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What OpenTelemetry has logged."""
    return [record for record in caplog.records if record.name.startswith("opentelemetry")]

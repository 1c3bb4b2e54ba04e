"""Applications as they are and instrumented, their lines, and the faults we report of ourselves."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from tests.gateway.conftest import faults, lines

__all__ = ["faults", "hook", "instrumented", "lines", "sound", "spans"]


@pytest.fixture
def sound(faults: list[logging.LogRecord]) -> Iterator[None]:
    """At the end, nothing of ours has failed."""
    yield
    assert [record.getMessage() for record in faults] == []


@pytest.fixture(params=[False, True], ids=["bare", "instrumented"])
def instrumented(request: pytest.FixtureRequest) -> bool:
    """The test runs once without `instrument`, once with it."""
    return bool(request.param)


@pytest.fixture
def hook(instrumented: bool) -> Iterator[Callable[..., Any]]:
    """Call it with an application, to instrument it or leave it be; returns the application."""
    handles = []

    def maybe(app: Any, **settings: Any) -> Any:
        if instrumented:
            handles.append(asok_trace.instrument(app, **settings))
        return app

    yield maybe
    for handle in handles:
        handle.undo()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Spans are recorded from now on; call it for those that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield lambda: list(exporter.get_finished_spans())
    provider.shutdown()

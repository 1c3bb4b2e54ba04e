"""What the tests of this folder share: lines, and a thread that carries nothing."""

import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

Line = dict[str, Any]

SECONDS = 20
"""How long anything is waited for that must happen."""

mine: ContextVar[str] = ContextVar("mine", default="nobody's")
"""A variable of the program's own."""


def say(event: str, **keys: Any) -> None:
    """Log a line through structlog."""
    structlog.get_logger().info(event, **keys)


def named(lines: list[Line], event: str) -> Line:
    """The only line of this event."""
    [found] = [line for line in lines if line["event"] == event]
    return found


def ids(lines: list[Line], event: str) -> list[str | None]:
    """The request ids of the lines of this event, None where there is none."""
    return [line.get("request_id") for line in lines if line["event"] == event]


def elsewhere(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` in a thread of its own, in an empty context; what it returns or raises
    comes back."""
    returned: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(Context().run(function, *args, **kwargs))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(SECONDS)
    if raised:
        raise raised.pop()
    return returned.pop()


def span(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    """The only ended span of this name."""
    [found] = [span for span in spans.get_finished_spans() if span.name == name]
    return found

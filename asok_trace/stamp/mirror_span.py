"""A span of a framework's own tracing, as a span of OpenTelemetry."""

import contextvars
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from asok_trace.core import names, text
from asok_trace.stamp import events, server_span

# Attributes of the framework's server span that OpenTelemetry's has by newer names.
_OLD: Final = "http."
_EXCEPTION: Final = "exception"

_NANOSECONDS: Final = 1_000_000_000


class MirrorSpan:
    """The OpenTelemetry span that stands for one of the framework's, in which steps can be run.

    It is current while the framework's is; if that one is a ``server`` span, it is the one that
    the request has already, which is neither made current nor ended here.
    """

    __slots__ = ("_inside", "_lasts", "_server", "_span", "_token")

    def __init__(self, span: trace.Span, inside: otel_context.Context, *, server: bool) -> None:
        self._span = span
        self._inside = inside
        self._server = server
        self._lasts = False
        self._token: Any = None

    def enter(self) -> None:
        """Make it current."""
        if not self._server:
            self._token = otel_context.attach(self._inside)

    def leave(self) -> None:
        """Make current what was before."""
        token, self._token = self._token, None
        if token is not None:
            otel_context.detach(token)

    def failed(self, error: BaseException) -> None:
        """Say that it has."""
        if not self._server:
            server_span._failed(self._span, error)

    def end(self, theirs: Any) -> None:
        """Take over what was put on the framework's span, which has ended; end with it, unless it
        `lasts`."""
        span = self._span
        for key, value in theirs.attributes.items():
            if not (self._server and key.startswith(_OLD)):
                span.set_attribute(key, events.plain(value))
        for event in theirs.events:
            if event["name"] != _EXCEPTION:  # `failed` has told it, with its traceback
                at = int(event["time"] * _NANOSECONDS)
                span.add_event(event["name"], _values(event["attributes"]), at)
        if self._server:
            return
        if theirs.status == "error":
            span.set_status(Status(StatusCode.ERROR))
        if not self._lasts:
            self._end()

    def _end(self) -> None:
        self._span.end()
        # The framework keeps its spans, and with them this one.
        self._span = NonRecordingSpan(self._span.get_span_context())
        self._inside = otel_context.Context()

    def lasts(self) -> None:
        """Do not end with the framework's span: what it measures goes on after it."""
        self._lasts = True

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """End when this does."""
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            self._end()

    # As `contextvars.Context` has them, for what runs step by step.

    def run(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call ``function`` with this span current, or the one that the last step left so."""
        token = otel_context.attach(self._inside)
        try:
            return function(*args)
        finally:
            self._inside = otel_context.get_current()
            otel_context.detach(token)

    def copy(self) -> contextvars.Context:
        """Return a copy of the caller's context, in which each step is run."""
        return contextvars.copy_context()


def start(
    theirs: Any,
    parent: MirrorSpan | None,
    *,
    remote: tuple[str, str] | None = None,
    server: bool = False,
) -> MirrorSpan:
    """Start the span that stands for ``theirs``.

    Args:
        theirs: the framework's span, which has just been started.
        parent: that of the framework's span which is its parent; None for the current one.
        remote: the trace and span that it goes on from, if nothing is current: in hexadecimal.
        server: whether it is the server span, of which a request has one already.
    """
    current = otel_context.get_current()
    around = trace.get_current_span(current)
    if server and around.is_recording():
        around.set_attribute(names.ATTRIBUTE_ASOK_TRACE, theirs.trace_id)
        return MirrorSpan(around, current, server=True)
    base = current
    if parent is not None:
        base = trace.set_span_in_context(parent._span, current)
    elif remote is not None and not around.get_span_context().is_valid:
        found = SpanContext(
            int(remote[0], 16), int(remote[1], 16), True, TraceFlags(TraceFlags.SAMPLED)
        )
        base = trace.set_span_in_context(NonRecordingSpan(found), current)
    span = server_span._tracer().start_span(
        text.clean(theirs.name, text.NAME_LIMIT),
        base,
        SpanKind.INTERNAL,
        {names.ATTRIBUTE_ASOK_TRACE: theirs.trace_id},
    )
    return MirrorSpan(span, trace.set_span_in_context(span, current), server=False)


def _values(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: events.plain(value) for key, value in attributes.items()}

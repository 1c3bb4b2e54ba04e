"""A span of a framework's own tracing, as a span of OpenTelemetry."""

import contextvars
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from asok_trace.core import names, text
from asok_trace.core.errors import attempted, contained
from asok_trace.stamp import events, server_span, tracing

# Attributes of the framework's server span that OpenTelemetry's has by newer names.
_OLD: Final = "http."
_EXCEPTION: Final = "exception"

_NANOSECONDS: Final = 1_000_000_000

_propagator: Final = TraceContextTextMapPropagator()


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
        try:
            self._take_over(theirs)
        finally:
            if self._server or not self._lasts:
                self._end()

    def _take_over(self, theirs: Any) -> None:
        span = self._span
        for key, value in _values(theirs.attributes).items():
            if not (self._server and key.startswith(_OLD)):
                span.set_attribute(key, value)
        for event in list(theirs.events):
            name = events.as_text(event["name"], text.NAME_LIMIT)
            if name != _EXCEPTION:  # `failed` has told it, with its traceback
                at = int(event["time"] * _NANOSECONDS)
                span.add_event(name, _values(event["attributes"]), at)
        if theirs.status == "error" and not self._server:
            span.set_status(Status(StatusCode.ERROR))

    def _end(self) -> None:
        span = self._span
        # The framework keeps its spans, and with them this one.
        self._span = NonRecordingSpan(span.get_span_context())
        self._inside = otel_context.Context()
        if not self._server:
            span.end()

    def lasts(self) -> None:
        """Do not end with the framework's span: what it measures goes on after it."""
        self._lasts = True

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """End when this does."""
        try:
            yield
        except Exception as error:
            attempted(tracing.mirroring, self.failed, error)
            raise
        finally:
            attempted(tracing.mirroring, self._end)

    # As `contextvars.Context` has them, for what runs step by step.

    def run(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call ``function`` with this span current, or the one that the last step left so."""
        token = contained(tracing.mirroring, otel_context.attach, self._inside)
        try:
            return function(*args)
        finally:
            if token is not None:
                attempted(tracing.mirroring, self._leave_step, token)

    def _leave_step(self, token: Any) -> None:
        self._inside = otel_context.get_current()
        otel_context.detach(token)

    def copy(self) -> contextvars.Context:
        """Return a copy of the caller's context, in which each step is run."""
        return contextvars.copy_context()


def start(theirs: Any, parent: MirrorSpan | None, *, continued: bool, server: bool) -> MirrorSpan:
    """Start the span that stands for ``theirs``.

    Args:
        theirs: the framework's span, which has just been started.
        parent: that of the framework's span which is its parent; None for the current one.
        continued: it was said which span, of which trace, it goes on from; which holds if nothing
            is current.
        server: whether it is the server span, of which a request has one already.
    """
    current = otel_context.get_current()
    around = trace.get_current_span(current)
    of = events.as_text(theirs.trace_id, text.NAME_LIMIT)
    if server and around.is_recording():
        around.set_attribute(names.ATTRIBUTE_ASOK_TRACE, of)
        return MirrorSpan(around, current, server=True)
    base = current
    if parent is not None:
        base = trace.set_span_in_context(parent._span, current)
    elif continued and not around.get_span_context().is_valid:
        # What is no id is passed over.
        header = f"00-{of}-{theirs.parent_span_id}-{theirs.trace_flags}"
        base = _propagator.extract({"traceparent": header}, current)
    span = server_span._tracer().start_span(
        events.as_text(theirs.name, text.NAME_LIMIT),
        base,
        SpanKind.INTERNAL,
        {names.ATTRIBUTE_ASOK_TRACE: of},
    )
    return MirrorSpan(span, trace.set_span_in_context(span, current), server=False)


def _values(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    # A copy: somebody may be adding some.
    return {
        events.as_text(key, text.NAME_LIMIT): events.plain(value)
        for key, value in dict(attributes).items()
    }

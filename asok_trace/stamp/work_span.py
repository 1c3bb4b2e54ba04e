"""The span of a unit of work that goes on from a request: a task, a job, a scheduled run."""

from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from asok_trace.core import names
from asok_trace.core.scope import Scope
from asok_trace.stamp import server_span

# What a queue carries is ours at both ends, whatever the process's propagators are.
_propagator = TraceContextTextMapPropagator()


class WorkSpan:
    """The span of one unit of work, current from `start` to `end`."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span, token: Any) -> None:
        self._span = span
        self._token = token

    def end(self, scope: Scope, error: BaseException | None, status: str | None) -> None:
        """End the span. Like a message's it has failed whatever was raised: there is no client
        that could have gone. To be called where it was started."""
        span = self._span
        try:
            if span.is_recording():
                user = scope._fields.get(names.USER)
                if user is not None:
                    span.set_attribute(names.ATTRIBUTE_USER, user)
                if status is not None:
                    span.set_attribute(names.ATTRIBUTE_JOB_STATUS, status)
                if error is not None:
                    server_span._failed(span, error)
        finally:
            otel_context.detach(self._token)
            span.end()


def start(
    scope: Scope,
    *,
    follows: bool = False,
    carrier: Mapping[str, str] | None = None,
    made: bool = False,
    consumer: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> WorkSpan:
    """Start the span of ``scope`` and make it current.

    It is a child of the current span, or of the one in ``carrier``. If the work ``follows`` a
    request that is over, it is a root with a link to it: a trace is over when its request is.

    Args:
        scope: the scope of the work.
        follows: whether what is current has ended.
        carrier: what came from another process, instead of what is current.
        made: whether the request id was made for it; that of a root span becomes the trace id.
        consumer: whether the work was taken from a queue.
        attributes: further ones.
    """
    if carrier is None:
        base = otel_context.get_current()
    else:
        base = _propagator.extract(carrier, Context())
    links: list[Link] = []
    around = trace.get_current_span(base).get_span_context()
    if follows and around.is_valid:
        links.append(Link(around))
        base = trace.set_span_in_context(INVALID_SPAN, base)
    root = made and not around.is_valid
    stamped: dict[str, Any] = {
        names.ATTRIBUTES.get(field, field): value
        for field, value in scope.fresh().items()
        if value is not None
    }
    span = server_span._tracer().start_span(
        scope._name or scope._kind,
        base,
        SpanKind.CONSUMER if consumer else SpanKind.INTERNAL,
        {**stamped, **(attributes or {})},
        links,
    )
    if root:
        server_span._share_id(scope, span)
    scope._span = span
    return WorkSpan(span, otel_context.attach(trace.set_span_in_context(span, base)))


def inject(carrier: dict[str, str]) -> None:
    """Put the current span into ``carrier``."""
    _propagator.inject(carrier)

"""Stamp every span started within a request, whoever starts it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes, AttributeValue

from asok_trace.core import names
from asok_trace.core.errors import Piece
from asok_trace.core.scope import Fields, Scope
from asok_trace.detect import leaks, orphans
from asok_trace.frameworks import lookup
from asok_trace.stamp import marks

stamping: Final = Piece("stamping spans")

# The fields that were turned into attributes last, and those: most spans that follow one
# another belong to one request, whose fields are one dict.
_last: tuple[Fields, dict[str, str]] | None = None


def _attributes(
    name: str, kind: SpanKind | None, parent: Context | None
) -> Mapping[str, AttributeValue] | None:
    """The attributes of a span started now; None outside any request, where nothing is amiss."""
    global _last
    scope = lookup.here()
    if scope is None or not scope._open:
        if kind is SpanKind.SERVER or kind is SpanKind.CONSUMER:
            scope = None  # it begins something new
        else:
            return _amiss(scope, name, parent)
    if scope is None:
        return None
    fields = scope.fresh()
    last = _last
    if last is not None and last[0] is fields:
        return last[1]
    attributes = {
        names.ATTRIBUTES.get(key, key): value for key, value in fields.items() if value is not None
    }
    _last = (fields, attributes)
    return attributes


def _amiss(
    scope: Scope | None, name: str, parent: Context | None
) -> Mapping[str, AttributeValue] | None:
    """The attributes of a span that is started outside any request, or after the end of its own."""
    frame = sys._getframe(2)
    if scope is None:
        found = trace.get_current_span(parent).get_span_context()
        site = orphans.span(name, frame, has_parent=found.is_valid)
        return None if site is None else marks.about(site)
    site, milliseconds = leaks.late_span(scope, name, frame)
    attributes: dict[str, AttributeValue] = {
        names.ATTRIBUTES.get(key, key): value
        for key, value in scope.fresh().items()
        if value is not None
    }
    if milliseconds is not None:
        attributes[names.ATTRIBUTES[names.LATE_MS]] = milliseconds
    if site is not None:
        attributes |= marks.about(site)
    return attributes


class SpanStamper(SpanProcessor):
    """A span processor that puts the request's id, ip, user and path on every span.

    ``provider.add_span_processor(asok_trace.SpanStamper())``, before the exporting processors.
    Attributes that a span has already are kept. Costs what the SDK asks for setting four
    attributes on a span: two thirds of one that has none.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp ``span``."""
        if not stamping.working:
            return
        try:
            stamp = _attributes(span.name, span.kind, parent_context)
            if stamp:
                present = span.attributes
                if present:
                    stamp = {k: v for k, v in stamp.items() if k not in present}
                span.set_attributes(stamp)
        except Exception as error:
            stamping.failed(error)


class StampingSampler(Sampler):
    """A sampler that decides as ``sampler`` does, and puts the request's id, ip, user and path
    on every span that is recorded.

    ``TracerProvider(sampler=StampingSampler(ParentBased(ALWAYS_ON)))``. Attributes that a span
    is started with are kept. Costs what it costs to start the span with four attributes more.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return the decision of the sampler within, with our attributes below its own."""
        result = self._sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )
        if result.decision is not Decision.DROP and stamping.working:
            try:
                stamp = _attributes(name, kind, parent_context)
                if stamp is not None:
                    merged: dict[str, Any] = {**stamp, **result.attributes}
                    return SamplingResult(result.decision, merged, result.trace_state)
            except Exception as error:
                stamping.failed(error)
        return result

    def get_description(self) -> str:
        """Name the sampler within."""
        return f"StampingSampler{{{self._sampler.get_description()}}}"

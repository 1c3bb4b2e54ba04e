"""Stamp every span started within a request, whoever starts it."""

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from asok_trace.core import names
from asok_trace.core.errors import Piece
from asok_trace.core.scope import Fields
from asok_trace.frameworks import lookup

stamping: Final = Piece("stamping spans")

# The fields that were turned into attributes last, and those: most spans that follow one
# another belong to one request, whose fields are one dict.
_last: tuple[Fields, dict[str, str]] | None = None


def _attributes() -> dict[str, str] | None:
    """The attributes of a span started now; None outside any request."""
    global _last
    fields = lookup.facts()
    if fields is None:
        return None
    last = _last
    if last is not None and last[0] is fields:
        return last[1]
    attributes = {
        names.ATTRIBUTES.get(key, key): value for key, value in fields.items() if value is not None
    }
    _last = (fields, attributes)
    return attributes


class SpanStamper(SpanProcessor):
    """A span processor that puts the request's id, ip, user and path on every span.

    ``provider.add_span_processor(asok_trace.SpanStamper())``, before the exporting processors.
    Attributes that a span has already are kept. Costs what the SDK asks for setting four
    attributes on a span: two thirds of one that has none.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002  # the SDK's
        """Stamp ``span``."""
        if not stamping.working:
            return
        try:
            stamp = _attributes()
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
                stamp = _attributes()
                if stamp is not None:
                    merged: dict[str, Any] = {**stamp, **result.attributes}
                    return SamplingResult(result.decision, merged, result.trace_state)
            except Exception as error:
                stamping.failed(error)
        return result

    def get_description(self) -> str:
        """Name the sampler within."""
        return f"StampingSampler{{{self._sampler.get_description()}}}"

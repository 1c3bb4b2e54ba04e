"""Findings on spans: an event, and an attribute that a trace can be searched by."""

from typing import Final

from opentelemetry import trace

from asok_trace.core import findings, names
from asok_trace.core.errors import Piece
from asok_trace.core.scope import Scope

marking: Final = Piece("marking spans with what was found")


def mark(site: findings.Site, scope: Scope | None) -> None:
    """Mark the span of ``scope`` with what was found at ``site``, if it is recorded; the current
    one, if nobody knows whose it is."""
    if not marking.working:
        return
    try:
        span = _span(scope)
        if span is not None and span.is_recording():
            mark_span(span, site)
    except Exception as error:
        marking.failed(error)


def _span(scope: Scope | None) -> trace.Span | None:
    current = trace.get_current_span()
    if scope is None:
        return current
    if scope._span is not None:
        own: trace.Span = scope._span
        return own
    # It has ended: what goes on of its trace stands for it, but no other request's.
    trace_id = scope._span_ids.get(names.TRACE_ID)
    same = trace.format_trace_id(current.get_span_context().trace_id) == trace_id
    return current if trace_id is None or same else None


def mark_span(span: trace.Span, site: findings.Site) -> None:
    """Mark ``span`` with what was found at ``site``; once, however often it is found."""
    attributes = getattr(span, "attributes", None) or {}
    if attributes.get(names.ATTRIBUTE_FINDING) == site.slug:
        return
    span.set_attribute(names.ATTRIBUTE_FINDING, site.slug)
    span.add_event(names.FINDING_EVENT, about(site))


def about(site: findings.Site) -> dict[str, str]:
    """What is said of ``site`` on a span: in an event; or on the span itself, if that is what was
    found."""
    found = site.finding()
    return {
        names.ATTRIBUTE_FINDING: found.slug,
        names.ATTRIBUTE_FINDING_KEY: found.key,
        names.ATTRIBUTE_FINDING_CALLSITE: found.callsite,
        names.ATTRIBUTE_FINDING_MESSAGE: found.message,
    }


def install() -> None:
    """Have every finding marked from now on."""
    if mark not in findings.markers:
        findings.markers.append(mark)

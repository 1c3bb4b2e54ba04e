"""Findings on spans: an event, and an attribute that a trace can be searched by."""

from typing import Final

from opentelemetry import trace

from asok_trace.core import findings, names
from asok_trace.core.errors import Piece

marking: Final = Piece("marking spans with what was found")


def mark(site: findings.Site) -> None:
    """Mark the current span, if one is recorded, with what was found at ``site``."""
    if not marking.working:
        return
    try:
        span = trace.get_current_span()
        if span.is_recording():
            mark_span(span, site)
    except Exception as error:
        marking.failed(error)


def mark_span(span: trace.Span, site: findings.Site) -> None:
    """Mark ``span`` with what was found at ``site``; once, however often it is found."""
    attributes = getattr(span, "attributes", None) or {}
    if attributes.get(names.ATTRIBUTE_FINDING) == site.slug:
        return
    span.set_attribute(names.ATTRIBUTE_FINDING, site.slug)
    found = site.finding()
    span.add_event(
        names.FINDING_EVENT,
        {
            names.ATTRIBUTE_FINDING: found.slug,
            names.ATTRIBUTE_FINDING_KEY: found.key,
            names.ATTRIBUTE_FINDING_CALLSITE: found.callsite,
            names.ATTRIBUTE_FINDING_MESSAGE: found.message,
        },
    )


def install() -> None:
    """Have every finding marked from now on."""
    if mark not in findings.markers:
        findings.markers.append(mark)

"""The last requests' spans, in memory: what `report()` prints when nothing else is set up."""

import os
import threading
import weakref
from collections import OrderedDict
from typing import Final, NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode

from asok_trace.core import findings, names
from asok_trace.core.errors import Piece

TRACES: Final = 100
"""Traces kept; the oldest goes first."""
SPANS: Final = 200
"""Spans kept of one trace; later ones are counted."""

keeping: Final = Piece("keeping spans in memory")


class Kept(NamedTuple):
    """One finished span, as text and numbers: nothing of the request is held."""

    span_id: int
    parent_id: int | None
    name: str
    start: int
    end: int
    failed: bool
    about: str


class Trace:
    """The spans of one trace that were kept, and how many were not."""

    __slots__ = ("dropped", "spans", "trace_id")

    def __init__(self, trace_id: int) -> None:
        self.trace_id = trace_id
        self.spans: list[Kept] = []
        self.dropped = 0

    def tree(self) -> str:
        """The spans as a tree with durations, earlier ones first."""
        known = {span.span_id for span in self.spans}
        children: dict[int | None, list[Kept]] = {}
        for span in sorted(self.spans, key=lambda span: (span.start, -span.end)):
            # A parent that is not here: remote, dropped, or not ended yet.
            parent = span.parent_id if span.parent_id in known else None
            children.setdefault(parent, []).append(span)
        lines: list[str] = []
        for root in children.get(None, []):
            lines.append(f"{_line(root)}  trace {trace.format_trace_id(self.trace_id)}")
            lines += _below(root, children, "")
        if self.dropped:
            lines.append(f"(+{self.dropped} more spans)")
        return "\n".join(lines)


def _below(parent: Kept, children: dict[int | None, list[Kept]], indent: str) -> list[str]:
    lines: list[str] = []
    below = children.get(parent.span_id, [])
    for number, span in enumerate(below, 1):
        last = number == len(below)
        lines.append(f"{indent}{'└─' if last else '├─'} {_line(span)}")
        lines += _below(span, children, indent + ("   " if last else "│  "))
    return lines


def _line(span: Kept) -> str:
    milliseconds = (span.end - span.start) / 1e6
    failed = "  ERROR" if span.failed else ""
    about = f"  {span.about}" if span.about else ""
    return f"{span.name}  {milliseconds:.1f} ms{failed}{about}"


class Ring(SpanProcessor):
    """A span processor that keeps the last `TRACES` traces."""

    def __init__(self) -> None:
        self._start()
        if hasattr(os, "register_at_fork"):
            start = weakref.WeakMethod(self._start)
            os.register_at_fork(after_in_child=lambda: (start() or _nothing)())

    def _start(self) -> None:
        """Empty, with a lock of its own: a forked child keeps its own requests."""
        self._traces: OrderedDict[int, Trace] = OrderedDict()
        # Re-entrant: a collection inside it may end a span.
        self._lock = threading.RLock()

    def on_end(self, span: ReadableSpan) -> None:
        """Keep ``span``."""
        if not keeping.working:
            return
        try:
            self._keep(span)
        except Exception as error:
            keeping.failed(error)

    def _keep(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is None or not context.trace_flags.sampled:
            return
        kept = Kept(
            context.span_id,
            None if span.parent is None else span.parent.span_id,
            span.name,
            span.start_time or 0,
            span.end_time or 0,
            span.status.status_code is StatusCode.ERROR,
            _about(span),
        )
        with self._lock:
            found = self._traces.get(context.trace_id)
            if found is None:
                found = self._traces[context.trace_id] = Trace(context.trace_id)
                if len(self._traces) > TRACES:
                    self._traces.popitem(last=False)
            if len(found.spans) < SPANS:
                found.spans.append(kept)
            else:
                found.dropped += 1

    def traces(self) -> list[Trace]:
        """The kept traces, oldest first."""
        with self._lock:
            return list(self._traces.values())


def _nothing() -> None:
    """What is left to do for a ring that is gone."""


_ring: Ring | None = None


def ring() -> Ring:
    """Return the process's ring; made at the first call."""
    global _ring
    if _ring is None:
        _ring = Ring()
    return _ring


def report() -> str:
    """Return the requests that were kept in memory, as trees of their spans with durations; and
    below them what was found.

    `setup` keeps requests where no exporter is configured: the last 100 traces, 200 spans of each.
    """
    parts = [] if _ring is None else [found.tree() for found in _ring.traces()]
    if not parts:
        parts.append(
            "No request was kept. asok_trace.setup() keeps spans in memory as long as no "
            "OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_TRACES_EXPORTER is set."
        )
    found = findings.findings()
    if found:
        parts += [*map(str, found), f"Found: {findings.totals()}."]
    return "\n\n".join(parts)


def _about(span: ReadableSpan) -> str:
    """What tells one request from another; on the request's own span only."""
    if span.parent is not None and not span.parent.is_remote:
        return ""
    attributes = span.attributes or {}
    fields = (names.REQUEST_ID, names.PATH, names.USER, names.CONNECTION_ID)
    keys = [names.ATTRIBUTES[field] for field in fields]
    return "  ".join(f"{key}={attributes[key]!s}" for key in keys if key in attributes)

"""Spans on their way out: never more than the queue holds; those that are lost are counted, and
it is said once that they are, and once that they are no more."""

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from asok_trace.core import names, text
from asok_trace.core.errors import Piece, attempted, contained

counting: Final = Piece("counting the spans that cannot be exported", then="the next are tried")

# Why a span was lost.
FULL: Final = "queue_full"
FAILED: Final = "export_failed"

_QUIET_SECONDS: Final = 60.0
_NEVER: Final = float("-inf")

# Reentrant: a collection amid the counting may end a span.
_lock = threading.RLock()
_dropped = {FULL: 0, FAILED: 0}
_watched: "weakref.WeakSet[Watched]" = weakref.WeakSet()


def dropped() -> Mapping[str, int]:
    """How many spans of this process were lost on their way out, by the reason."""
    return dict(_dropped)


class SpanQueue(BatchSpanProcessor):
    """OpenTelemetry's batch processor, which counts what is lost between it and its exporter.

    When the queue is full (``OTEL_BSP_MAX_QUEUE_SIZE``) a span that ends is dropped. Once an
    export has failed, a flush lasts as long as it may, and a shutdown one attempt: whoever stops a
    server does not wait for a collector that is not there.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        room = self._default_max_queue_size()  # type: ignore[no-untyped-call]  # the SDK's
        self._watched = Watched(exporter, room)
        super().__init__(self._watched)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue ``span``, if there is room."""
        context = span.get_span_context()
        sampled = context is not None and context.trace_flags.sampled
        # The SDK drops what is not sampled; and the oldest, should ours have failed.
        if not sampled or contained(counting, self._watched.takes) is not False:
            super().on_end(span)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export what has ended, in so many milliseconds at the most: the SDK's own takes as long
        as the collector does."""
        if timeout_millis is None:
            return super().force_flush()
        flushing = threading.Thread(target=super().force_flush, daemon=True)
        try:
            flushing.start()
        except RuntimeError:  # the interpreter ends
            return super().force_flush()
        flushing.join(timeout_millis / 1000)
        return not flushing.is_alive()

    def shutdown(self) -> None:
        """Export what is left, unless that has failed already."""
        if self._watched.failing:
            self._watched.shutdown()
        super().shutdown()  # type: ignore[no-untyped-call]  # the SDK's
        attempted(counting, self._watched.ended)


class Watched(SpanExporter):
    """An exporter whose failures are counted, and told once.

    What the exporter itself would log of each attempt is the reason that is told.
    """

    def __init__(self, exporter: Any, room: int) -> None:
        self.failing = False
        self._exporter = exporter
        self._room = room
        self._waiting = 0
        self._lost = 0
        self._overflown = self._told = self._shut = False
        self._told_at = _NEVER
        self._said = _Said()
        # Its lines, and those of what it is made of.
        self._loggers = {
            logging.getLogger(cls.__module__) for cls in type(exporter.export.__self__).__mro__[:-1]
        }
        for logger in self._loggers:
            logger.addFilter(self._said)
        _watched.add(self)

    def takes(self) -> bool:
        """Whether there is room for one more span; if not, it is counted as lost."""
        with _lock:
            if self._waiting < self._room:
                self._waiting += 1
                return True
            _dropped[FULL] += 1
            self._lost += 1
            self._overflown = True
        return False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export ``spans``."""
        with _lock:
            self._waiting = max(self._waiting - len(spans), 0)
        result, reason = SpanExportResult.FAILURE, ""
        with self._said:
            try:
                result = self._exporter.export(spans)
            except Exception as error:  # the SDK would log it, each time
                reason = repr(error)
            reason = self._said.first or reason
        attempted(counting, self._count, result is SpanExportResult.SUCCESS, len(spans), reason)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down; what it is still given fails at once."""
        if not self._shut:
            self._shut = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return bool(self._exporter.force_flush(timeout_millis))

    def ended(self) -> None:
        """Count what nobody exports any more."""
        with _lock:
            left, self._waiting = self._waiting, 0
        if left:
            self._count(False, left, "the process ended")
        for logger in self._loggers:
            logger.removeFilter(self._said)

    def forked(self) -> None:
        """Begin anew in a child: what waits, and what was lost, is its parent's."""
        self._waiting = self._lost = 0
        self._overflown = self._told = self.failing = False
        self._told_at = _NEVER

    def _count(self, worked: bool, number: int, reason: str) -> None:
        with _lock:
            if not worked:
                _dropped[FAILED] += number
                self._lost += number
            lost, overflown = self._lost, self._overflown
            self._overflown = False
        self.failing = not worked
        now = time.monotonic()
        if worked and not overflown:
            if self._told:
                self._told = False
                with _lock:
                    self._lost -= lost
                _log("spans are exported again. %d were lost meanwhile.", lost)
        elif not self._told and now - self._told_at >= _QUIET_SECONDS:
            self._told, self._told_at = True, now
            if worked:
                why, remedy = "more end than can be exported", _SLOWER
            else:
                why, remedy = reason.rstrip(".") or "the exporter does not say why", _START
            why = text.clean(why, text.VALUE_LIMIT)
            _log(_LOST, why, lost, remedy, names.METRIC_EXPORT_DROPPED)


_LOST: Final = (
    "spans are being lost: %s. %d so far; requests go on as ever. %s Further ones are counted by "
    "the metric %s; this is said once, until spans are exported again."
)
_START: Final = (
    "Start the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, or correct the variable."
)
_SLOWER: Final = "Raise OTEL_BSP_MAX_QUEUE_SIZE, or sample: OTEL_TRACES_SAMPLER."


class _Said(logging.Filter):
    """What an exporter logs while it exports, kept from the log: it would be there with each
    attempt. For the thread that exports; others log on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""
        """The first line, which says the cause; those after it say what comes of it."""
        self._thread: int | None = None

    def __enter__(self) -> None:
        self.first = ""
        self._thread = threading.get_ident()

    def __exit__(self, *exc_info: object) -> None:
        self._thread = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` is to be logged."""
        exporting = self._thread is not None and record.thread == self._thread
        if not exporting or record.levelno < logging.WARNING:
            return True
        self.first = self.first or record.getMessage()
        return False


def _log(message: str, *args: object) -> None:
    logging.getLogger(names.LOGGER).warning("asok_trace: " + message, *args)


def _forked() -> None:
    global _lock
    _lock = threading.RLock()
    _dropped.update({FULL: 0, FAILED: 0})
    for watched in list(_watched):
        watched.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

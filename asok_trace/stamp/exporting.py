"""What a collector does not take is counted; and it is said once that something is lost, and once
that nothing is any more."""

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from asok_trace.core import findings, names, text
from asok_trace.core.errors import Piece, attempted

watching: Final = Piece("watching over what is exported", then="exports go on")


class Signal(NamedTuple):
    """What is exported."""

    name: str
    """As OpenTelemetry calls it."""
    things: str
    relief: str
    """What to do if there is more than can be exported."""


SPANS: Final = Signal(
    "traces", "spans", "Raise OTEL_BSP_MAX_QUEUE_SIZE, or sample: OTEL_TRACES_SAMPLER."
)
LINES: Final = Signal("logs", "log lines", "Raise OTEL_BLRP_MAX_QUEUE_SIZE, or log less.")
METRICS: Final = Signal("metrics", "metrics", "")

# Why something was lost.
FULL: Final = "queue_full"
FAILED: Final = "export_failed"

_QUIET_SECONDS: Final = 60.0
_STUCK_SECONDS: Final = 30.0

# Reentrant: a collection amid the counting may end a span.
_lock = threading.RLock()
_dropped: dict[tuple[str, str], int] = {}
_watched: "weakref.WeakSet[Watched]" = weakref.WeakSet()


def dropped() -> Mapping[tuple[str, str], int]:
    """How much this process has lost on its way out, by signal and reason, of what is queued."""
    return dict(_dropped)


class Watched:
    """An exporter whose failures are counted, and told once.

    What the exporter itself would log of each attempt is the reason that is told.

    Args:
        room: how many the queue before it holds; 0 if nothing is lost with an export, as of
            metrics, which are totals.
    """

    def __init__(self, exporter: Any, signal: Signal, room: int = 0) -> None:
        self.failing = False
        self._exporter = exporter
        self._signal = signal
        self._room = room
        self._ends = self._shut = False
        self.forked()
        if room:
            for reason in (FULL, FAILED):
                _dropped.setdefault((signal.name, reason), 0)
        # It logs with the loggers of what it is made of.
        for cls in type(getattr(exporter.export, "__self__", exporter)).__mro__[:-1]:
            logging.getLogger(cls.__module__).addFilter(_said)
        logging.getLogger(_CONNECTIONS).addFilter(_said)
        _watched.add(self)

    # What else the SDK asks of an exporter.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._exporter, name)

    def forked(self) -> None:
        """Begin anew in a child: what waits, and what was lost, is its parent's."""
        self.failing = False
        self._waiting = self._leaving = self._lost = 0
        self._overflown = self._told = False
        self._told_at = -math.inf
        self._since = math.inf  # of the export under way

    def takes(self) -> bool:
        """Whether there is room for one more; if not, it is counted as lost."""
        with _lock:
            if self._waiting < self._room:
                self._waiting += 1
                return True
            self._lose(FULL, 1)
            self._overflown = True
            # The exporter's own timeout is one for each byte that it reads.
            if time.monotonic() - self._since > _STUCK_SECONDS:
                self._since = math.inf
                findings.later(partial(self._tell, "an export does not come to its end", _START))
        return False

    def export(self, batch: Any, **options: Any) -> Any:
        """Export ``batch``; return what the exporter does, None if it raises."""
        with _lock:
            self._leaving = len(batch) if self._room else 0
            self._waiting = max(self._waiting - self._leaving, 0)
        self._since = time.monotonic()
        worked, reason, result = False, "", None
        try:
            with _said:
                result = self._exporter.export(batch, **options)
            worked = getattr(result, "name", _SUCCESS) == _SUCCESS
        except Exception as error:  # the SDK would log it, each time
            reason = repr(error)
        finally:
            self._since = math.inf
            with _lock:
                number, self._leaving = self._leaving, 0
            attempted(watching, self._count, worked, number, _said.first or reason)
        return result

    def ends(self) -> None:
        """Nothing more is tried, once an export has failed."""
        self._ends = True
        if self.failing:
            self.shutdown()

    def shutdown(self, **options: Any) -> None:
        """Shut the exporter down, once; what it is still given fails at once."""
        if not self._shut:
            self._shut = True
            self._exporter.shutdown(**options)

    def ended(self) -> None:
        """Count what nobody exports any more."""
        with _lock:
            left = self._waiting + self._leaving
            self._waiting = self._leaving = self._room = 0
        if left:
            self._count(False, left, "the process ended")

    def _count(self, worked: bool, number: int, reason: str) -> None:
        with _lock:
            if not worked:
                self._lose(FAILED, number)
            self.failing = not worked
            overflown, self._overflown = self._overflown, False
        if not worked:
            self._tell(reason.rstrip(".") or "the exporter does not say why", _START)
            if self._ends:
                self.shutdown()
        elif overflown:
            self._tell("there are more than can be exported", self._signal.relief)
        else:
            self._tell_end()

    def _lose(self, reason: str, number: int) -> None:
        if number:
            _dropped[self._signal.name, reason] += number
            self._lost += number

    def _tell(self, why: str, remedy: str) -> None:
        with _lock:
            now, lost = time.monotonic(), self._lost
            if self._told or now - self._told_at < _QUIET_SECONDS:
                return
            self._told, self._told_at = True, now
        things, why = self._signal.things, text.clean(why, text.VALUE_LIMIT)
        if lost:
            _log(_LOST, things, why, lost, remedy, names.METRIC_EXPORT_DROPPED, things)
        else:
            _log(_AWAY, things, why, remedy)

    def _tell_end(self) -> None:
        with _lock:
            if not self._told:
                return
            self._told, lost, self._lost = False, self._lost, 0
        said = f" {lost} were lost meanwhile." if lost else ""
        _log("%s are exported again.%s", self._signal.things, said)


_LOST: Final = (
    "%s are being lost: %s. %d so far; requests go on as ever. %s Further ones are counted by "
    "the metric %s; this is said once, until %s are exported again."
)
_AWAY: Final = (
    "%s are not exported: %s. Requests go on as ever. %s This is said once, until they are again."
)
_START: Final = (
    "Start the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, or correct the variable."
)
_SUCCESS: Final = "SUCCESS"  # of each signal's results
# Of the HTTP exporters: it complains of answers that are none.
_CONNECTIONS: Final = "urllib3.connectionpool"


class _Said(logging.Filter, threading.local):
    """What an exporter logs while it exports, kept from the log: it would be there with each
    attempt. Each thread has its own, and those that do not export log on."""

    exporting = False
    first = ""
    """The first line, which says the cause; those after it say what comes of it."""

    def __enter__(self) -> None:
        self.exporting, self.first = True, ""

    def __exit__(self, *exc_info: object) -> None:
        self.exporting = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` is to be logged."""
        if not self.exporting or record.levelno < logging.WARNING:
            return True
        self.first = self.first or record.getMessage()
        return False


_said: Final = _Said()


def _log(message: str, *args: object) -> None:
    logging.getLogger(names.LOGGER).warning("asok_trace: " + message, *args)


def _forked() -> None:
    global _lock
    _lock = threading.RLock()
    _dropped.update(dict.fromkeys(_dropped, 0))
    for watched in list(_watched):
        watched.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

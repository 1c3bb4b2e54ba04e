"""Log lines as OpenTelemetry's log records, for a collector.

Each line once. One of structlog's is taken where it is about to be rendered, with its keys; where
it goes on to the standard library it waits for its record, which a level or a filter there may
still stop. Any other record is taken when its handlers have seen it, so that what their filters
have blotted out stays so.

A line's keys become attributes of the same names: ``request_id``, ``duration_ms``. Text and
numbers are kept, and nothing else of it.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, get_value
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes import exception_attributes
from opentelemetry.trace import NonRecordingSpan, SpanContext

from asok_trace.core import findings, names, text
from asok_trace.core.errors import Piece
from asok_trace.core.hooks import Hook
from asok_trace.stamp import events, structlog, tail
from asok_trace.stamp.line_queue import LineQueue

exporting: Final = Piece("exporting log lines")

ATTRIBUTES: Final = 64
"""Attributes of one line at the most; Loki refuses lines with more than 128."""
LONG_LIMIT: Final = 8192
"""Longest message and longest traceback, in characters."""

# What OpenTelemetry tells of itself: of the export, too, which it would keep going for ever.
_OWN: Final = "opentelemetry"
_STRUCTLOG: Final = "structlog"
_FLUSH_MILLIS: Final = 5000

# What every record has; what else it has was given to it.
_RECORD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    *("asctime", "message", "taskName"),
    "color_message",  # uvicorn's, once more with colours
}
# Where structlog's chains put what a log record has a place of its own for.
_MESSAGES: Final = ("event", "message", "msg")
_PLACED: Final = events.INTERNAL | {"level", "logger", names.TRACE_ID, names.SPAN_ID}
_TRACEBACK: Final = "exception"

_SEVERITIES: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}


class Line(NamedTuple):
    """What there is to tell of a line."""

    message: str
    attributes: dict[str, Any]
    context: Context


class _Here(threading.local):
    """What this thread is about."""

    exporting = False
    passed_on: tuple[str, Line] | None = None
    """The structlog line that goes on to the standard library's logger of this name."""


_here: Final = _Here()

_provider: LoggerProvider | None = None
_loggers: dict[str, Logger] = {}
_hook: Hook | None = None


def provider(exporters: Iterable[Any], resource: Resource) -> LoggerProvider:
    """Make a provider with these exporters, which lives until `end`."""
    made = LoggerProvider(resource, shutdown_on_exit=False)
    for exporter in exporters:
        made.add_log_record_processor(LineQueue(exporter))
    return made


def export_to(provider: LoggerProvider) -> Callable[[], None]:
    """Have the process's log lines exported by ``provider`` from now on; return how to undo it."""
    global _provider, _hook
    if _hook is not None:
        return lambda: None
    _provider = provider
    _loggers.clear()
    _hook = Hook(logging.Logger, "callHandlers", _handling)
    tail.take = _take
    structlog.show_lines()
    structlog._plain_chain = None  # have any other chain looked at again, now and later
    return _stop


def _stop() -> None:
    global _hook
    hook, _hook = _hook, None
    if hook is not None:
        hook.undo()
        tail.take = None
        structlog.hide_lines()


def flush() -> None:
    """Export what was logged, in five seconds at the most."""
    if _provider is not None:
        _provider.force_flush(_FLUSH_MILLIS)


def end() -> None:
    """Export the last lines of the process."""
    findings.tell_totals()  # which waits for the end, too
    _stop()
    if _provider is not None:
        _provider.shutdown()


def _take(logger: Any, method_name: str, event: Mapping[str, Any]) -> None:
    """Export a structlog event, or have it wait for its record. Never raises an Exception."""
    if not exporting.working:
        return
    try:
        level = events.LEVELS.get(method_name, method_name)
        name = getattr(logger, "name", None)
        if getattr(logger, "isEnabledFor", None) is None:
            line = _of_event(event)
            _emit(name if isinstance(name, str) else _STRUCTLOG, _number(level), None, line)
        elif events.is_enabled(logger, level):
            _here.passed_on = (str(name), _of_event(event))
    except Exception as error:
        exporting.failed(error)


def _handling(hook: Hook) -> Any:
    original = hook.original

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        # Before the handlers: they may log, too.
        line = _passed_on(record) if hook.active else None
        original(self, record)
        if hook.active:
            _take_record(record, line)

    return call_handlers


def _passed_on(record: logging.LogRecord) -> Line | None:
    """The structlog line that ``record`` was made of."""
    waiting = _here.passed_on
    # That line may have been dropped since, and this be another one of that logger.
    if waiting is None or waiting[0] != record.name or not events.by_structlog(sys._getframe(2)):
        return None
    _here.passed_on = None
    return waiting[1]


def _take_record(record: logging.LogRecord, line: Line | None) -> None:
    """Export a record of the standard library. Never raises an Exception."""
    if not exporting.working:
        return
    try:
        name = record.name or "root"
        if not name.startswith(_OWN):
            nanoseconds = int(record.created * 1e9)
            _emit(name, record.levelno, nanoseconds, line or _of_record(record))
    except Exception as error:
        exporting.failed(error)


def _of_event(event: Mapping[str, Any]) -> Line:
    said = next((key for key in _MESSAGES if key in event), None)
    facts = {key: value for key, value in event.items() if key not in _PLACED and key != said}
    raised = event.get("exc_info")
    if raised is True:
        raised = sys.exc_info()
    attributes = _error(raised[1] if isinstance(raised, tuple) else raised)
    rendered = facts.get(_TRACEBACK)
    if isinstance(rendered, str):
        del facts[_TRACEBACK]
        attributes[exception_attributes.EXCEPTION_STACKTRACE] = _end(rendered)
    message = events.as_text(event[said], LONG_LIMIT, text.clean_lines) if said else ""
    return Line(message, _attributes(facts) | attributes, _context(event))


def _of_record(record: logging.LogRecord) -> Line:
    given = {
        key: value for key, value in vars(record).items() if key not in _RECORD and key[:1] != "_"
    }
    said = record.msg
    if isinstance(said, dict) and "event" in said:  # structlog's, of a chain without `inject`
        return _of_event({**_simple(given), **said})
    message = events.message(record, LONG_LIMIT, text.clean_lines)
    raised = record.exc_info[1] if record.exc_info else None
    return Line(message, _attributes(_simple(given)) | _error(raised), _context(given))


def _simple(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, with nothing but their class of objects: nobody asked these for their text, which
    may be a query, or what is in one."""
    simple = (str, int, float)
    return {
        key: value if value is None or isinstance(value, simple) else f"<{type(value).__name__}>"
        for key, value in given.items()
        if key not in _PLACED
    }


def _attributes(facts: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for key in (*names.STAMPED, *facts):  # if there are too many, not without these
        value = facts.get(key)
        if value is not None and key and len(attributes) < ATTRIBUTES:
            attributes[text.clean(key, text.NAME_LIMIT)] = events.plain(value)
    return attributes


def _error(error: object) -> dict[str, Any]:
    if not isinstance(error, BaseException):
        return {}
    trace_back = "".join(traceback.format_exception(error))
    return {
        exception_attributes.EXCEPTION_TYPE: type(error).__qualname__,
        exception_attributes.EXCEPTION_MESSAGE: events.as_text(error, text.VALUE_LIMIT),
        exception_attributes.EXCEPTION_STACKTRACE: _end(trace_back),
    }


def _end(trace_back: str) -> str:
    """The end of a traceback, where the error is."""
    return text.clean_lines(trace_back[-LONG_LIMIT:], LONG_LIMIT)


def _context(facts: Mapping[str, Any]) -> Context:
    """A context with the span of the line and nothing else: it is kept until the export."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:  # a server's line about a request that is over says of which
        try:
            trace_id, span_id = facts[names.TRACE_ID], facts[names.SPAN_ID]
            found = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False)
        except (KeyError, TypeError, ValueError):
            return Context()
    if not found.is_valid:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(found), Context())


def _number(level: str) -> int:
    return logging.getLevelNamesMapping().get(level.upper(), logging.NOTSET)


def _severity(level: int) -> SeverityNumber:
    if level <= logging.NOTSET:
        return SeverityNumber.UNSPECIFIED
    return SeverityNumber(min(level // 10 * 4 + min(level % 10, 3) + 1, 24))


def _emit(name: str, level: int, nanoseconds: int | None, line: Line) -> None:
    # In the exporter's own threads, whatever logs there; and while this thread is at it.
    if _here.exporting or _provider is None or get_value(_SUPPRESS_INSTRUMENTATION_KEY):
        return
    _here.exporting = True
    try:
        logger = _loggers.get(name)
        if logger is None:
            logger = _loggers[name] = _provider.get_logger(name)
        known = logging.getLevelName(level)
        logger.emit(
            timestamp=nanoseconds or time.time_ns(),
            context=line.context,
            severity_number=_severity(level),
            severity_text=_SEVERITIES.get(known, known) if level else None,
            body=line.message,
            attributes=line.attributes,
        )
    finally:
        _here.exporting = False

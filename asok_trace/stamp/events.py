"""Log lines as events of the current span, so that a trace shows them where they happened.

Each line once, whatever it passes on its way. A structlog line is added by `inject`, with its
fields, and passed over when it comes by again as a record of the standard library. Any other
record is added where one of ours sees it first: `stamp_logging`, a `RequestFilter`, or `inject`
in a formatter.
"""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

from asok_trace.core import names, text
from asok_trace.core.errors import Piece

adding: Final = Piece("making log lines events of spans")

NAME_LIMIT: Final = text.NAME_LIMIT
ATTRIBUTES: Final = 16
"""Attributes of one event at the most; how many events a span has is the SDK's limit."""

INTERNAL: Final = frozenset(
    {"event", "exc_info", "stack_info", "timestamp", "_record", "_from_structlog"}
)
"""What structlog's own processors and formatters pass along, and what an event has by itself."""
LEVELS: Final = {"exception": "error", "warn": "warning", "fatal": "critical"}
"""The method that logs a line -> its level, where it is called otherwise."""
_Clean = Callable[[object, int], str]
_INT_64: Final = range(-(2**63), 2**63)


class _Here(threading.local):
    """What this thread has added lately."""

    passed_on: str | None = None
    """The standard library's logger that the structlog line added last goes on to."""

    def __init__(self) -> None:
        # Records, told by the float object that each has of its own and shares with the copies
        # that formatters make of it. More than one: a handler may log while it handles.
        self.seen: deque[float] = deque(maxlen=8)


_here: Final = _Here()


def add_event(logger: Any, method_name: str, event: Mapping[str, Any]) -> None:
    """Add a structlog event to the current span. Never raises an Exception."""
    if not adding.working:
        return
    try:
        record = event.get("_record")
        if record is not None:  # in a ProcessorFormatter, for any record that is formatted
            add_record(record)
            return
        level = LEVELS.get(method_name, method_name)
        if is_enabled(logger, level):
            _here.passed_on = getattr(logger, "name", None)
            _add(event.get("event", ""), level, event)
    except Exception as error:
        adding.failed(error)


def add_record(record: logging.LogRecord) -> None:
    """Add a record of the standard library to the current span. Never raises an Exception."""
    if not adding.working:
        return
    try:
        mark, seen = record.relativeCreated, _here.seen
        if any(other is mark for other in seen):
            return
        seen.append(mark)
        if _is_passed_on(record):
            return
        level = record.levelname.lower()
        said = record.msg
        if isinstance(said, dict) and "event" in said:  # structlog's, of a chain without `inject`
            _add(said["event"], level, said)
        else:
            _add(message(record), level, {"logger": record.name})
    except Exception as error:
        adding.failed(error)


def is_enabled(logger: Any, level: str) -> bool:
    """Whether ``logger`` logs lines of ``level``: one of the standard library has its own say."""
    ask = getattr(logger, "isEnabledFor", None)
    number = None if ask is None else logging.getLevelNamesMapping().get(level.upper())
    return ask is None or number is None or bool(ask(number))


def _is_passed_on(record: logging.LogRecord) -> bool:
    """Whether ``record`` is the structlog line that this thread has just added."""
    if _here.passed_on != record.name:
        return False
    # That line may have been dropped since; then this is another one. So look who logs it:
    # structlog, or somebody on his own, possibly called by one of structlog's processors.
    if not by_structlog(sys._getframe(2)):
        return False
    _here.passed_on = None
    return True


def by_structlog(frame: FrameType | None) -> bool:
    """Whether ``frame`` was called by structlog to log a line, and not by one of its processors."""
    while frame is not None and frame.f_code.co_name not in ("_proxy_to_logger", "_process_event"):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "_proxy_to_logger"


def _add(name: object, level: str, facts: Mapping[str, Any]) -> None:
    api = sys.modules.get("opentelemetry.trace")
    span = None if api is None else api.get_current_span()
    if span is None or not span.is_recording():
        return
    attributes: dict[str, Any] = {"level": level}
    for key, value in facts.items():
        if len(attributes) >= ATTRIBUTES:
            break
        if key not in INTERNAL and key not in names.ATTRIBUTES:
            attributes[text.clean(key, NAME_LIMIT)] = plain(value)
    span.add_event(as_text(name, NAME_LIMIT), attributes)


def message(record: logging.LogRecord, limit: int = NAME_LIMIT, clean: _Clean = text.clean) -> str:
    """What ``record`` says. One that does not fit its arguments is told by its handlers."""
    try:
        return clean(record.getMessage(), limit)
    except Exception:
        return as_text(record.msg, limit, clean)


def plain(value: object) -> bool | int | float | str:
    """``value`` as the wire has it: objects as structlog's JSON shows them, which need not be what
    they are as text: of an address with a password in it, say."""
    # A larger int would fail the export of the whole batch it is in.
    if isinstance(value, (bool, float)) or (isinstance(value, int) and value in _INT_64):
        return value
    try:
        shown = str.__str__(value) if isinstance(value, str) else repr(value)
    except Exception:
        return _unspoken(value)
    return text.clean(shown, text.VALUE_LIMIT)


def as_text(value: object, limit: int, clean: _Clean = text.clean) -> str:
    """``value`` as text, made fit by ``clean``."""
    try:
        return clean(value, limit)
    except Exception:
        return _unspoken(value)


def _unspoken(value: object) -> str:
    """Of an object of the host, whose own __str__ or __repr__ raises."""
    return f"<{type(value).__name__}>"

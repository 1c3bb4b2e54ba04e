"""The end of a structlog chain that ends in `inject`: structlog's default tail.

``structlog.configure(processors=[asok_trace.inject])`` leaves nothing to render the line, and
structlog would call ``PrintLogger.info(**event_dict)``, a TypeError. So `inject` renders where,
and only where, nobody comes after it.
"""

import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from types import FrameType
from typing import Any, Final

import structlog

from asok_trace.core.errors import Piece

rendering: Final = Piece(
    "rendering a structlog line (inject as the last processor)",
    then="lines that cannot be rendered are printed plainly",
)

Event = MutableMapping[str, Any]

_TEXT_LOGGERS = (structlog.PrintLogger, structlog.WriteLogger, logging.Logger)

take: Callable[[Any, str, Event], None] | None = None
"""Called with each line right before it is rendered, where somebody wants to have them."""

_level = structlog.processors.add_log_level
_arguments = structlog.stdlib.PositionalArgumentsFormatter()
_stack = structlog.processors.StackInfoRenderer()
_timestamp_console = structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False)
_timestamp_json = structlog.processors.TimeStamper(fmt="iso", utc=True)
_json = structlog.processors.JSONRenderer()


class Showing:
    """The last processor of a chain, which shows each line to `take` before it renders it: by then
    the others have dropped what is not to be logged, and blotted out what nobody is to see."""

    __slots__ = ("last",)

    def __init__(self, last: Callable[..., Any]) -> None:
        self.last = last

    def __call__(self, logger: Any, method_name: str, event: Event) -> Any:  # noqa: D102  # the interface
        if take is not None:
            take(logger, method_name, event)
        return self.last(logger, method_name, event)


def is_last(processor: Callable[..., Any], caller: FrameType, logger: Any) -> bool:
    """Whether ``processor`` was called by structlog as the last of a chain, for a logger that
    takes text. ``caller`` is the frame that called it: a formatter's pre-chain, or a processor
    that calls ours, goes on with the event dict itself."""
    if caller.f_code.co_name != "_process_event":
        return False
    if not isinstance(logger, (*_TEXT_LOGGERS, structlog.BytesLogger)):
        return False
    chain = getattr(caller.f_locals.get("self"), "_processors", None)
    return isinstance(chain, (list, tuple)) and bool(chain) and chain[-1] is processor


def render(
    logger: Any, method_name: str, event: Event, stamped: Callable[[Event], Event]
) -> str | bytes:
    """Return ``event`` as the line that ``logger`` prints. Never raises: after us comes nobody
    who could still make text of it."""
    if not isinstance(event, MutableMapping):
        return event  # the same processor twice: rendered by the first
    try:
        line = _rendered(logger, method_name, dict(event), stamped)
    except Exception as error:
        rendering.failed(error)
        line = _plain(stamped(event))
    if isinstance(logger, structlog.BytesLogger):
        return line.encode("utf-8", "backslashreplace")
    return line


def _rendered(
    logger: Any, method_name: str, event: Event, stamped: Callable[[Event], Event]
) -> str:
    # The caller's own variables first: they win over the stamp.
    event = stamped(structlog.contextvars.merge_contextvars(logger, method_name, event))
    event = _level(logger, method_name, event)
    event = _arguments(logger, method_name, event)
    event = _stack(logger, method_name, event)
    event = structlog.dev.set_exc_info(logger, method_name, event)
    if take is not None:
        take(logger, method_name, event)
    if _on_terminal(logger):
        event = _timestamp_console(logger, method_name, event)
        return str(structlog.dev.ConsoleRenderer()(logger, method_name, event))
    event = _timestamp_json(logger, method_name, event)
    event = structlog.processors.format_exc_info(logger, method_name, event)
    return str(_json(logger, method_name, event))


def _plain(event: Event) -> str:
    """``event`` with what text can be had of its values."""
    return json.dumps({str(key): _text(value) for key, value in event.items()})


def _text(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _on_terminal(logger: Any) -> bool:
    file = getattr(logger, "_file", sys.stderr)
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):  # not a file, or a closed one
        return False

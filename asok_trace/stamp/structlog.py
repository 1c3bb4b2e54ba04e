"""`inject`, the structlog processor."""

import sys
from collections.abc import Callable, MutableMapping
from types import FrameType
from typing import Any, Final

import structlog
from structlog import _config as structlog_config

from asok_trace.core.errors import Piece, contained
from asok_trace.core.scope import ACTIVE, Fields
from asok_trace.detect import orphans
from asok_trace.frameworks import lookup
from asok_trace.stamp import events, stdlib, tail

Event = MutableMapping[str, Any]

stamping: Final = Piece("stamping structlog lines (inject)")

# structlog keeps its global chain here; the public get_config() builds a dict per call.
_CONFIG: Final = structlog_config._CONFIG

# What calls the processors, called by what the method of a logger calls.
_PROCESSING: Final = structlog.BoundLoggerBase._process_event.__code__

# In the thread in which `ainfo` and the like log: the frame that awaits them.
_ASKED: Final = getattr(structlog.contextvars, "_ASYNC_CALLING_STACK", None)

# The global chain that was looked at last, and whether any so far ended in `inject`. Loggers
# bound under such a chain keep it for good, so this never turns False again, and from then on
# there is no plain chain any more.
_plain_chain: object = None
_may_be_last = False

_active: Final = ACTIVE.get


def inject(logger: Any, method_name: str, event_dict: Event) -> Event | str | bytes:
    """Stamp a structlog line with the id, ip, user and path of the current request.

    A structlog processor: ``structlog.configure(processors=[..., asok_trace.inject, ...])``.
    Keys that the caller has bound win; outside any request nothing is added; it never raises.

    Returns the event dict. Only where the chain that is running ends in `inject` and the
    wrapped logger takes text, as in ``structlog.configure(processors=[asok_trace.inject])``,
    it also renders the line: with structlog's defaults on a terminal, as JSON elsewhere.

    Costs a third of a microsecond inside a request that `instrument` opened.
    """
    global _plain_chain
    if _CONFIG.default_processors is not _plain_chain:
        return _perhaps_last(logger, method_name, event_dict)
    # From here to the return is the path of every line: written out, not called, for its speed.
    try:
        scope = _active()
        if scope is None:
            scope = lookup.unowned()
            if scope is None:
                if not orphans.silent():
                    _outside(event_dict, sys._getframe(1))
                return event_dict
        fresh = scope._line
        if fresh is None:
            fresh = scope._live
        elif scope._events:
            events.add_event(logger, method_name, event_dict)
        fields = scope._fields if fresh is None else fresh(scope)
        if type(event_dict) is dict:
            return fields | event_dict
        return _merged(fields, event_dict)
    except Exception as error:
        stamping.failed(error)
        _plain_chain = None  # the way round, where it is asked whether stamping still works
        return event_dict


def _outside(event_dict: Event, frame: FrameType) -> None:
    """Note that a line is of no request; ``frame`` is the one that called us."""
    record = event_dict.get("_record")
    if record is not None:  # in a ProcessorFormatter
        if not stdlib.active():  # else it has been seen
            stdlib.note_orphan(record, deferred=True)
        return
    if frame.f_code is _PROCESSING and frame.f_back is not None:
        frame = frame.f_back.f_back or frame  # not to look at each
    asked = None if _ASKED is None else _ASKED.get(None)
    orphans.line(event_dict.get("event"), frame, asked)


def _merged(fields: Fields, event_dict: Event) -> Event:
    """``fields | event_dict``; a context class that is more than a dict stays what it is."""
    if type(event_dict) is dict:
        return fields | event_dict
    for key, value in fields.items():
        if key not in event_dict:
            event_dict[key] = value
    return event_dict


def _perhaps_last(logger: Any, method_name: str, event_dict: Event) -> Event | str | bytes:
    """`inject` for processes in which it has been the last of a chain, and for the first line
    after a global chain was configured."""
    global _plain_chain, _may_be_last
    chain = _CONFIG.default_processors
    last = tail.is_last(inject, sys._getframe(2), logger)
    if last or (isinstance(chain, (list, tuple)) and chain and chain[-1] is inject):
        _may_be_last = True
    if tail.take is not None:
        show_lines()
        chain = _CONFIG.default_processors
    _plain_chain = None if _may_be_last or not stamping.working else chain
    contained(stamping, _note, logger, method_name, event_dict)
    if last:
        return tail.render(logger, method_name, event_dict, _stamped)
    return _stamped(event_dict)


def _note(logger: Any, method_name: str, event_dict: Event) -> None:
    """Add the line to the current span, where that is wanted."""
    scope = lookup.here()
    if scope is not None and scope._line is not None and scope._events:
        events.add_event(logger, method_name, event_dict)


def _stamped(event_dict: Event) -> Event:
    fields = None
    if stamping.working:
        try:
            scope = lookup.here()
            if scope is None:
                if not orphans.silent():
                    _outside(event_dict, sys._getframe(1))
            else:
                fields = scope.line()
        except Exception as error:
            stamping.failed(error)
    return event_dict if fields is None else _merged(fields, event_dict)


def put_in_chain() -> Callable[[], None]:
    """Put `inject` into structlog's global chain, if it is not there; return how to undo it."""
    if not structlog.is_configured():
        structlog.configure(processors=[inject])
        return _unless_changed(structlog.reset_defaults)
    chain = structlog.get_config()["processors"]
    if inject in chain:
        return lambda: None
    if isinstance(chain, list) and chain:
        # Into the list itself: loggers that were bound or cached before have the same one.
        chain.insert(-1, inject)
        return lambda: chain.remove(inject) if inject in chain else None
    before = tuple(chain)
    structlog.configure(processors=[*before[:-1], inject, *before[-1:]])
    return _unless_changed(lambda: structlog.configure(processors=chain))


def show_lines() -> None:
    """Show the lines of structlog's global chain to `tail.take`, if `inject` is in it."""
    chain = _CONFIG.default_processors
    if not isinstance(chain, (list, tuple)) or inject not in chain:
        return
    if chain[-1] is inject or isinstance(chain[-1], tail.Showing):
        return  # then `inject` renders, and shows them itself; or it is done
    last = tail.Showing(chain[-1])
    if isinstance(chain, list):
        # One step, and in the list itself: other threads may be running it.
        chain[-1] = last
    else:
        structlog.configure(processors=[*chain[:-1], last])


def hide_lines() -> None:
    """Undo `show_lines`."""
    chain = _CONFIG.default_processors
    if isinstance(chain, list) and chain and isinstance(chain[-1], tail.Showing):
        chain[-1] = chain[-1].last


def _unless_changed(undo: Callable[[], None]) -> Callable[[], None]:
    """Return ``undo`` for as long as nobody configures another chain."""
    ours = structlog.get_config()["processors"]

    def undo_ours() -> None:
        if structlog.get_config()["processors"] is ours:
            undo()

    return undo_ours

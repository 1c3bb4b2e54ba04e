"""`inject`, the structlog processor."""

import sys
from collections.abc import MutableMapping
from typing import Any, Final

from structlog import _config as structlog_config

from asok_trace.core.errors import Piece
from asok_trace.core.scope import ACTIVE, Fields
from asok_trace.frameworks import lookup
from asok_trace.stamp import tail

Event = MutableMapping[str, Any]

stamping: Final = Piece("stamping structlog lines (inject)")

# structlog keeps its global chain here; the public get_config() builds a dict per call.
_CONFIG: Final = structlog_config._CONFIG

# The global chain that was looked at last, and whether any so far ended in `inject`. Loggers
# bound under such a chain keep it for good, so this never turns False again.
_looked_at: object = None
_may_be_last = False

_active: Final = ACTIVE.get


def inject(logger: Any, method_name: str, event_dict: Event) -> Event | str | bytes:
    """Stamp a structlog line with the id, ip, user and path of the current request.

    A structlog processor: ``structlog.configure(processors=[..., asok_trace.inject, ...])``.
    Keys that the caller has bound win; outside any request nothing is added; it never raises.

    Returns the event dict. Only where the chain that is running ends in `inject` and the
    wrapped logger takes text, as in ``structlog.configure(processors=[asok_trace.inject])``,
    it also renders the line: with structlog's defaults on a terminal, as JSON elsewhere.

    Costs a quarter of a microsecond inside a request that `instrument` opened.
    """
    if _may_be_last or _CONFIG.default_processors is not _looked_at:
        return _perhaps_last(logger, method_name, event_dict)
    if not stamping.working:
        return event_dict
    # From here to the return is the path of every line: written out, not called, for its speed.
    try:
        scope = _active()
        if scope is None:
            scope = lookup.unowned()
            if scope is None:
                return event_dict
        live = scope._live
        fields = scope._fields if live is None else live(scope)
        if type(event_dict) is dict:
            return fields | event_dict
        return _merged(fields, event_dict)
    except Exception as error:
        stamping.failed(error)
        return event_dict


def _merged(fields: Fields, event_dict: Event) -> Event:
    """``fields | event_dict``; a context class that is more than a dict stays what it is."""
    if type(event_dict) is dict:
        return fields | event_dict
    for key, value in fields.items():
        if key not in event_dict:
            event_dict[key] = value
    return event_dict


def _perhaps_last(logger: Any, method_name: str, event_dict: Event) -> Event | str | bytes:
    """`inject` for processes in which it has been the last of a global chain."""
    global _looked_at, _may_be_last
    chain = _CONFIG.default_processors
    if chain is not _looked_at:
        _looked_at = chain
        if isinstance(chain, (list, tuple)) and chain and chain[-1] is inject:
            _may_be_last = True
    if _may_be_last and tail.is_last(inject, sys._getframe(2), logger):
        return tail.render(logger, method_name, event_dict, _stamped)
    return _stamped(event_dict)


def _stamped(event_dict: Event) -> Event:
    fields = None
    if stamping.working:
        try:
            fields = lookup.fields()
        except Exception as error:
            stamping.failed(error)
    return event_dict if fields is None else _merged(fields, event_dict)

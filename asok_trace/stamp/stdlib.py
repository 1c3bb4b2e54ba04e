"""The standard library's logging: a filter for handlers, or every record of the process."""

import logging
import sys
import threading
from typing import Any, Final

from asok_trace.core import names
from asok_trace.core.errors import Piece
from asok_trace.core.hooks import Handle, Hook
from asok_trace.core.scope import SERVED, Fields
from asok_trace.detect import orphans
from asok_trace.frameworks import lookup
from asok_trace.stamp import events

stamping: Final = Piece("stamping standard library log records")

_SERVERS = ("gunicorn", "hypercorn", "uvicorn", "waitress", "werkzeug")
# OpenTelemetry's are about itself, wherever the program is just then.
_UNSEEN = (*_SERVERS, names.LOGGER, "opentelemetry")


class RequestFilter(logging.Filter):
    """A filter for handlers that stamps records and lets all of them pass.

    In ``dictConfig``: ``"filters": {"request": {"()": "asok_trace.RequestFilter"}}``, and
    ``"filters": ["request"]`` on each *handler*: a logger's filters do not see the records of
    its children. Attributes that a record has already are kept.

    Args:
        missing: what a record gets for each of ``request_id``, ``ip``, ``user`` and ``path``
            that is not known, so that a format string may name them outside a request too.
            By default nothing is added.
    """

    def __init__(self, missing: str | None = None) -> None:
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        """Stamp ``record``; always True."""
        _stamp(record, self._missing)
        return True


_active: Handle | None = None


def stamp_logging(missing: str | None = None) -> Handle:
    """Stamp every record of the process, whoever logs it and whatever handles it.

    Replaces `logging.Logger.handle` until ``undo()``; calling it again returns the same handle.
    Attributes that a record has already, from ``extra=``, a record factory or a Logger
    subclass, are kept. Costs 0.4 microseconds a record inside a request.

    Args:
        missing: as for `RequestFilter`.
    """
    global _active
    if _active is None:
        hook = Hook(logging.Logger, "handle", lambda hook: _handle(hook, missing))
        _active = Handle(lambda: _undo(hook))
    return _active


def active() -> bool:
    """Whether `stamp_logging` is in force."""
    return _active is not None


def _undo(hook: Hook) -> None:
    global _active
    _active = None
    hook.undo()


def _handle(hook: Hook, missing: str | None) -> Any:
    # Not a record factory and not makeRecord(): under either, somebody's extra={"ip": ...}
    # raises KeyError and fails their request.
    original = hook.original

    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        if hook.active:
            _stamp(record, missing)
        original(self, record)

    return handle


def _stamp(record: logging.LogRecord, missing: str | None) -> None:
    if not stamping.working:
        return
    try:
        scope = lookup.here()
        if scope is None or (not scope._open and _by_server(record)):
            # A server may go on in the context of a request that is over.
            fields = _of_server(record)
            if scope is None and fields is None:
                note_orphan(record)
        else:
            # As scope.line(), but written out, not called, for its speed.
            fresh = scope._line
            if fresh is None:
                fresh = scope._live
            elif scope._events:
                events.add_record(record)
            fields = scope._fields if fresh is None else fresh(scope)
        if fields is not None:
            for key, value in fields.items():
                if not hasattr(record, key):
                    setattr(record, key, value)
        if missing is not None:
            for key in names.STAMPED:
                if not hasattr(record, key):
                    setattr(record, key, missing)
    except Exception as error:
        stamping.failed(error)


def note_orphan(record: logging.LogRecord, *, deferred: bool = False) -> None:
    """Note that ``record`` is of no request, unless that is as it should be: a server's, one of our
    own, or one that another thread has logged. ``deferred`` within a formatter."""
    if (
        not (record.name or "").startswith(_UNSEEN)
        and record.thread == threading.get_ident()
        and not orphans.silent()
    ):
        orphans.record(record, sys._getframe(1), deferred=deferred)


def _of_server(record: logging.LogRecord) -> Fields | None:
    """The fields of the request that a server's own line is about: its access line, and its
    report of an exception that the application let out."""
    name = record.name or ""
    if not _by_server(record):
        return None
    if not (name == "werkzeug" or name.endswith(".access") or record.exc_info):
        return None
    scope = SERVED.get()
    if scope is None:
        return None
    if scope._told:
        # What comes now may be of a request that the server refuses by itself; but for the report
        # of what this one raised, which gunicorn writes after the access line.
        reported = record.exc_info[1] if record.exc_info else None
        about_this = reported is not None and id(reported) == scope._escaped
        return scope._fields | scope._span_ids if about_this else None
    scope._told = not record.exc_info
    return scope._fields | scope._span_ids


def _by_server(record: logging.LogRecord) -> bool:
    # A record made by hand may have no name.
    return (record.name or "").startswith(_SERVERS)

"""The canonical line: one event per request, with what is known at its end."""

import logging
import sys
from typing import Any, Final

from asok_trace.core import names, records
from asok_trace.core.errors import Piece
from asok_trace.core.scope import Fields, Scope

# It goes through the host's own chain and handlers: a full disk of today is tried again.
line: Final = Piece("the canonical line of a request", then="the next one is tried again")


def log(scope: Scope, fields: Fields, seconds: float, error: BaseException | None) -> None:
    """Log the end of a request: through structlog if it is configured, else the logger
    ``asok_trace.request``; at error level for 5xx and for an exception that escaped."""
    event: dict[str, Any] = dict(fields)
    event[names.METHOD] = scope._method
    if scope._route is not None:
        event[names.ROUTE] = scope._route
    if scope._status is not None:
        event[names.STATUS] = scope._status
    event[names.DURATION_MS] = round(seconds * 1000, 3)
    if error is not None:
        event[names.ERROR] = type(error).__name__
    failed = isinstance(error, Exception) or (scope._status or 0) >= 500
    try:
        # Asked each time: a program configures structlog when it likes.
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            _log_structlog(structlog, failed, event)
        else:
            _log_stdlib(logging.ERROR if failed else logging.INFO, event)
    except Exception as fault:
        line.failed(fault)


def _log_structlog(structlog: Any, failed: bool, event: dict[str, Any]) -> None:
    wrapper = structlog.get_config()["wrapper_class"]
    asynchronous = structlog.stdlib.AsyncBoundLogger
    if isinstance(wrapper, type) and issubclass(wrapper, asynchronous):
        # It needs a running loop and returns a coroutine; nobody here can await it.
        wrapper = structlog.stdlib.BoundLogger
    logger = structlog.wrap_logger(
        None, wrapper_class=wrapper, logger_factory_args=(names.REQUEST_LOGGER,)
    ).bind(**event)
    (logger.error if failed else logger.info)(names.REQUEST_EVENT)


def _log_stdlib(level: int, event: dict[str, Any]) -> None:
    # A path without spaces, so that it cannot pass for the status that follows it.
    path = str(event.get(names.PATH)).replace(" ", "%20")
    method, status = event[names.METHOD], event.get(names.STATUS, "-")
    said = (names.REQUEST_EVENT, method, path, status, event[names.DURATION_MS])
    records.log(names.REQUEST_LOGGER, level, "%s %s %s %s %s ms", said, event)

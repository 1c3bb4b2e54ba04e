"""What one standard library record pays for four attributes.

Fresh records are handed to `Logger.handle` of a logger whose one handler drops them; making the
records is not measured. Each mechanism replaces `Logger.handle` for good, so each runs in a
process of its own, and the plain `Logger.handle`, subtracted, in a third.
"""

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import asok_trace
from tests.benchmarks import site
from tests.benchmarks.lines import STAMP, resolved
from tests.benchmarks.worker import Case, Serve, Setting

_variable: ContextVar[dict[str, str]] = ContextVar("floor")

BATCH = 100
"""Records made at a time: few enough to stay in the cache of the core."""


def install_floor() -> None:
    """The least that stamps every record: four setattr around `Logger.handle`."""
    original = logging.Logger.handle

    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        for key, value in _variable.get().items():
            setattr(record, key, value)
        original(self, record)

    logging.Logger.handle = handle  # type: ignore[method-assign]
    _variable.set(STAMP)


def make(count: int) -> list[logging.LogRecord]:
    """Return fresh records."""
    return [
        logging.LogRecord("shop", logging.INFO, __file__, 1, "order %s paid", (17,), None)
        for _ in range(count)
    ]


def handling(operations: int) -> int:
    """Handle that many records, and return the nanoseconds it took."""
    logger, took = logging.getLogger("shop"), 0
    while operations > 0:
        records = make(min(operations, BATCH))
        operations -= len(records)
        start = time.process_time_ns()
        for record in records:
            logger.handle(record)
        took += time.process_time_ns() - start
    return took


def mechanism(name: str, install: Callable[[], Any], *, stamps: bool = True) -> Setting:
    """The records of a page of an instrumented Asok application whose user is known."""

    def setting(serve: Serve) -> None:
        logger = logging.getLogger("shop")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        install()
        app = site.make()
        asok_trace.instrument(app, access_log=False)

        def view(request: Any) -> str:
            resolved(request)
            [record] = make(1)
            logger.handle(record)
            assert (vars(record).keys() >= STAMP.keys()) is stamps
            serve({name: Case(handling)})
            return "measured"

        app.view = view
        site.wsgi(app)

    return setting


SETTINGS: dict[str, Setting] = {
    "nothing": mechanism("nothing", lambda: None, stamps=False),
    "floor": mechanism("floor", install_floor),
    "stamp_logging": mechanism("stamp_logging", lambda: asok_trace.stamp_logging()),
}

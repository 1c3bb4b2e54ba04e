"""How the contract's applications log: JSON lines, in one file that the suite reads.

Copied next to each application. `CONTRACT_LOG` names the file. `CONTRACT_STAMP` says how the
standard library's records are stamped: ``patch`` (`asok_trace.stamp_logging`, every record of
the process) or ``filter`` (`asok_trace.RequestFilter` on the handlers alone).
"""

import logging
import os
import threading

import structlog
from pythonjsonlogger.json import JsonFormatter

import asok_trace


def configure():
    """Send structlog and the standard library to the suite's file, stamped."""
    path = os.environ["CONTRACT_LOG"]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            asok_trace.inject,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(
            file=open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # for good
        ),
    )
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonFormatter("%(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    if os.environ["CONTRACT_STAMP"] == "patch":
        asok_trace.stamp_logging()
    else:
        handler.addFilter(asok_trace.RequestFilter())


def say(event, **facts):
    """Log ``event`` twice: through structlog, and through a logger of the standard library."""
    structlog.get_logger().info(event, by="structlog", **facts)
    logging.getLogger("shop.views").info(event, extra={"by": "logging", **facts})


_tick = threading.Event()


def start_clock():
    """Start a thread that belongs to no request and logs a line whenever it is told to."""
    threading.Thread(target=_run_clock, name="clock", daemon=True).start()


def tick():
    """Have that thread log its line."""
    _tick.set()


def _run_clock():
    while _tick.wait():
        _tick.clear()
        say("tick")

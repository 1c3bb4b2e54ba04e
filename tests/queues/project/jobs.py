"""The jobs of the application. It logs through structlog and through the standard library's
logging, to the file that QUEUE_LOG names; nothing in here knows of a worker's set-up."""

import collections
import logging
import os
import sys
import threading

import structlog
from asok import background
from asok.background import task
from pythonjsonlogger.json import JsonFormatter

import asok_trace

_path = os.environ["QUEUE_LOG"]
structlog.configure(
    processors=[asok_trace.inject, structlog.processors.JSONRenderer()],
    logger_factory=structlog.WriteLoggerFactory(
        file=open(_path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # for good
    ),
)
_handler = logging.FileHandler(_path, encoding="utf-8")
_handler.setFormatter(JsonFormatter("%(name)s %(levelname)s %(message)s"))
logging.getLogger().addHandler(_handler)
logging.getLogger().setLevel(logging.INFO)

log = structlog.get_logger()
stdlib = logging.getLogger("shop.jobs")

_tried = collections.Counter()
_four = threading.Barrier(4)


def note(token):
    """Log a line through each."""
    log.info("noted", token=token)
    stdlib.info("noted", extra={"token": token})
    return {"token": token}


@task(queue="high")
def urgent(token):
    """Queued with ``urgent.delay``."""
    log.info("urgent", token=token)


def stubborn(token, failures):
    """Fail so many times, then succeed."""
    _tried[token] += 1
    log.info("trying", token=token, time=_tried[token])
    if _tried[token] <= failures:
        raise LookupError(f"try {_tried[token]}")
    return "done"


def parent(token, depth):
    """Queue jobs from a job, from one in the queue ``low`` on."""
    log.info("parent", token=token, depth=depth)
    if depth:
        background(parent, token, depth - 1, _queue="low")
    else:
        background(note, token)


def meet(token):
    """Wait until three others are here, then log again."""
    log.info("arrived", token=token)
    _four.wait(60)
    log.info("met", token=token)


def leave(token):
    """End in a way that asok does not catch."""
    log.info("leaving", token=token)
    sys.exit(3)


def whose():
    """Return the request id that the job sees."""
    scope = asok_trace.current()
    return scope and scope.request_id

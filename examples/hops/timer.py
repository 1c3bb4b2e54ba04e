"""A timer is a thread that waits first: its lines lose the request's id too.
`asok_trace.wrap` captures the context when the timer is made, not when it fires.
"""

import threading

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


def run(timer: threading.Timer) -> None:
    timer.start()
    timer.join()


with asok_trace.scope("checkout"):
    log.info("in the request")
    run(threading.Timer(0.01, log.info, ["by a bare timer: no id"]))
    run(threading.Timer(0.01, asok_trace.wrap(log.info), ["by a timer"]))

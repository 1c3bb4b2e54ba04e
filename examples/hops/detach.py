"""The other way round: what lives on for good must not carry the request that happened to start
it. With threads carried everywhere, a poller started by the first request would log under its id
for days; `asok_trace.detach` gives it an empty context.
"""

import threading

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


def run(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


with asok_trace.propagate_threads("carry"), asok_trace.scope("checkout"):
    log.info("in the request")
    run(threading.Thread(target=log.info, args=("in a poller, as if for the request",)))
    run(threading.Thread(target=asok_trace.detach(log.info), args=("in a poller: no id",)))

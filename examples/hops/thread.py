"""A thread: Python starts it with an empty context, so its lines lose the request's id.
`asok_trace.wrap` binds the function to the context of whoever calls `wrap`.
"""

import threading

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


def run(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


with asok_trace.scope("checkout"):
    log.info("in the request")
    run(threading.Thread(target=log.info, args=("in a bare thread: no id",)))
    run(threading.Thread(target=asok_trace.wrap(log.info), args=("in a thread",)))

"""A thread pool runs its jobs without the request that submitted them. A `ContextExecutor` is a
ThreadPoolExecutor that takes the context along with each job; in a pool that is not yours, wrap
the function.
"""

from concurrent.futures import ThreadPoolExecutor

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()

with ThreadPoolExecutor() as pool, asok_trace.ContextExecutor() as context_pool:
    with asok_trace.scope("checkout"):
        log.info("in the request")
        pool.submit(log.info, "in a bare pool: no id").result()
        pool.submit(asok_trace.wrap(log.info), "in a pool, wrapped").result()
        context_pool.submit(log.info, "in a ContextExecutor").result()
        list(context_pool.map(log.info, ["by its map(), once", "by its map(), twice"]))
    # The pool's threads have kept nothing of it.
    context_pool.submit(log.info, "in the same pool, after the request: no id").result()

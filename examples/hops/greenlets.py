"""gevent: `gevent.spawn` and gevent's pools start with an empty context, as threads do. Wrap the
function, or carry all of them with `propagate_threads("carry")`. Needs `pip install gevent`.
"""

import gevent
import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()

with asok_trace.scope("checkout"):
    log.info("in the request")
    gevent.spawn(log.info, "in a bare greenlet: no id").join()
    gevent.spawn(asok_trace.wrap(log.info), "in a greenlet, wrapped").join()
    with asok_trace.propagate_threads("carry"):
        gevent.spawn(log.info, "in a greenlet, carried").join()

"""A streamed body: the server iterates it when the view has returned, outside the request.
`asok_trace.wrap_stream` runs each step of it in the request's context. (In an application given
to `asok_trace.instrument` that is done for every response.)
"""

from collections.abc import Iterator
from contextvars import Context

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


def rows(event: str) -> Iterator[bytes]:
    log.info(event)
    yield b"kettle;25\n"
    log.info(event)


with asok_trace.scope("export"):
    log.info("in the request")
    bare = rows("in a bare stream: no id")
    carried = asok_trace.wrap_stream(rows("in a stream"))
    # The server's own context, in which there is no request.
    for body in (bare, carried):
        Context().run(list, body)

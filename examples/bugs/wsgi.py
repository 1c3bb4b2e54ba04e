"""An Asok application with a page of deliberate bugs, which asok_trace finds and explains.

``level="strict"`` is meant for development, tests and staging: it also finds what is left behind
and what is kept alive. Threads are watched, not carried, so that nothing is put right in passing.
``make demo`` visits every bug and shows what is told of it.
"""

import structlog
from asok import Asok

import asok_trace

structlog.configure(processors=[asok_trace.inject])

app = Asok()

asok_trace.instrument(app, level="strict", threads="watch", grace=0.2)

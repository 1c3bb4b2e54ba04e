"""The same pages, with the documented one line and nothing else of ours: no instrument()."""

import structlog
from contract_site import make_app

import asok_trace

structlog.configure(processors=[asok_trace.inject])

app = make_app()

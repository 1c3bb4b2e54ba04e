"""What is shown when a page fails: the id under which support finds every line of it."""

import structlog
from asok import Request

import asok_trace

log = structlog.get_logger()


def render(request: Request) -> str:
    log.error("apologised", token=request.args.get("token"))
    request_id = asok_trace.current().request_id
    return f"<h1>That is our fault</h1><p>Tell us this number, please: {request_id}</p>"

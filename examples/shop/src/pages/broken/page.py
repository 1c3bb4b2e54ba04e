"""A page with a fault in it: the step that failed says so in the trace."""

import structlog
from asok import Request
from opentelemetry import trace

log = structlog.get_logger()
tracer = trace.get_tracer("shop")


def render(request: Request) -> str:
    with tracer.start_as_current_span("open till"):
        log.warning("about to fail", token=request.args.get("token"))
        raise RuntimeError("the till is jammed")

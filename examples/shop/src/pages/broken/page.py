"""A page with a fault in it."""

import structlog
from asok import Request

log = structlog.get_logger()


def render(request: Request) -> str:
    log.warning("about to fail", token=request.args.get("token"))
    raise RuntimeError("the till is jammed")

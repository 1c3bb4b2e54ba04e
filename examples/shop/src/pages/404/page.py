"""What is shown where there is nothing."""

import structlog
from asok import Request

log = structlog.get_logger()


def render(request: Request) -> str:
    log.warning("nothing there", token=request.args.get("token"))
    return "<h1>There is nothing here</h1>"

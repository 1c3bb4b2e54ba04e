"""Log out."""

import structlog
from asok import Request

log = structlog.get_logger()


def post(request: Request) -> str:
    token = request.args.get("token")
    log.info("logout asked for", token=token)
    request.logout()
    log.info("logged out", token=token)
    return request.redirect("/")

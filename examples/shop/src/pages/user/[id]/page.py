"""Somebody's profile. The path says whose, the stamp says who looks at it."""

import structlog
from asok import Request
from models.user import User

log = structlog.get_logger()


def render(request: Request) -> str:
    request.require_auth()
    found = User.find(id=request.params["id"])
    if found is None:
        request.abort(404)
    log.info("profile shown", token=request.args.get("token"), of=found.id)
    return request.html("page.html", found=found)

"""Log in: the user changes in the middle of this request, and so do its lines."""

import structlog
from asok import Request

log = structlog.get_logger()


def get(request: Request) -> str:
    log.info("login form shown", token=request.args.get("token"))
    return request.html("page.html")


def post(request: Request) -> str:
    token = request.args.get("token")
    log.info("login asked for", token=token)
    name, password = request.form.get("name"), request.form.get("password")
    if not request.authenticate(name=name, password=password):
        log.warning("login refused", token=token)
        request.status_code(401)
        return request.html("page.html")
    log.info("logged in", token=token)
    return request.redirect("/")

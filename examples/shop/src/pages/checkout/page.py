"""Buy: the receipt is mailed in the background, under the id of this request."""

import mail
import structlog
from asok import Request, background

log = structlog.get_logger()


def post(request: Request) -> str:
    request.require_auth()
    token = request.args.get("token")
    background(mail.send_receipt, request.user.id, token)
    log.info("order placed", token=token)
    return request.text("Thank you. A receipt is on its way.")

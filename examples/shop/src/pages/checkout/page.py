"""Buy: the receipt is mailed in the background, under the id of this request."""

import mail
import stock
import structlog
from asok import Request, background
from opentelemetry import trace

log = structlog.get_logger()
tracer = trace.get_tracer("shop")


def post(request: Request) -> str:
    request.require_auth()
    token = request.args.get("token")
    with tracer.start_as_current_span("place order"):
        total = sum(product.price for product in stock.available(token))
        with tracer.start_as_current_span("charge card"):
            log.info("card charged", token=token, euros=total)
    background(mail.send_receipt, request.user.id, token)
    log.info("order placed", token=token)
    return request.text("Thank you. A receipt is on its way.")

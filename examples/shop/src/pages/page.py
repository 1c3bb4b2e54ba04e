"""The catalogue, from a template."""

import stock
import structlog
from asok import Request

log = structlog.get_logger()


def render(request: Request) -> str:
    token = request.args.get("token")
    products = stock.available(token)
    name = request.user.name if request.user else "stranger"
    log.info("catalogue shown", token=token, products=len(products))
    return request.html("page.html", products=products, name=name)

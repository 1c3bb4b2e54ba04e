"""The catalogue for programs."""

import stock
import structlog
from asok import Request

log = structlog.get_logger()


def get(request: Request) -> str:
    token = request.args.get("token")
    products = stock.available(token)
    log.info("products served", token=token, products=len(products))
    return request.api([product._asdict() for product in products])

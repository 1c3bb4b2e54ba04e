"""The stock as CSV, streamed: the rows are made after the view has returned."""

from collections.abc import Iterator

import stock
import structlog
from asok import Request

log = structlog.get_logger()


def render(request: Request) -> Iterator[str]:
    request.content_type = "text/csv; charset=utf-8"
    request.page_id = ""  # or Asok ends every streamed body with an HTML comment
    return rows(request.args.get("token"))


def rows(token: str | None) -> Iterator[str]:
    log.info("export started", token=token)
    yield "product,price\n"
    for product in stock.available(token):
        yield f"{product.name},{product.price}\n"
    log.info("export ended", token=token)

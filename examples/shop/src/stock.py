"""What is for sale."""

import time
from typing import NamedTuple

import structlog

log = structlog.get_logger()


class Product(NamedTuple):
    name: str
    price: int


def available(token: str | None) -> list[Product]:
    """Return what is in stock. The request is not handed down to here, yet the line has its id."""
    log.info("counting stock", token=token)
    time.sleep(0.01)  # a warehouse that takes its time, so that requests overlap
    return [Product("kettle", 35), Product("teapot", 28), Product("cup", 6)]

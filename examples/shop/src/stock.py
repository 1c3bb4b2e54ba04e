"""What is for sale."""

import time
from typing import NamedTuple

import structlog
from opentelemetry import trace

log = structlog.get_logger()
tracer = trace.get_tracer("shop")


class Product(NamedTuple):
    name: str
    price: int


@tracer.start_as_current_span("count stock")
def available(token: str | None) -> list[Product]:
    """Return what is in stock. The request is not handed down to here, yet the line has its id,
    and the step is in its trace."""
    log.info("counting stock", token=token)
    time.sleep(0.01)  # a warehouse that takes its time, so that requests overlap
    return [Product("kettle", 35), Product("teapot", 28), Product("cup", 6)]

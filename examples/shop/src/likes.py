"""Likes, counted over WebSocket: a message to ``/likes/kettle`` is a like for the kettle.

`asok_trace.instrument(ws)` in ``wsgi.py`` makes each message a piece of work with a request id of
its own, and `current_request` the connection's request. No handler knows of it.
"""

import time
from collections import Counter
from threading import Lock

import structlog
from asok import WebSocketServer, current_request
from asok.ws.connection import Connection
from opentelemetry import trace

import asok_trace

ROUTE = "/likes/[product]"

log = structlog.get_logger()
tracer = trace.get_tracer("shop")

_likes: Counter[str] = Counter()
_lock = Lock()


def register(ws: WebSocketServer) -> None:
    """Serve the counter on ``ws``."""
    ws.on_connect(ROUTE)(opened)
    ws.on(ROUTE)(liked)
    ws.on_disconnect(ROUTE)(closed)


def opened(connection: Connection) -> None:
    log.info("counter opened", token=current_request.headers.get("X-Token"))
    _answer(connection)


def liked(connection: Connection, token: str) -> None:
    count(connection.params["product"], token)
    log.info("liked", token=token)
    _answer(connection)


def closed(connection: Connection) -> None:
    log.info("counter closed", token=current_request.headers.get("X-Token"))


def count(product: str, token: str) -> None:
    """Add a like. The connection is not handed down to here, yet the line has its stamp."""
    user = current_request.user
    with tracer.start_as_current_span("count like"):
        log.info("counting like", token=token, by=user.name if user else "stranger")
        time.sleep(0.01)  # a database that takes its time, so that messages overlap
        with _lock:
            _likes[product] += 1


def _answer(connection: Connection) -> None:
    """A message has no response with a header, so the answer says the id."""
    likes = _likes[connection.params["product"]]
    connection.send_json({"likes": likes, "request_id": asok_trace.current().request_id})

"""Two applications of no framework, the same in WSGI and in ASGI. needs: asok"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog

from tests.gateway.sites import Line, Reply, asgi_scope, receiving, replied

App = Callable[..., Any]


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Its response depends on the path."""
    path = environ["PATH_INFO"]
    structlog.get_logger().info("inside")
    if path == "/boom":
        raise LookupError(path)
    start_response("404 Not Found" if path == "/none" else "200 OK", [("Content-Type", "x/y")])
    return _parts() if path == "/stream" else [b"one", b"two"]


def _parts() -> Iterator[bytes]:
    yield b"one"
    structlog.get_logger().info("streaming")
    yield b"two"


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """The same in ASGI."""
    path = scope["path"]
    structlog.get_logger().info("inside")
    if path == "/boom":
        raise LookupError(path)
    status = 404 if path == "/none" else 200
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(b"content-type", b"x/y")]})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    if path == "/stream":
        structlog.get_logger().info("streaming")
    await send({"type": "http.response.body", "body": b"two"})


APPS: dict[str, App] = {"wsgi": wsgi_app, "asgi": asgi_app}


def events(lines: list[Line]) -> list[str]:
    """What was logged, in order."""
    return [line["event"] for line in lines]


def patient(app: App, path: str = "/plain") -> Reply:
    """Send one request as an ASGI client that stays until it has the response; that of
    `tests.gateway.sites` is gone once the request was read, which Django minds."""
    sent: list[Any] = []
    body = receiving()
    asked: list[bool] = []

    async def receive() -> Any:
        if asked:
            await asyncio.Event().wait()
        asked.append(True)
        return await body()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(asgi_scope(path), receive, send))
    return replied(sent)

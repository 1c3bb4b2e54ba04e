"""A small Quart site, driven by its own test client. needs: quart"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import quart
from quart import globals as quart_globals

from tests.frameworks.said import Hook, say

# Quart from 0.23 has one context for all.
MERGED = "_cv_request" not in vars(quart_globals)


class Site:
    """An application whose pages are functions of the test, sync or async, each under its own
    name."""

    def __init__(self, hook: Hook) -> None:
        self.app = quart.Quart("site")
        self.app.secret_key = secrets.token_hex()
        self.app.testing = True
        hook(self.app)

    def page(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Serve ``function``; what it returns, if anything, is the page."""
        name = function.__name__

        if asyncio.iscoroutinefunction(function):

            async def view() -> Any:
                return await function() or "page"
        else:

            def view() -> Any:  # type: ignore[misc]
                return function() or "page"

        self.app.add_url_rule(f"/{name}", name, view)
        return function

    def socket(self, function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Serve ``function`` as the handler of a WebSocket."""
        self.app.add_websocket(f"/{function.__name__}", function.__name__, function)
        return function

    def get(self, path: str, **request: Any) -> Any:
        """Ask for ``path`` and read the response to its end; a failing page fails the test."""

        async def ask() -> Any:
            async with self.app.test_app() as app:
                reply = await app.test_client().get(path, **request)
                await reply.get_data()
                return reply

        reply = asyncio.run(ask())
        assert reply.status_code == 200
        return reply

    def talk(self, path: str, *messages: Any, **request: Any) -> list[Any]:
        """Open a WebSocket, send each message and wait for its answer, then leave."""

        async def talk() -> list[Any]:
            client = self.app.test_client()
            answers = []
            async with client.websocket(path, **request) as socket:
                for message in messages:
                    await socket.send(message)
                    answers.append(await socket.receive())
            return answers

        return asyncio.run(talk())

    def fail(self, path: str) -> None:
        """Open a WebSocket whose handler sets `failing` and raises; what of it comes through to
        the client differs from version to version."""
        self.failing = asyncio.Event()

        async def talk() -> None:
            async with self.app.test_client().websocket(path) as socket:
                await socket.send("x")
                await self.failing.wait()

        with suppress(Exception):
            asyncio.run(asyncio.wait_for(talk(), 10))


async def echo() -> None:
    """A handler that answers every message."""
    say("handshake")
    while True:
        say(f"got {await quart.websocket.receive()}")
        await quart.websocket.send("answer")

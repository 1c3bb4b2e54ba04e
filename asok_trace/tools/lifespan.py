"""ASGI's lifespan protocol, the server's side of it."""

import asyncio
import contextlib
from typing import Any, Final

from asok_trace.core import text

_REASON_LIMIT: Final = 200


class Lifespan:
    """The application's startup and shutdown, as a server has it do them."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> str | None:
        """Return why it has failed; None if it has not. An application may not know of it."""
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._serve())
        message = await self._next("lifespan.startup")
        if message.get("type") != "lifespan.startup.failed":
            return None
        last = message.get("message", "").strip().rpartition("\n")[2]  # it may be a traceback
        return text.clean(last or "it gives no reason", _REASON_LIMIT)

    async def shutdown(self) -> None:
        """Return when it is done."""
        await self._next("lifespan.shutdown")

    async def _next(self, event: str) -> dict[str, Any]:
        self._said.put_nowait({"type": event})
        return await self._told.get()

    async def _serve(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        # One that raises knows of no lifespan; one that knows has said that it failed.
        with contextlib.suppress(Exception):
            await self._app(scope, self._said.get, self._told.put)
        for _ in range(2):  # who waits for its startup, and for its shutdown
            self._told.put_nowait({})

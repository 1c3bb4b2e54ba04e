"""Requests that somebody keeps after their end."""

import asyncio
import contextvars
import queue
import threading
from concurrent.futures import Future
from typing import Any

import structlog

from tests.findings.corpus import bug
from tests.findings.stage import Stage

log = structlog.get_logger()

CACHE: dict[str, Any] = {}  # FOUND HERE, of CACHE
IN_CACHE = "# FOUND HERE, of CACHE"
SEEN: list[Any] = []  # FOUND HERE, of SEEN


@bug(
    "retained", fix="keep what is needed", of="GET /cart", level="strict", grace=0.0, found=IN_CACHE
)
def request_in_a_global_cache(stage: Stage) -> None:
    from flask import request

    @stage.view  # STARTED HERE
    def cart():
        CACHE["last"] = request._get_current_object()
        # FIXED: CACHE["last"] = request.path
        return "bought"

    CACHE.clear()
    stage.get("/cart")


@bug(
    *("retained", "asok"),
    fix="keep what is needed",
    of="GET /cart",
    level="strict",
    grace=0.0,
    found="# FOUND HERE, of SEEN",
    origin="src/pages/[name]/page.py:1 ",
)
def asoks_request_in_a_global_list(stage: Stage) -> None:
    @stage.view
    def cart(request):
        SEEN.append(request)
        # FIXED: SEEN.append(request.path)
        return "bought"

    SEEN.clear()
    stage.get("/cart")


@bug(
    "retained",
    "quart",
    fix="drop the future",
    of="GET /cart",
    level="strict",
    grace=0.0,
    found=IN_CACHE,
)
async def request_in_a_done_future(stage: Stage) -> None:
    from quart import request

    CACHE["future"] = Future()

    @stage.view  # STARTED HERE
    async def cart():
        CACHE["future"].set_result(request._get_current_object())
        # FIXED: CACHE["future"].set_result(request.path)
        return "bought"

    await stage.ask("/cart")


@bug(
    "retained",
    "quart",
    fix="context=contextvars.Context()",
    of="GET /cart",
    level="strict",
    grace=0.0,
    found=IN_CACHE,
)
async def request_in_a_done_callback(stage: Stage) -> None:
    CACHE["future"] = asyncio.get_running_loop().create_future()

    @stage.view  # STARTED HERE
    async def cart():
        CACHE["future"].add_done_callback(print)
        # FIXED: CACHE["future"].add_done_callback(print, context=contextvars.Context())
        return "bought"

    await stage.ask("/cart")


@bug(
    "retained",
    fix="put what the consumer needs",
    of="GET /cart",
    level="strict",
    grace=0.0,
    found=IN_CACHE,
)
def request_in_a_queue(stage: Stage) -> None:
    from flask import request

    CACHE["queue"] = queue.Queue()

    @stage.view  # STARTED HERE
    def cart():
        CACHE["queue"].put(request._get_current_object())
        # FIXED: CACHE["queue"].put(request.path)
        return "bought"

    stage.get("/cart")


@bug(
    "retained",
    fix="asok_trace.wrap(work, outlive=True)",
    of="GET /cart",
    level="strict",
    grace=0.0,
    found=IN_CACHE,
)
def context_kept(stage: Stage) -> None:
    @stage.view  # STARTED HERE
    def cart():
        CACHE["context"] = contextvars.copy_context()
        # FIXED: CACHE["context"] = contextvars.Context()
        return "bought"

    stage.get("/cart")


@bug(
    "retained",
    fix="asok_trace.wrap(heartbeat, outlive=True)",
    of="GET /cart",
    level="strict",
    grace=0.0,
    mode="carry",
    alone=True,
)
def thread_that_never_ends(stage: Stage) -> None:
    def heartbeat():
        threading.Event().wait()  # FOUND HERE

    @stage.view  # STARTED HERE
    def cart():
        threading.Thread(target=heartbeat, daemon=True).start()
        # FIXED: import asok_trace
        # FIXED: threading.Thread(target=asok_trace.detach(heartbeat), daemon=True).start()
        return "bought"

    stage.get("/cart")


@bug(
    "retained",
    "quart",
    fix="asok_trace.wrap(heartbeat, outlive=True)",
    of="GET /cart",
    level="strict",
    grace=0.0,
)
async def task_that_never_ends(stage: Stage) -> None:
    import asok_trace

    tasks = []

    async def heartbeat():
        await asyncio.Event().wait()  # FOUND HERE

    @stage.view  # STARTED HERE
    async def cart():
        tasks.append(asyncio.create_task(heartbeat()))
        # FIXED: tasks.append(asyncio.create_task(asok_trace.detach(heartbeat)()))
        return "bought"

    await stage.ask("/cart")
    asok_trace.findings()  # while the task waits
    tasks.pop().cancel()

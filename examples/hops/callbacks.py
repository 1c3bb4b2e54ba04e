"""Callbacks: asyncio's own (`call_later`, a task's `add_done_callback`) carry the request by
themselves. A callback on a pool's future runs in the pool's thread, and loses it: wrap it.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


async def main() -> None:
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    loop.call_later(0.01, lambda: (log.info("by call_later()"), called.set()))
    await called.wait()
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(lambda _: log.info("by a task's callback"))
    await task


with ThreadPoolExecutor(1) as pool, asok_trace.scope("checkout"):
    log.info("in the request")
    asyncio.run(main())
    gate = Event()
    future = pool.submit(gate.wait)
    future.add_done_callback(lambda _: log.info("by a future's bare callback: no id"))
    future.add_done_callback(asok_trace.wrap(lambda _: log.info("by a future's callback")))
    gate.set()

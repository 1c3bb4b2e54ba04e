"""`asyncio.to_thread` carries the request by itself, unlike `run_in_executor` (executor.py): it
copies the context for each call. Nothing is to be done.
"""

import asyncio

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


async def main() -> None:
    with asok_trace.scope("checkout"):
        log.info("in the request")
        await asyncio.to_thread(log.info, "in a thread of to_thread()")
    await asyncio.to_thread(log.info, "after the request: no id")


asyncio.run(main())

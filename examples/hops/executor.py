"""asyncio's `run_in_executor` hands work to a pool of threads without the context: its lines lose
the request's id. Wrap the function, or give the loop a `ContextExecutor`.
"""

import asyncio

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


async def main() -> None:
    loop = asyncio.get_running_loop()
    with asok_trace.scope("checkout"):
        log.info("in the request")
        await loop.run_in_executor(None, log.info, "in a bare executor: no id")
        await loop.run_in_executor(None, asok_trace.wrap(log.info), "in an executor, wrapped")
        loop.set_default_executor(asok_trace.ContextExecutor())
        await loop.run_in_executor(None, log.info, "in a ContextExecutor")


asyncio.run(main())

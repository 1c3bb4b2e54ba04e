"""Tasks carry the request by themselves: asyncio copies the context for each, for `gather` as for
a `TaskGroup`. Nothing is to be done, and two requests at once are never mixed.
"""

import asyncio

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


async def charge(what: str) -> None:
    await asyncio.sleep(0)  # the other tasks run meanwhile
    log.info(f"in a task: {what}")


async def main() -> None:
    with asok_trace.scope("checkout"):
        log.info("in the request")
        await asyncio.gather(charge("card"), charge("voucher"))
        async with asyncio.TaskGroup() as group:
            group.create_task(charge("points"))


asyncio.run(main())

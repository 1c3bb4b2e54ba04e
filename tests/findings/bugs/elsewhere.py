"""Variables that are reset in another context than they were set in."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import structlog

import asok_trace
from tests.findings.corpus import bug
from tests.findings.stage import Stage

log = structlog.get_logger()

TENANT: ContextVar[str] = ContextVar("tenant", default="none")

NOTE = "is reset in another context than it was set in, during request"


@bug("foreign", "asok", fix="in one task and thread", of="GET /cart", note=NOTE, says="request")
def asoks_request_entered_and_left_elsewhere(stage: Stage) -> None:
    from asok.context import request_context

    @stage.view
    def cart(request):
        other = request_context(request)
        copy_context().run(other.__enter__)
        # FIXED: other.__enter__()
        try:
            other.__exit__(None, None, None)  # FOUND HERE
        except ValueError as error:
            stage.error = error
            raise
        return "bought"

    stage.get("/cart")


@bug("foreign", "asok", fix="in one task and thread", of="GET /async/cart", note=NOTE)
async def asoks_request_entered_in_another_task(stage: Stage) -> None:
    from asok.context import request_context

    @stage.view
    async def cart(request):
        other = request_context(request)

        async def enter():
            other.__enter__()

        await asyncio.create_task(enter())
        # FIXED: await enter()
        try:
            other.__exit__(None, None, None)  # FOUND HERE
        except ValueError as error:
            stage.error = error
            raise
        return "bought"

    await stage.ask("/async/cart")


@bug("foreign", fix="in one task and thread", of="GET /cart", note=NOTE, says="'tenant'")
def token_given_to_a_job_that_is_carried(stage: Stage) -> None:
    def charge(token):
        TENANT.reset(token)  # FOUND HERE

    @stage.view
    def cart():
        token = TENANT.set("acme")
        with ThreadPoolExecutor(1) as pool:
            stage.error = pool.submit(asok_trace.wrap(charge), token).exception()
            # FIXED: pool.submit(asok_trace.wrap(log.info), "charged").result()
            # FIXED: charge(token)
        return "bought"

    stage.get("/cart")


@bug("foreign", "quart", fix="in one task and thread", of="GET /cart", note=NOTE, says="'tenant'")
async def token_given_to_a_task(stage: Stage) -> None:
    async def charge(token):
        TENANT.reset(token)  # FOUND HERE

    @stage.view
    async def cart():
        token = TENANT.set("acme")
        try:
            await asyncio.create_task(charge(token))
            # FIXED: await charge(token)
        except ValueError as error:
            stage.error = error
            raise
        return "bought"

    await stage.ask("/cart")


@bug("foreign", "quart", fix="in one task", of="GET /cart", note=NOTE, says="structlog_tenant")
async def structlogs_tokens_given_to_a_task(stage: Stage) -> None:
    async def charge(tokens):
        structlog.contextvars.reset_contextvars(**tokens)  # FOUND HERE

    @stage.view
    async def cart():
        tokens = structlog.contextvars.bind_contextvars(tenant="acme")
        try:
            await asyncio.create_task(charge(tokens))
            # FIXED: await charge(tokens)
        except ValueError as error:
            stage.error = error
            raise
        return "bought"

    await stage.ask("/cart")


@bug("foreign", "quart", fix="aclosing()", of="GET /export", note=NOTE, says="'tenant'")
async def variable_set_around_a_yield(stage: Stage) -> None:
    async def rows():
        token = TENANT.set("acme")
        try:
            yield 1
            yield 2
        finally:
            TENANT.reset(token)  # FOUND HERE

    async def following(made):
        return await anext(made)

    @stage.view
    async def export():
        made = rows()
        await asyncio.create_task(following(made))
        # FIXED: await following(made)
        try:
            await made.aclose()
        except ValueError as error:
            stage.error = error
            raise
        return "exported"

    await stage.ask("/export")


@bug("bleed", fix="bound_contextvars", of="GET /export", level="strict", says="variables tenant")
def structlogs_variables_around_a_yield(stage: Stage) -> None:
    """It resets no token: in the pool's thread it takes out nothing."""

    def rows():
        with structlog.contextvars.bound_contextvars(tenant="acme"):
            yield 1
            yield 2

    @stage.view  # FOUND HERE
    def export():
        made = rows()
        next(made)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(made.close).result()
            # FIXED: made.close()
        return "exported"

    stage.get("/export")

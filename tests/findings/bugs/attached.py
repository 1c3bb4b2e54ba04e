"""OpenTelemetry contexts that are not detached as they should be, where its context is strict."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing  # noqa: F401  # of the twins

from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach

import asok_trace
from tests.findings.corpus import bug
from tests.findings.stage import Stage

STRICT = {"OTEL_PYTHON_CONTEXT": "asok_trace_strict"}
TOGETHER = "one detach()"


def charging():
    """A context with a span."""
    return trace.set_span_in_context(trace.get_tracer("bank").start_span("charge card"))


@bug(
    *("foreign", "quart"),
    environment=STRICT,
    spans=True,
    fix=TOGETHER,
    of="GET /cart",
    says="was detached in another task",
)
async def detached_by_another_task(stage: Stage) -> None:
    async def end(token):
        detach(token)  # FOUND HERE

    @stage.view
    async def cart():
        token = attach(charging())  # STARTED HERE
        await asyncio.create_task(end(token))
        # FIXED: await end(token)
        return "bought"

    await stage.ask("/cart")


@bug(
    *("foreign", "asok"),
    environment=STRICT,
    spans=True,
    fix=TOGETHER,
    of="GET /cart",
    says="was detached in another thread",
)
def detached_by_a_job(stage: Stage) -> None:
    def end(token):
        detach(token)  # FOUND HERE

    @stage.view
    def cart(request):
        token = attach(charging())  # STARTED HERE
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asok_trace.wrap(end), token).result()
            # FIXED: pool.submit(asok_trace.wrap(charging)).result()
            # FIXED: end(token)
        return "bought"

    stage.get("/cart")


@bug(
    "foreign",
    environment=STRICT,
    spans=True,
    fix=TOGETHER,
    of="GET /cart",
    says="after what it was attached over",
)
def detached_out_of_order(stage: Stage) -> None:
    @stage.view
    def cart():
        outer = attach(baggage.set_baggage("tenant", "acme"))
        inner = attach(charging())  # STARTED HERE
        detach(outer)  # NAMED HERE
        # FIXED: detach(inner)
        detach(inner)  # FOUND HERE
        # FIXED: detach(outer)
        return "bought"

    stage.get("/cart")


@bug(
    "foreign",
    environment=STRICT,
    spans=True,
    fix=TOGETHER,
    of="GET /cart",
    says="was detached twice",
)
def detached_twice(stage: Stage) -> None:
    @stage.view
    def cart():
        token = attach(charging())  # STARTED HERE
        try:
            detach(token)
            # FIXED: trace.get_current_span().end()
        finally:
            detach(token)  # FOUND HERE
        return "bought"

    stage.get("/cart")


@bug(
    *("unclosed", "quart"),
    environment=STRICT,
    spans=True,
    fix="detach() it in a finally",
    of="GET /cart",
    says="was never detached",
)
async def never_detached(stage: Stage) -> None:
    """Quart's views run in a task each, which no gateway sees."""

    @stage.view
    async def cart():
        attach(charging())  # FOUND HERE
        # FIXED: detach(attach(charging()))
        return "bought"

    await stage.ask("/cart")


@bug(
    "unclosed",
    environment=STRICT,
    fix="detach() it in a finally",
    of="GET /cart",
    says="was never detached",
)
def baggage_never_detached(stage: Stage) -> None:
    @stage.view
    def cart():
        attach(baggage.set_baggage("tenant", "acme"))  # FOUND HERE
        # FIXED: detach(attach(baggage.set_baggage("tenant", "acme")))
        return "bought"

    stage.get("/cart")


@bug("bleed", environment=STRICT, spans=True, fix="start_as_current_span", of="GET /cart")
def span_never_detached(stage: Stage) -> None:
    @stage.view  # FOUND HERE
    def cart():
        attach(charging())  # NAMED HERE
        # FIXED: detach(attach(charging()))
        return "bought"

    stage.get("/cart")


@bug(
    *("foreign", "quart"),
    environment=STRICT,
    spans=True,
    fix="aclosing()",
    of="GET /stock",
    says="was detached in another",
)
async def generator_broken_off(stage: Stage) -> None:
    async def products():
        with trace.get_tracer("stock").start_as_current_span("count"):  # FOUND HERE # STARTED HERE
            yield "cup"
            yield "kettle"

    @stage.view
    async def stock():
        async for _ in products():
            break
            # FIXED: pass
        return "found"

    await stage.ask("/stock")
    gc.collect()
    await asyncio.sleep(0)  # asyncio closes it in a task of its own
    await asyncio.sleep(0)


@bug(
    *("foreign", "quart"),
    environment=STRICT,
    spans=True,
    fix="aclosing()",
    of="GET /stock",
    says="was detached in another task",
)
async def generator_closed_by_another_task(stage: Stage) -> None:
    async def products():
        with trace.get_tracer("stock").start_as_current_span("count"):  # FOUND HERE # STARTED HERE
            yield "cup"
            yield "kettle"

    async def end(made):
        await made.aclose()

    @stage.view
    async def stock():
        made = products()
        await anext(made)
        await asyncio.create_task(end(made))
        # FIXED: async with aclosing(made):
        # FIXED:     pass
        return "found"

    await stage.ask("/stock")


@bug(
    "foreign",
    environment=STRICT,
    spans=True,
    fix="contextlib.closing()",
    of="GET /stock",
    says="after what it was attached over",
)
def generators_taken_in_turns(stage: Stage) -> None:
    def products(name):
        with trace.get_tracer("stock").start_as_current_span(name):  # FOUND HERE # STARTED HERE
            yield name

    @stage.view
    def stock():
        return str(list(zip(products("cups"), products("kettles"), strict=True)))
        # FIXED: return str([*products("cups"), *products("kettles")])

    stage.get("/stock")

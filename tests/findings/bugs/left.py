"""What a request leaves behind in its context, or closes in another one."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace

import asok_trace
from tests.findings.corpus import bug
from tests.findings.stage import Stage

log = structlog.get_logger()


@bug("bleed", fix="in one with block", of="GET /cart")
def request_made_for_a_url_and_left(stage: Stage) -> None:
    @stage.app.teardown_appcontext
    def ping(error):
        other = stage.app.test_request_context("/other")
        other.push()
        # FIXED: with other:
        # FIXED:     pass

    @stage.view  # FOUND HERE
    def cart():
        return "bought"

    stage.get("/cart")


@bug("unclosed", "asok", mode="watch", fix="in one with block", of="GET /cart")
def asoks_request_left_on_a_pools_thread(stage: Stage) -> None:
    from asok.context import request_var

    pool = ThreadPoolExecutor(1)

    def charge(request):  # FOUND HERE
        request_var.set(request)
        # FIXED: with request_context(request):
        # FIXED:     pass

    def report():
        with asok_trace.scope("report"):
            log.info("reported")

    @stage.view
    def cart(request):
        pool.submit(charge, request).result()  # STARTED HERE
        return "bought"

    stage.get("/cart")
    pool.submit(report).result()
    pool.shutdown()


@bug("bleed", fix="bound_contextvars", of="GET /cart", level="strict")
def structlog_bound_and_not_cleared(stage: Stage) -> None:
    @stage.view  # FOUND HERE
    def cart():
        structlog.contextvars.bind_contextvars(tenant="acme")
        # FIXED: with structlog.contextvars.bound_contextvars(tenant="acme"):
        # FIXED:     log.info("bought")
        return "bought"

    stage.get("/cart")


@bug("bleed", fix="start_as_current_span", of="GET /cart", spans=True)
def span_attached_and_not_detached(stage: Stage) -> None:
    @stage.view  # FOUND HERE
    def cart():
        span = trace.get_tracer("bank").start_span("charge card")
        otel_context.attach(trace.set_span_in_context(span))
        # FIXED: otel_context.detach(otel_context.attach(trace.set_span_in_context(span)))
        span.end()
        return "bought"

    stage.get("/cart")


@bug("bleed", fix="start_as_current_span", of="GET /stock", spans=True)
def generator_with_a_span_broken_off(stage: Stage) -> None:
    kept = []

    def products():
        with trace.get_tracer("stock").start_as_current_span("count"):
            yield "cup"
            yield "kettle"

    @stage.view  # FOUND HERE
    def stock():
        found = products()
        assert next(found) == "cup"
        kept.append(found)
        # FIXED: found.close()
        return "found"

    stage.get("/stock")
    kept.clear()


@bug("foreign", fix="enter and leave it in one task", of="import")
def scope_closed_in_another_context(stage: Stage) -> None:
    imported = asok_trace.scope("import")

    @stage.view
    def page():
        return "page"

    stage.get("/page")
    contextvars.Context().run(imported.__enter__)  # STARTED HERE
    # FIXED: imported.__enter__()
    imported.__exit__(None, None, None)  # FOUND HERE


@bug("foreign", "quart", fix="enter and leave it in one task", of="rows")
async def generator_closed_by_another_task(stage: Stage) -> None:
    async def rows():
        with asok_trace.scope("rows"):  # STARTED HERE  # FOUND HERE
            yield 1
            yield 2

    @stage.view
    async def export():
        made = rows()
        await asyncio.create_task(following(made))
        # FIXED: await following(made)
        await made.aclose()
        return "exported"

    async def following(made):
        return await anext(made)

    await stage.ask("/export")


@bug("bleed", "asok", fix="signal's receiver", of="GET /cart", found="src/pages/[name]/page.py:1 ")
def receiver_that_raises_under_waitress(stage: Stage) -> None:
    from asok.core.signals import request_finished

    from tests.gateway.sites import connect, fetch, waitress_serving

    left = threading.Event()

    class Stop(BaseException):
        pass

    @stage.view
    def cart(request):
        return "bought"

    def receiver(sender, **_):
        left.set()
        raise Stop
        # FIXED: return

    request_finished.connect(receiver)
    try:
        with waitress_serving(stage.app, threads=1) as port:
            with connect(port) as client:  # which waitress answers nothing
                client.sendall(b"GET /cart HTTP/1.1\r\nHost: localhost\r\n\r\n")
                stage.wait(left)
            request_finished.disconnect(receiver)
            fetch(port, "/plain")
    finally:
        request_finished.disconnect(receiver)


@bug("unclosed", fix="with asok_trace.scope('charge')", of="charge", level="strict")
def scope_entered_and_never_left(stage: Stage) -> None:
    @stage.view
    def cart():
        asok_trace.scope("charge").__enter__()  # FOUND HERE
        # FIXED: with asok_trace.scope("charge"):
        # FIXED:     pass
        return "bought"

    stage.get("/cart")

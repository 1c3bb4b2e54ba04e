"""Work with no request behind it."""

import asyncio
import queue
import threading

import structlog

import asok_trace  # noqa: F401  # of the twins
from tests.findings.corpus import bug
from tests.findings.stage import Stage

log = structlog.get_logger()


@bug("outside", fix='asok_trace.scope("clean")', mode="watch")
def cron_thread(stage: Stage) -> None:
    served, cleaned = threading.Event(), threading.Event()

    def clean():
        stage.wait(served)
        log.info("cleaned")  # FOUND HERE
        # FIXED: with asok_trace.scope("clean"):
        # FIXED:     log.info("cleaned")
        cleaned.set()

    @stage.view
    def page():
        return "page"

    thread = threading.Thread(target=clean)
    thread.start()
    stage.get("/page")
    served.set()
    thread.join()


@bug("outside", fix='asok_trace.scope("consume")')
def consumers_loop(stage: Stage) -> None:
    messages: queue.Queue[str | None] = queue.Queue()

    def handle(message):
        log.info("handled", message=message)  # FOUND HERE

    def consume():
        while message := messages.get():
            handle(message)
            # FIXED: with asok_trace.scope("message", kind="message"):
            # FIXED:     handle(message)

    @stage.view
    def page():
        return "page"

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    stage.get("/page")
    for message in ("one", "two", None):
        messages.put(message)
    consumer.join()


@bug("outside", "quart", fix='asok_trace.scope("tick")')
async def task_started_before_serving(stage: Stage) -> None:
    served = asyncio.Event()

    async def tick():
        await served.wait()
        log.info("tick")  # FOUND HERE
        # FIXED: with asok_trace.scope("tick"):
        # FIXED:     log.info("tick")

    @stage.view
    async def page():
        return "page"

    clock = asyncio.create_task(tick())
    await stage.ask("/page")
    served.set()
    await clock


@bug("outside", fix='asok_trace.scope("reconcile")', mode="carry", spans=True)
def span_of_nobody(stage: Stage) -> None:
    from opentelemetry import trace

    def reconcile():
        trace.get_tracer("bank").start_span("reconcile").end()  # FOUND HERE
        # FIXED: with asok_trace.scope("reconcile"):
        # FIXED:     trace.get_tracer("bank").start_span("reconcile").end()

    @stage.view
    def page():
        return "page"

    stage.get("/page")
    thread = threading.Thread(target=reconcile)
    thread.start()
    thread.join()

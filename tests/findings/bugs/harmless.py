"""What looks like a bug and is none."""

import asyncio
import gc
import signal
import threading

import structlog

from tests.findings.corpus import bug
from tests.findings.stage import Stage

log = structlog.get_logger()


@bug(None, mode="watch", level="strict")
def signal_during_a_request(stage: Stage) -> None:
    def handler(*_):
        log.info("signal")

    @stage.view
    def page():
        signal.raise_signal(signal.SIGUSR1)
        return "page"

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        stage.get("/page")
    finally:
        signal.signal(signal.SIGUSR1, before)


@bug(None, mode="watch", level="strict")
def finalizer_during_a_later_request(stage: Stage) -> None:
    class Circle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            log.info("gone")

    @stage.view
    def first():
        Circle()
        return "first"

    @stage.view
    def second():
        gc.collect()
        return "second"

    gc.disable()
    try:
        stage.get("/first")
        stage.get("/second")
    finally:
        gc.enable()


@bug(None, mode="watch", level="strict")
def thread_that_waits_and_says_nothing(stage: Stage) -> None:
    end = threading.Event()
    threads = []

    @stage.view
    def page():
        threads.append(threading.Thread(target=end.wait, daemon=True))
        threads[0].start()
        return "page"

    stage.get("/page")
    end.set()
    threads[0].join()


@bug(None, "quart", level="strict")
async def structlog_bound_in_a_task_of_its_own(stage: Stage) -> None:
    """Quart handles each request in a task, with which the variables go."""

    @stage.view
    async def cart():
        structlog.contextvars.bind_contextvars(tenant="acme")
        return "bought"

    await stage.ask("/cart")


@bug(None, "asok", level="strict")
def request_set_and_put_right_by_asok(stage: Stage) -> None:
    """Asok resets its variable to what it was before the request."""
    from asok.context import request_var
    from asok.request import Request

    from tests.gateway.sites import environ

    @stage.view
    def cart(request):
        request_var.set(Request(environ("/other")))
        return "bought"

    stage.get("/cart")


@bug(None, level="strict")
def request_read_in_a_loop_of_the_views_thread(stage: Stage) -> None:
    """`asyncio.run` copies the context that it is called in."""
    from flask import request

    async def collect():
        log.info("collecting")
        return request.path

    @stage.view
    def report():
        return asyncio.run(collect())

    stage.get("/report")


@bug(None, "asok", level="strict")
def asoks_request_asked_for_outside(stage: Stage) -> None:
    """Whether there is one may be asked anywhere."""
    from asok import current_request

    known = []

    def job():
        known.append(bool(current_request))

    @stage.view
    def cart(request):
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()
        return "bought"

    stage.get("/cart")
    assert known == [False]


@bug(None, "quart", level="strict")
async def request_read_in_a_done_callback(stage: Stage) -> None:
    """asyncio calls it in the context that it was added in."""
    from quart import request

    seen = []

    async def charge():
        await asyncio.sleep(0)

    @stage.view
    async def cart():
        task = asyncio.create_task(charge())
        task.add_done_callback(lambda _: seen.append(request.path))
        await task
        await asyncio.sleep(0)
        return "bought"

    await stage.ask("/cart")
    assert seen == ["/cart"]

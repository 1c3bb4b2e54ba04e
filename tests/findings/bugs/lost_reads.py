"""The current request, read in work that a request started without its context."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import asok_trace
from tests.findings.corpus import bug
from tests.findings.stage import Stage


@bug(
    *("lost", "asok"),
    mode="watch",
    fix="asok_trace.wrap(charge)",
    of="GET /cart",
    errors=True,
    note="without its context",
)
def asoks_request_read_in_a_thread(stage: Stage) -> None:
    from asok import current_request

    def charge():
        try:
            return current_request.path  # FOUND HERE
        except RuntimeError as error:
            stage.error = error

    @stage.view
    def cart(request):
        thread = threading.Thread(target=charge)
        # FIXED: thread = threading.Thread(target=asok_trace.wrap(charge))
        thread.start()  # STARTED HERE
        thread.join()
        return "bought"

    stage.get("/cart")


@bug(
    "lost",
    mode="watch",
    fix="asok_trace.wrap(charge)",
    of="GET /cart",
    errors=True,
    note="without its context",
)
def flasks_request_read_in_a_pool(stage: Stage) -> None:
    from flask import request

    def charge():
        return request.path  # FOUND HERE

    @stage.view
    def cart():
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(charge)  # STARTED HERE
            # FIXED: job = pool.submit(asok_trace.wrap(charge))
            stage.error = job.exception()
        return "bought"

    stage.get("/cart")


@bug(
    *("lost", "quart"),
    mode="watch",
    fix="asok_trace.wrap(charge)",
    of="GET /cart",
    errors=True,
    note="without its context",
)
async def quarts_request_read_in_an_executor(stage: Stage) -> None:
    from quart import request

    def charge():
        return request.path  # FOUND HERE

    @stage.view
    async def cart():
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, charge)  # STARTED HERE
            # FIXED: await loop.run_in_executor(None, asok_trace.wrap(charge))
        except RuntimeError as error:
            stage.error = error
        return "bought"

    await stage.ask("/cart")


@contextmanager
def kept(stage: Stage) -> Iterator[None]:
    """The error of a thread that nobody catches is kept, and not printed."""
    before = threading.excepthook

    def keep(args: Any) -> None:
        stage.error = args.exc_value

    threading.excepthook = keep
    try:
        yield
    finally:
        threading.excepthook = before


@bug(
    "lost", mode="watch", fix="asok_trace.wrap(charge)", of="GET /cart", note="without its context"
)
def flasks_request_read_in_a_thread(stage: Stage) -> None:
    from flask import request

    def charge():
        print(request.path)  # FOUND HERE

    @stage.view
    def cart():
        thread = threading.Thread(target=charge)
        # FIXED: thread = threading.Thread(target=asok_trace.wrap(charge))
        thread.start()  # STARTED HERE
        thread.join()
        return "bought"

    with kept(stage):
        stage.get("/cart")


@bug(
    *("lost", "quart"),
    mode="watch",
    fix="asok_trace.wrap(charge)",
    of="GET /cart",
    note="without its context",
)
async def quarts_request_read_in_a_thread(stage: Stage) -> None:
    from quart import request

    def charge():
        print(request.path)  # FOUND HERE

    @stage.view
    async def cart():
        thread = threading.Thread(target=charge)
        # FIXED: thread = threading.Thread(target=asok_trace.wrap(charge))
        thread.start()  # STARTED HERE
        thread.join()
        return "bought"

    with kept(stage):
        await stage.ask("/cart")


@bug("lost", "asok", mode="watch", fix="asok_trace.wrap(charge)", of="GET /cart", note="during")
def asoks_request_read_in_a_pool(stage: Stage) -> None:
    from asok import current_request

    def charge():
        return current_request.path  # FOUND HERE

    @stage.view
    def cart(request):
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(charge)  # STARTED HERE
            # FIXED: job = pool.submit(asok_trace.wrap(charge))
            stage.error = job.exception()
        return "bought"

    stage.get("/cart")


@bug(
    *("lost", "asok"),
    mode="watch",
    fix="asok_trace.wrap(charge)",
    of="GET /async/cart",
    note="without its context",
)
async def asoks_request_read_in_an_executor(stage: Stage) -> None:
    from asok import current_request

    def charge():
        return current_request.path  # FOUND HERE

    @stage.view
    async def cart(request):
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, charge)  # STARTED HERE
            # FIXED: await loop.run_in_executor(None, asok_trace.wrap(charge))
        except RuntimeError as error:
            stage.error = error
        return "bought"

    await stage.ask("/async/cart")


@bug("lost", fix="asok_trace.wrap(charge)", of="GET /cart", note="ran in another thread")
def request_read_in_a_pool_that_nobody_watches(stage: Stage) -> None:
    from flask import request

    def charge():
        return request.path  # FOUND HERE

    @stage.view
    def cart():
        with ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(charge).result()
                # FIXED: pool.submit(asok_trace.wrap(charge)).result()
            except RuntimeError as error:
                stage.error = error
                raise
        return "bought"

    stage.get("/cart")


@bug("lost", "asok", fix="asok_trace.wrap(noted)", errors=True, note="No request is current")
def asoks_request_read_in_a_done_callback(stage: Stage) -> None:
    """A pool calls it in its own thread, for nobody."""
    from asok import current_request

    goes_on, pool = threading.Event(), ThreadPoolExecutor(1)

    def noted(job):
        try:
            print(current_request.path)  # FOUND HERE
        except RuntimeError as error:
            stage.error = error

    @stage.view
    def cart(request):
        job = pool.submit(stage.wait, goes_on)
        job.add_done_callback(noted)
        # FIXED: job.add_done_callback(asok_trace.wrap(noted))
        return "bought"
        # FIXED: goes_on.set()
        # FIXED: pool.shutdown()
        # FIXED: return "bought"

    stage.get("/cart")
    goes_on.set()
    pool.shutdown()


@bug("lost", mode="watch", fix="asok_trace.wrap(run)", of="GET /report", note="without its context")
def flasks_request_read_in_a_loop_of_a_pool(stage: Stage) -> None:
    from flask import request

    async def collect():
        return request.path  # FOUND HERE

    def run():
        return asyncio.run(collect())

    @stage.view
    def report():
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(run)  # STARTED HERE
            # FIXED: job = pool.submit(asok_trace.wrap(run))
            stage.error = job.exception()
        return "reported"

    stage.get("/report")


@bug("lost", fix="wrap_stream(rows(...))", of="GET /export", note="rows() is a body of request")
def flasks_request_read_in_a_plain_body(stage: Stage) -> None:
    from flask import request

    def rows():
        yield request.path  # FOUND HERE

    @stage.view
    def export():
        return rows()
        # FIXED: return asok_trace.wrap_stream(rows())

    try:
        stage.get("/export")
    except RuntimeError as error:
        stage.error = error
        stage.ids.clear()


@bug(
    *("lost", "asok"),
    mode="watch",
    fix="asok_trace.wrap(index)",
    of="message /chat",
    note="without its context",
    errors=True,
)
def asoks_request_read_in_a_thread_of_a_message(stage: Stage) -> None:
    from asok import current_request

    from tests.gateway.sockets import Sockets, ask

    def index():
        try:
            print(current_request.path)  # FOUND HERE
        except RuntimeError as error:
            stage.error = error

    sockets = Sockets(stage.app)

    @sockets.server.on("/chat")
    def heard(connection, text):
        thread = threading.Thread(target=index)
        # FIXED: thread = threading.Thread(target=asok_trace.wrap(index))
        thread.start()  # STARTED HERE
        thread.join()
        connection.send("heard")

    try:
        with asok_trace.instrument(sockets.server), sockets.connect("/chat") as connection:
            assert ask(connection) == "heard"
    finally:
        sockets.stop()

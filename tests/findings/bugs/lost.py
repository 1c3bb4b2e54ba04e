"""Work that a request started without its context."""

import asyncio
import logging
import multiprocessing.pool
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from opentelemetry import trace

import asok_trace
from tests.findings.corpus import bug
from tests.findings.stage import Stage

log = structlog.get_logger()


@bug("lost", mode="watch", fix="asok_trace.wrap(charge)", of="GET /cart")
def pool_job(stage: Stage) -> None:
    def charge(euros):
        log.info("charged", euros=euros)  # FOUND HERE

    @stage.view
    def cart():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(charge, 7).result()  # STARTED HERE
            # FIXED: pool.submit(asok_trace.wrap(charge), 7).result()
        return "bought"

    stage.get("/cart")


@bug("lost", mode="watch", fix="asok_trace.wrap(charge)", of="GET /cart")
def pool_map(stage: Stage) -> None:
    def charge(euros):
        log.info("charged", euros=euros)  # FOUND HERE

    @stage.view
    def cart():
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(charge, [7, 8, 9]))  # STARTED HERE
            # FIXED: list(pool.map(asok_trace.wrap(charge), [7, 8, 9]))
        return "bought"

    stage.get("/cart")


@bug("lost", "quart", mode="watch", fix="asok_trace.wrap(resize)", of="GET /upload")
async def executor_job(stage: Stage) -> None:
    def resize():
        log.info("resized")  # FOUND HERE

    @stage.view
    async def upload():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, resize)  # STARTED HERE
        # FIXED: await loop.run_in_executor(None, asok_trace.wrap(resize))
        return "done"

    await stage.ask("/upload")


@bug("lost", "asok", mode="watch", fix="asok_trace.wrap(send)", of="GET /order")
def thread(stage: Stage) -> None:
    def send():
        log.info("mail sent")  # FOUND HERE

    @stage.view
    def order(request):
        mail = threading.Thread(target=send)
        # FIXED: mail = threading.Thread(target=asok_trace.wrap(send))
        mail.start()  # STARTED HERE
        mail.join()
        return "ordered"

    stage.get("/order")


@bug("lost", mode="watch", fix="asok_trace.wrap(remind)", of="GET /order")
def timer(stage: Stage) -> None:
    def remind():
        log.info("reminded")  # FOUND HERE

    @stage.view
    def order():
        later = threading.Timer(0, remind)
        # FIXED: later = threading.Timer(0, asok_trace.wrap(remind))
        later.start()  # STARTED HERE
        later.join()
        return "ordered"

    stage.get("/order")


@bug("lost", mode="watch", fix='asok_trace.propagate_threads("carry")', of="GET /order")
def thread_with_a_run_of_its_own(stage: Stage) -> None:
    class Mailer(threading.Thread):
        def run(self):
            log.info("mail sent")  # FOUND HERE

    @stage.view
    def order():
        mailer = Mailer()
        mailer.start()  # STARTED HERE
        # FIXED: with asok_trace.propagate_threads("carry"):
        # FIXED:     mailer.start()
        mailer.join()
        return "ordered"

    stage.get("/order")


@bug("lost", mode="watch", fix="asok_trace.wrap(charge)", of="GET /cart")
def line_of_the_standard_library(stage: Stage) -> None:
    def charge():
        logging.getLogger("bank").warning("charged %s euros", 7)  # FOUND HERE

    @stage.view
    def cart():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(charge).result()  # STARTED HERE
            # FIXED: pool.submit(asok_trace.wrap(charge)).result()
        return "bought"

    stage.get("/cart")


@bug("lost", mode="watch", fix="asok_trace.wrap(charge)", of="GET /cart", spans=True)
def span_in_a_pool(stage: Stage) -> None:
    def charge():
        with trace.get_tracer("bank").start_as_current_span("charge card"):  # FOUND HERE
            pass

    @stage.view
    def cart():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(charge).result()  # STARTED HERE
            # FIXED: pool.submit(asok_trace.wrap(charge)).result()
        return "bought"

    stage.get("/cart")


@bug("lost", mode="watch", fix="asok_trace.wrap(run)", of="GET /report")
def loop_in_a_thread(stage: Stage) -> None:
    async def collect():
        await asyncio.sleep(0)
        log.info("collected")  # FOUND HERE

    def run():
        asyncio.run(collect())

    @stage.view
    def report():
        thread = threading.Thread(target=run)
        # FIXED: thread = threading.Thread(target=asok_trace.wrap(run))
        thread.start()  # STARTED HERE
        thread.join()
        return "reported"

    stage.get("/report")


@bug("lost", mode="watch", fix="asok_trace.wrap(notify)", of="GET /order")
def coroutine_handed_to_another_loop(stage: Stage) -> None:
    loop = asyncio.new_event_loop()

    async def push():
        log.info("pushed")  # FOUND HERE

    def notify():
        asyncio.run_coroutine_threadsafe(push(), loop).result()

    @stage.view
    def order():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(notify).result()  # STARTED HERE
            # FIXED: pool.submit(asok_trace.wrap(notify)).result()
        return "ordered"

    runner = threading.Thread(target=loop.run_forever, daemon=True)
    runner.start()
    stage.get("/order")
    loop.call_soon_threadsafe(loop.stop)
    runner.join()
    loop.close()


@bug("lost", mode="watch", fix="asok_trace.wrap(outer)", of="GET /order")
def thread_of_a_thread(stage: Stage) -> None:
    def inner():
        log.info("packed")  # FOUND HERE

    def outer():
        second = threading.Thread(target=inner)
        # FIXED: second = threading.Thread(target=asok_trace.wrap(inner))
        second.start()
        second.join()

    @stage.view
    def order():
        first = threading.Thread(target=outer)
        # FIXED: first = threading.Thread(target=asok_trace.wrap(outer))
        first.start()  # STARTED HERE
        first.join()
        return "ordered"

    stage.get("/order")


@bug("lost", mode="watch", fix="asok_trace.wrap(worker)", of="GET /first")
def own_pool_made_by_the_first_request(stage: Stage) -> None:
    jobs: queue.Queue[str | None] = queue.Queue()
    workers: list[threading.Thread] = []

    def worker():
        while job := jobs.get():
            log.info("worked", job=job)  # FOUND HERE
            # FIXED: with asok_trace.scope("job"):
            # FIXED:     log.info("worked", job=job)

    def enqueue(job):
        if not workers:
            workers.append(threading.Thread(target=worker, daemon=True))
            workers[0].start()  # STARTED HERE
        jobs.put(job)

    @stage.view
    def first():
        enqueue("one")
        return "queued"

    @stage.view
    def second():
        enqueue("two")
        return "queued"

    stage.get("/first")
    stage.get("/second")
    jobs.put(None)
    workers[0].join()


@bug("lost", mode="watch", fix="asok_trace.wrap(resize)", of="GET /upload")
def pool_of_multiprocessing(stage: Stage) -> None:
    def resize(picture):
        log.info("resized", picture=picture)  # FOUND HERE

    @stage.view
    def upload():
        with multiprocessing.pool.ThreadPool(1) as pool:  # STARTED HERE
            pool.map(resize, [1])
            # FIXED: pool.map(asok_trace.wrap(resize), [1])
        return "done"

    stage.get("/upload")


@bug("lost", mode="watch", fix="asok_trace.wrap(crawl)", of="GET /search", alone=True)
def greenlet(stage: Stage) -> None:
    import gevent

    asok_trace.propagate_threads("watch")  # once more, now that it is loaded

    def crawl():
        log.info("crawled")  # FOUND HERE

    @stage.view
    def search():
        gevent.spawn(crawl).join()  # STARTED HERE
        # FIXED: gevent.spawn(asok_trace.wrap(crawl)).join()
        return "found"

    stage.get("/search")


@bug("lost", "asok", mode="watch", fix="asok_trace.wrap(index)", of="message /chat")
def thread_of_asoks_websocket_message(stage: Stage) -> None:
    from tests.gateway.sockets import Sockets, ask

    def index(text):
        log.info("indexed", text=text)  # FOUND HERE

    sockets = Sockets(stage.app)

    @sockets.server.on("/chat")
    def heard(connection, text):
        thread = threading.Thread(target=index, args=(text,))
        # FIXED: thread = threading.Thread(target=asok_trace.wrap(index), args=(text,))
        thread.start()  # STARTED HERE
        thread.join()
        connection.send("heard")

    try:
        with asok_trace.instrument(sockets.server), sockets.connect("/chat") as connection:
            assert ask(connection) == "heard"
    finally:
        sockets.stop()


@bug("lost", "quart", mode="watch", fix="asok_trace.wrap(index)", of="message /chat")
async def executor_job_of_a_websocket_message(stage: Stage) -> None:
    def index(text):
        log.info("indexed", text=text)  # FOUND HERE

    @stage.app.websocket("/chat")
    async def chat():
        from quart import websocket

        text = await websocket.receive()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, index, text)  # STARTED HERE
        # FIXED: await loop.run_in_executor(None, asok_trace.wrap(index), text)
        await websocket.send("heard")

    async with stage.app.test_client().websocket("/chat") as connection:
        await connection.send("hello")
        assert await connection.receive() == "heard"

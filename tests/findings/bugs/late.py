"""Work that has the context of a request, and goes on after its end."""

import asyncio
import contextvars
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from opentelemetry import trace

import asok_trace
from tests.findings.corpus import bug
from tests.findings.stage import Stage

log = structlog.get_logger()


@bug("late", "quart", fix="asok_trace.wrap(mail, outlive=True)", of="GET /order")
async def task_fired_and_forgotten(stage: Stage) -> None:
    answered, mailed = asyncio.Event(), asyncio.Event()
    tasks = []

    async def mail():
        await answered.wait()
        log.info("mail sent")  # FOUND HERE
        mailed.set()

    @stage.view
    async def order():
        tasks.append(asyncio.create_task(mail()))
        # FIXED: tasks.append(asyncio.create_task(asok_trace.wrap(mail, outlive=True)()))
        return "ordered"

    await stage.ask("/order")
    answered.set()
    await mailed.wait()
    await tasks.pop()


@bug("late", "asok", fix="asok_trace.wrap(mail, outlive=True)", of="GET /async/order")
async def task_fired_and_forgotten_by_asok(stage: Stage) -> None:
    answered, mailed = asyncio.Event(), asyncio.Event()
    tasks = []

    async def mail():
        await answered.wait()
        log.info("mail sent")  # FOUND HERE
        mailed.set()

    @stage.view
    async def order(request):
        tasks.append(asyncio.create_task(mail()))
        # FIXED: tasks.append(asyncio.create_task(asok_trace.wrap(mail, outlive=True)()))
        return "ordered"

    await stage.ask("/async/order")
    answered.set()
    await mailed.wait()
    await tasks.pop()


@bug("late", "quart", fix="asok_trace.wrap(keepalive, outlive=True)", of="GET /first")
async def keepalive_started_by_the_first_request(stage: Stage) -> None:
    beats: asyncio.Queue[bool] = asyncio.Queue()
    tasks = []

    async def keepalive():
        while await beats.get():
            log.info("still there")  # FOUND HERE
            # FIXED: with asok_trace.scope("keepalive"):
            # FIXED:     log.info("still there")

    @stage.view
    async def first():
        if not tasks:
            tasks.append(asyncio.create_task(keepalive()))
            # FIXED: tasks.append(asyncio.create_task(asok_trace.detach(keepalive)()))
        return "connected"

    await stage.ask("/first")
    await stage.ask("/first")
    for beat in (True, True, False):
        beats.put_nowait(beat)
    await tasks.pop()


@bug("late", "quart", fix="asok_trace.wrap(remind, outlive=True)", of="GET /order")
async def call_later_after_the_response(stage: Stage) -> None:
    reminded = asyncio.Event()

    def remind():
        log.info("reminded")  # FOUND HERE
        reminded.set()

    @stage.view
    async def order():
        asyncio.get_running_loop().call_later(0.05, remind)
        # FIXED: asyncio.get_running_loop().call_later(
        # FIXED:     0.05, asok_trace.wrap(remind, outlive=True)
        # FIXED: )
        return "ordered"

    await stage.ask("/order")
    await reminded.wait()


@bug("late", "quart", fix="asok_trace.wrap(noted, outlive=True)", of="GET /order")
async def done_callback(stage: Stage) -> None:
    paid = asyncio.get_running_loop().create_future()

    def noted(future):
        log.info("paid", euros=future.result())  # FOUND HERE

    @stage.view
    async def order():
        paid.add_done_callback(noted)
        # FIXED: paid.add_done_callback(asok_trace.wrap(noted, outlive=True))
        return "ordered"

    await stage.ask("/order")
    paid.set_result(7)
    await asyncio.sleep(0)


@bug("late", fix="asok_trace.wrap(mail, outlive=True)", of="GET /order")
def copied_context_kept(stage: Stage) -> None:
    kept = []

    def mail():
        log.info("mail sent")  # FOUND HERE
        # FIXED: with asok_trace.scope("mail"):
        # FIXED:     log.info("mail sent")

    @stage.view
    def order():
        kept.append(contextvars.copy_context())
        # FIXED: kept.append(contextvars.Context())
        return "ordered"

    stage.get("/order")
    worker = threading.Thread(target=kept.pop().run, args=(mail,))
    worker.start()
    worker.join()


@bug("late", mode="carry", fix="asok_trace.wrap(mail, outlive=True)", of="GET /order")
def pool_job_that_goes_on(stage: Stage) -> None:
    answered = threading.Event()
    pool = ThreadPoolExecutor(1)

    def mail():
        stage.wait(answered)
        log.info("mail sent")  # FOUND HERE

    @stage.view
    def order():
        pool.submit(mail)
        # FIXED: pool.submit(asok_trace.wrap(mail, outlive=True))
        return "ordered"

    stage.get("/order")
    answered.set()
    pool.shutdown()


@bug("late", "asok", fix="asok_trace.wrap(mail, outlive=True)", of="GET /order")
def wrapped_for_a_queue(stage: Stage) -> None:
    jobs: queue.Queue = queue.Queue()

    def mail():
        log.info("mail sent")  # FOUND HERE

    @stage.view
    def order(request):
        jobs.put(asok_trace.wrap(mail))
        # FIXED: jobs.put(asok_trace.wrap(mail, outlive=True))
        return "ordered"

    stage.get("/order")
    worker = threading.Thread(target=jobs.get())
    worker.start()
    worker.join()


@bug("late", mode="carry", fix="asok_trace.wrap(worker, outlive=True)", of="GET /first")
def own_pool_carries_the_first_request(stage: Stage) -> None:
    jobs: queue.Queue[str | None] = queue.Queue()
    workers: list[threading.Thread] = []

    def worker():
        while job := jobs.get():
            log.info("worked", job=job)  # FOUND HERE
            # FIXED: with asok_trace.scope("job"):
            # FIXED:     log.info("worked", job=job)

    @stage.view
    def first():
        if not workers:
            workers.append(threading.Thread(target=worker, daemon=True))
            # FIXED: workers.append(threading.Thread(target=asok_trace.detach(worker), daemon=True))
            workers[0].start()
        return "queued"

    stage.get("/first")
    for job in ("one", "two", None):
        jobs.put(job)
    workers[0].join()


@bug("late", mode="carry", fix="asok_trace.wrap(poll, outlive=True)", of="GET /watch")
def chain_of_timers(stage: Stage) -> None:
    answered, polled = threading.Event(), threading.Event()
    rounds: list[int] = []

    def poll():
        stage.wait(answered)
        log.info("polled")  # FOUND HERE
        # FIXED: with asok_trace.scope("poll"):
        # FIXED:     log.info("polled")
        rounds.append(1)
        if len(rounds) < 3:
            threading.Timer(0, poll).start()
        else:
            polled.set()

    @stage.view
    def watch():
        threading.Timer(0, poll).start()
        # FIXED: threading.Timer(0, asok_trace.detach(poll)).start()
        return "watching"

    stage.get("/watch")
    answered.set()
    stage.wait(polled)


@bug("lost", mode="watch", fix="asok_trace.wrap(poll)", of="GET /watch")
def chain_of_timers_watched(stage: Stage) -> None:
    polled = threading.Event()
    rounds: list[int] = []

    def poll():
        log.info("polled")  # FOUND HERE
        # FIXED: with asok_trace.scope("poll"):
        # FIXED:     log.info("polled")
        rounds.append(1)
        if len(rounds) < 3:
            threading.Timer(0, poll).start()
        else:
            polled.set()

    @stage.view
    def watch():
        threading.Timer(0, poll).start()  # STARTED HERE
        return "watching"

    stage.get("/watch")
    stage.wait(polled)


@bug("late", mode="carry", fix="asok_trace.wrap(mail, outlive=True)", of="GET /order", spans=True)
def span_after_the_end(stage: Stage) -> None:
    answered = threading.Event()
    pool = ThreadPoolExecutor(1)

    def mail():
        stage.wait(answered)
        with trace.get_tracer("mail").start_as_current_span("send mail"):  # FOUND HERE
            pass

    @stage.view
    def order():
        pool.submit(mail)
        # FIXED: pool.submit(asok_trace.wrap(mail, outlive=True))
        return "ordered"

    stage.get("/order")
    answered.set()
    pool.shutdown()


@bug("late", "quart", fix="asok_trace.wrap(index, outlive=True)", of="message /chat")
async def task_of_a_websocket_message(stage: Stage) -> None:
    answered, indexed = asyncio.Event(), asyncio.Event()
    tasks = []

    async def index(text):
        await answered.wait()
        log.info("indexed", text=text)  # FOUND HERE
        indexed.set()

    @stage.app.websocket("/chat")
    async def chat():
        from quart import websocket

        while True:
            text = await websocket.receive()
            tasks.append(asyncio.create_task(index(text)))
            # FIXED: work = asok_trace.wrap(index, outlive=True)
            # FIXED: tasks.append(asyncio.create_task(work(text)))
            await websocket.send("heard")
            text = await websocket.receive()
            answered.set()
            await indexed.wait()
            await websocket.send("bye")

    async with stage.app.test_client().websocket("/chat") as connection:
        for answer in ("heard", "bye"):
            await connection.send("hello")
            assert await connection.receive() == answer
    await tasks.pop()


@bug("late", "asok", fix="asok_trace.wrap(index, outlive=True)", of="message /chat")
def thread_of_asoks_websocket_message(stage: Stage) -> None:
    from tests.gateway.sockets import Sockets

    answered, threads = threading.Event(), []

    def index(text):
        stage.wait(answered)
        log.info("indexed", text=text)  # FOUND HERE

    sockets = Sockets(stage.app)

    @sockets.server.on("/chat")
    def heard(connection, text):
        threads.append(threading.Thread(target=asok_trace.wrap(index), args=(text,)))
        # FIXED: work = asok_trace.wrap(index, outlive=True)
        # FIXED: threads.append(threading.Thread(target=work, args=(text,)))
        threads[0].start()
        connection.send("heard")

    with asok_trace.instrument(sockets.server):
        with sockets.connect("/chat") as connection:
            connection.send("hello")
            assert connection.recv() == "heard"
        answered.set()
        threads[0].join()
    sockets.stop()

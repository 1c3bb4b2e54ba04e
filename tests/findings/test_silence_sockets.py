"""WebSockets as they should be are silent, at every level.

needs: asok, quart, websockets
"""

import asyncio
import threading
from pathlib import Path

import structlog

import asok_trace
from tests.findings.stage import SECONDS, Stage, logged, silent, work

log = structlog.get_logger()


def test_asoks_websockets(asok_stage: Stage, level: str) -> None:
    """Connecting, messages, a background job of one, a live component, and going away."""
    from asok.background import background
    from asok.component import COMPONENTS_REGISTRY, Component, exposed

    from tests.gateway.sockets import Sockets, ask, join, operate

    class Till(Component):
        count = 0

        @exposed
        def more(self):
            log.info("more")
            self.count += 1

        def render(self):
            log.info("rendered")
            return "<b>{{ count }}</b>"

    sockets, jobs = Sockets(asok_stage.app), []
    left, goes_on, done = threading.Event(), threading.Event(), threading.Event()

    def mail():
        asok_stage.wait(goes_on)
        work(done)

    @sockets.server.on("/chat")
    def heard(connection, text):
        log.info("heard")
        jobs.append(background(mail))
        connection.send(text)

    @sockets.server.on_connect("/chat")
    def came(connection):
        log.info("came")

    @sockets.server.on_disconnect("/chat")
    def went(connection):
        log.info("went")
        left.set()

    try:
        with asok_trace.instrument(sockets.server, level=level):
            for _ in range(2):
                with sockets.connect("/chat") as connection:
                    assert ask(connection) == "hello"
                asok_stage.wait(left)
                left.clear()
            goes_on.set()
            for job in jobs:
                job.result(SECONDS)
            jobs.clear()
            with sockets.connect("/asok/live") as connection:
                join(sockets, connection, Till)
                assert "<b>1</b>" in operate(connection, "call", method="more")["html"]
            silent()
    finally:
        del COMPONENTS_REGISTRY["Till"]
        sockets.stop()


def test_quarts_websockets(tmp_path: Path, level: str) -> None:
    """Messages, a task that ends with its message, one that goes on for the whole connection, and a
    client that goes away."""

    async def play(stage: Stage) -> None:
        from quart import websocket

        gone = asyncio.Event()

        async def index(text):
            await asyncio.sleep(0)
            log.info("indexed", text=text)

        async def watch():
            log.info("watching")
            await asyncio.Event().wait()

        @stage.app.websocket("/chat")
        async def chat():
            log.info("connected")
            watcher = asyncio.create_task(watch())
            try:
                while True:
                    text = await websocket.receive()
                    await asyncio.create_task(index(text))
                    await websocket.send(text)
            finally:
                watcher.cancel()
                log.info("gone")
                gone.set()

        for _ in range(2):
            async with stage.app.test_client().websocket("/chat") as connection:
                for text in ("one", "two"):
                    await connection.send(text)
                    assert await connection.receive() == text
            await asyncio.wait_for(gone.wait(), SECONDS)
            gone.clear()
        silent()

    with logged():
        stage = Stage("quart", tmp_path, level=level, threads="watch", grace=0.0)
        try:
            asyncio.run(play(stage))
        finally:
            stage.handle.undo()

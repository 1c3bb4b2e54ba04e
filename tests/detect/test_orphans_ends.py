"""What is logged when all is over has no request behind it, and need not.

needs: quart
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from quart import Quart

import asok_trace
from asok_trace.core import findings
from tests import programs
from tests.detect.places import in_thread

log = logging.getLogger("shop.orders")

AT_EXIT = """
import atexit, logging, threading
import asok_trace
from asok_trace.core import findings

logging.basicConfig(level=logging.INFO)
told = []
asok_trace.on_finding(lambda found: told.append(found.callsite.rpartition(" ")[2]))
atexit.register(lambda: print(told, flush=True))
asok_trace.stamp_logging()
findings.serve()

def bye():
    logging.info("bye")

def consume():
    main.join()
    logging.info("consumed")

atexit.register(bye)
main = threading.main_thread()
threading.Thread(target=consume).start()
"""


def test_functions_of_atexit_say_what_they_like() -> None:
    """But a thread that the program waits for is at work until it is done."""
    assert programs.run(AT_EXIT) == "['consume']\n"


@pytest.fixture
def stamped() -> Iterator[None]:
    """Every record of the standard library is stamped."""
    log.setLevel(logging.DEBUG)
    with asok_trace.stamp_logging():
        yield


@pytest.mark.parametrize("asked", [False, True])
def test_a_server_that_goes_up_and_down(stamped: None, asked: bool) -> None:
    """What Quart's functions log then, and the tasks that these end, is as at startup; until there
    is a request again."""
    app = Quart("shop")
    handle = asok_trace.instrument(app)

    @app.get("/")
    async def index() -> str:
        return "index"

    async def consume() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.info("the consumer ends")

    @app.while_serving
    async def life() -> Any:
        log.info("up")
        task = asyncio.create_task(consume())
        yield
        task.cancel()
        log.info("down")

    @app.after_serving
    async def down() -> None:
        log.info("after")

    async def play() -> None:
        await app.test_client().get("/")
        async with app.test_app() as running:
            await running.test_client().get("/")
        if asked:
            await app.test_client().get("/")

    asyncio.run(play())
    assert findings.beyond["startup"] == 4
    in_thread(lambda: log.info("later"))
    assert [found.slug for found in findings.findings()] == (["outside"] if asked else [])
    handle.undo()

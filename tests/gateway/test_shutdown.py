"""What a server has done when it is down.

needs: quart, uvicorn, hypercorn
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import serving

PLAIN = """
import asyncio, logging, threading
import asok_trace

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    threads = [threading.Thread(target=lost) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

def lost():
    logging.getLogger("shop").info("lost")

asok_trace.setup(threads="watch")
app = asok_trace.instrument(app, interface="asgi").app
"""

QUART = """
import asyncio, logging, threading
from quart import Quart
import asok_trace

app = Quart("shop")

@app.get("/cart")
async def cart():
    threads = [threading.Thread(target=lost) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    return "ok"

@app.after_serving
async def down():
    DOWN

def lost():
    logging.getLogger("shop").info("lost")

asok_trace.setup(app, threads="watch")
"""

FAILS = QUART.replace("DOWN", 'raise ValueError("down")')
QUART = QUART.replace("DOWN", "pass")

UVICORN = serving.uvicorn("shop:app")
HYPERCORN = (
    *(sys.executable, "-m", "hypercorn", "--bind", "127.0.0.1:0"),
    *("--log-config", "json:{log_config}", "shop:app"),
)
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def totals(folder: Path, program: str, command: Sequence[str], by: signal.Signals) -> Any:
    """Serve one request, end the server by a signal, and return what it has found in all."""
    with serving.served(folder, program, *command) as served:
        assert served.get("/cart").body == b"ok"
        served.stop(by)
        return [line["message"] for line in served.lines if "found in all" in str(line)]


@pytest.mark.parametrize("by", SIGNALS, ids=lambda by: by.name)
@pytest.mark.parametrize("program", [QUART, PLAIN], ids=["quart", "plain"])
@pytest.mark.parametrize("command", [UVICORN, HYPERCORN], ids=["uvicorn", "hypercorn"])
def test_what_was_found_in_all_is_told_once(
    tmp_path: Path, command: Sequence[str], program: str, by: signal.Signals
) -> None:
    """By each server, whether it ends itself by the signal (uvicorn, SIGTERM), so that nothing that
    was registered with atexit runs, or as any program."""
    [told] = totals(tmp_path, program, command, by)
    assert "lost 3 at 1 place" in told


def test_a_shutdown_that_fails_is_one(tmp_path: Path) -> None:
    """What the application raises when it is shut down takes the totals from nobody."""
    [told] = totals(tmp_path, FAILS, UVICORN, signal.SIGTERM)
    assert "lost 3 at 1 place" in told

"""Leaks behind real servers: the same finding on each.

needs: flask, quart, gunicorn, uvicorn, hypercorn, waitress
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import serving

QUART = """
import asyncio
import structlog
from quart import Quart
import asok_trace

app = Quart("shop")
asok_trace.instrument(app)
structlog.configure(processors=[asok_trace.inject, structlog.processors.JSONRenderer()])
go = asyncio.Event()
tasks = set()

async def keeper():
    await go.wait()
    structlog.get_logger().info("late")  # LINE
    done.set()

done = asyncio.Event()

@app.get("/cart")
async def cart():
    tasks.add(asyncio.create_task(keeper()))
    return "cart"

@app.get("/go")
async def release():
    go.set()
    await done.wait()
    found = asok_trace.findings()
    return [[f.slug, f.callsite, f.request_id, f.path, f.count] for f in found]
"""

FLASK = """
import threading
import structlog
from flask import Flask, Response
import asok_trace

app = Flask("shop")
asok_trace.instrument(app, threads="carry")
structlog.configure(processors=[asok_trace.inject, structlog.processors.JSONRenderer()])
go = threading.Event()
threads = []

def keeper():
    go.wait()
    structlog.get_logger().info("late")  # LINE

@app.get("/cart")
def cart():
    threads.append(threading.Thread(target=keeper))
    threads[-1].start()
    response = Response(iter(["ca", "rt"]))
    response.call_on_close(lambda: structlog.get_logger().info("closed"))
    return response

@app.get("/go")
def release():
    go.set()
    for thread in threads:
        thread.join()
    found = asok_trace.findings()
    return [[f.slug, f.callsite, f.request_id, f.path, f.count] for f in found]
"""

_HYPERCORN = (sys.executable, "-m", "hypercorn", "--bind", "127.0.0.1:0", "shop:app")
_WAITRESS = (
    sys.executable,
    "-c",
    "import shop, waitress; "
    "s = waitress.create_server(shop.app, host='127.0.0.1', port=0, threads=1); "
    "print('http://127.0.0.1:%s' % s.effective_port, flush=True); s.run()",
)
# One thread, so that a request has ended where the next one begins.
SERVERS: dict[str, tuple[str, Sequence[str]]] = {
    "uvicorn": (QUART, serving.uvicorn("shop:app")),
    "hypercorn": (QUART, _HYPERCORN),
    "gunicorn": (
        FLASK,
        serving.gunicorn("shop:app", "--worker-class", "gthread", "--threads", "1"),
    ),
    "waitress": (FLASK, _WAITRESS),
}


@pytest.mark.parametrize("server", SERVERS)
def test_who_goes_on_after_the_response(tmp_path: Path, server: str) -> None:
    """Found once, where it is in the program, for the request that started it; its end and the
    server's own lines are in time."""
    program, command = SERVERS[server]
    [number] = [at for at, line in enumerate(program.splitlines(), 1) if "# LINE" in line]
    with serving.served(tmp_path, program, *command) as served:
        first = served.get("/cart")
        assert first.body == b"cart"
        found: Any = json.loads(served.get("/go").body)
    [request_id] = first.ids
    assert found == [["late", f"shop.py:{number} keeper", request_id, "GET /cart", 1]]
    late = [line for line in served.lines if "late_ms" in line]
    assert [line.get("event") for line in late] == ["late"]

"""One application, written for each framework: its pages are what a request can lead to.

needs: pythonjsonlogger
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.queues.processes import SECRET_KEY
from tests.serving import Served, gunicorn, served, uvicorn

# What the pages call; the same for all.
WORK = '''
"""What the application does."""

import asyncio
import threading

import structlog
from opentelemetry import trace

log = structlog.get_logger()
tracer = trace.get_tracer("shop")
over = threading.Event()
tried = []


def look_up():
    with tracer.start_as_current_span("look up"):
        log.info("looking", shelf=3)


def in_thread():
    with tracer.start_as_current_span("page"):
        thread = threading.Thread(target=look_up)
        thread.start()
        thread.join()


def break_down():
    with tracer.start_as_current_span("open till"):
        raise RuntimeError("the till is jammed")


def lose():
    done = threading.Event()

    def uncarried():
        with tracer.start_as_current_span("nobody's"):
            pass
        done.set()

    threading.Thread(target=uncarried).start()
    done.wait(60)


async def step(name):
    with tracer.start_as_current_span(name):
        await asyncio.sleep(0)
        look_up() if name == "first" else None


async def in_tasks():
    with tracer.start_as_current_span("page"):
        await asyncio.gather(
            asyncio.create_task(step("first")), asyncio.create_task(step("second"))
        )


SYNC = {"/": look_up, "/thread": in_thread, "/broken": break_down, "/lose": lose}
'''

FLASK = """
import asok_trace, work
from flask import Flask, request

app = Flask(__name__)
asok_trace.setup(app, log_events=True, user=lambda request: request.headers.get("X-User"))


@app.get("/<path:_>")
@app.get("/")
def page(_=None):
    work.SYNC[request.path]()
    return "ok"


@app.get("/tasks")
async def tasks():
    await work.in_tasks()
    return "ok"
"""

QUART = """
import asok_trace, work
from quart import Quart, request

app = Quart(__name__)
asok_trace.setup(app, log_events=True, user=lambda request: request.headers.get("X-User"))


@app.get("/<path:_>")
@app.get("/")
async def page(_=None):
    work.SYNC[request.path]()
    return "ok"


@app.get("/tasks")
async def tasks():
    await work.in_tasks()
    return "ok"
"""

# A module that is imported before the set-up uses asok's tracing, too.
ASOK = """
import os

import asok_trace, early
from asok import Asok, TracingMiddleware

app = Asok(os.path.dirname(os.path.abspath(__file__)))
app.config["RATE_LIMIT"] = False
if os.environ.get("TRACING"):
    app.use(TracingMiddleware())
asok_trace.setup(
    app, log_events=True, user=lambda request: request.environ.get("HTTP_X_USER")
)
"""

EARLY = """
import asyncio

from asok import trace

import work


@trace("slow")
async def slow():
    await asyncio.sleep(0.01)
    with work.tracer.start_as_current_span("inside"):
        await asyncio.sleep(0.01)
        quick()


@trace("quick")
def quick():
    pass
"""

PAGES = {
    "": "import work\n\ndef get(request):\n    work.look_up()\n    return 'ok'\n",
    "thread": "import work\n\ndef get(request):\n    work.in_thread()\n    return 'ok'\n",
    "broken": "import work\n\ndef get(request):\n    work.break_down()\n",
    "lose": "import work\n\ndef get(request):\n    work.lose()\n    return 'ok'\n",
    "tasks": "import work\n\nasync def get(request):\n    await work.in_tasks()\n    return 'ok'\n",
    "job": """
import threading

import work
from asok import background

running = threading.Event()


def charge():
    with work.tracer.start_as_current_span("pay"):
        pass
    running.set()
    work.over.wait(60)
    if not work.tried:
        work.tried.append(True)
        raise LookupError("once more")


def get(request):
    background(charge, _retries=1, _backoff=0)
    running.wait(60)
    return 'ok'
""",
    "over": "import work\n\ndef get(request):\n    work.over.set()\n    return 'ok'\n",
    "traced": """
import early
import work
from asok import trace, tracer


@trace("late")
async def late():
    await early.slow()


@trace("rows")
def rows():
    yield 1
    early.quick()
    yield 2


async def get(request):
    with work.tracer.start_as_current_span("page"):
        await late()
        list(rows())
        with tracer.start_span("by hand") as span:
            span.set_attribute("shelf", 3).add_event("found", {"on": "top"})
    return 'ok'
""",
    "stumble": """
from asok import trace


@trace("stumble")
async def stumble():
    raise RuntimeError("the step is missing")


async def get(request):
    try:
        await stumble()
    except RuntimeError:
        request.span.set_attribute("tenant", "north")
    return 'ok'
""",
}


class App(NamedTuple):
    """A framework's application, and how it is served."""

    framework: str
    program: str
    command: tuple[str, ...]


APPS = {
    "asok": App("asok", ASOK, gunicorn("shop:app", "--threads", "4")),
    "flask": App("flask", FLASK, gunicorn("shop:app", "--threads", "4")),
    "quart": App("quart", QUART, uvicorn("shop:app")),
}


@contextmanager
def running(framework: str, folder: Path, endpoint: str, **variables: str) -> Iterator[Served]:
    """Serve the application of ``framework``, whose spans go to ``endpoint``."""
    app = APPS[framework]
    (folder / "work.py").write_text(WORK, encoding="utf-8")
    (folder / "early.py").write_text(EARLY, encoding="utf-8")
    if framework == "asok":
        for name, source in PAGES.items():
            page = folder / "src" / "pages" / name / "page.py"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(source, encoding="utf-8")
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "SECRET_KEY": SECRET_KEY,
        "ASOK_TRACE_SERVICE": framework,
        **variables,
    }
    with served(folder, app.program, *app.command, **settings) as server:
        yield server

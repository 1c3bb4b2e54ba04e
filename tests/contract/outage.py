"""A collector that is down, slow, or answers nonsense, until it recovers; and an application that
counts what it sends there."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.contract.receiver import Receiver, _Handler
from tests.serving import Served, served, uvicorn

SECONDS = 60.0
ROOM = 16

DOWN = "down"
SILENT = "silent"
LATE = "late"
GARBAGE = "garbage"
WELL = "well"
STATUSES: dict[str, dict[str, str]] = {
    "500": {},
    "404": {},
    "429": {"Retry-After": "120"},
    "503": {},
}
STATES = (DOWN, SILENT, "500", "404", "429", GARBAGE)
"""But for those in which it may take everything in the end."""


class Collector(Receiver):
    """A collector whose state may change; when it is DOWN at first nobody listens on its port."""

    def __init__(self, state: str = WELL) -> None:
        self.state = state
        self.answered = 0
        self._recovered = threading.Event()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        super().__init__()
        self.RequestHandlerClass = _Answers
        if state != DOWN:
            self._thread.start()

    def server_activate(self) -> None:
        """Listen, unless it is down."""
        if self.state != DOWN:
            super().server_activate()

    def fail(self, state: str) -> None:
        """Be in another state from the next request on."""
        self._recovered.clear()
        self.state = state

    def recover(self) -> None:
        """Be well, on the same port."""
        was, self.state = self.state, WELL
        self._recovered.set()
        if was == DOWN:
            self.server_activate()
            self._thread.start()

    def held(self) -> None:
        """Return when it has recovered."""
        self._recovered.wait(SECONDS)

    def close(self) -> None:
        """Let everybody go."""
        self._recovered.set()
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()


class _Answers(_Handler):
    server: Collector

    def do_POST(self) -> None:
        collector, state = self.server, self.server.state
        if state in (SILENT, LATE):
            collector.held()
        if state in (WELL, LATE):
            super().do_POST()
            collector.answered += 1
            return
        # All of it, or closing the connection would reset it.
        self.rfile.read(int(self.headers["Content-Length"]))
        if state in STATUSES:
            self.send_response(int(state))
            for name, value in STATUSES[state].items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.close_connection = True
            if state == GARBAGE:
                self.wfile.write(b"\x00\xff garbage\r\n\r\n\x00")


@contextmanager
def collecting(state: str = WELL) -> Iterator[Collector]:
    """A collector, for as long as this lasts."""
    collector = Collector(state)
    try:
        yield collector
    finally:
        collector.close()


# Told on a port of its own: the application would have more to export each time.
COUNTS = """
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.sdk.trace import SpanProcessor

from asok_trace.stamp import exporting, logs, metrics, outgoing, server_span

ended = {"traces": 0, "logs": 0}


class Spans(SpanProcessor):
    def on_end(self, span):
        ended["traces"] += 1


class Lines(LogRecordProcessor):
    def on_emit(self, record):
        ended["logs"] += 1

    def shutdown(self):
        pass

    def force_flush(self, timeout_millis=0):
        return True


class Told(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told()).encode())

    def log_message(self, *_):
        pass


def told():
    [spans, _] = trace.get_tracer_provider()._active_span_processor._span_processors
    [lines, _] = _logs.get_logger_provider()._multi_log_record_processor._log_record_processors
    dropped = {"traces": 0, "logs": 0}
    for (signal, _), number in exporting.dropped().items():
        dropped[signal] += number
    queued = [len(queue._batch_processor._queue) for queue in (spans, lines)]
    return {"ended": ended, "dropped": dropped, "queued": queued}


def count():
    # So that one outage after the other can be seen, and the end.
    exporting._QUIET_SECONDS = 0
    outgoing._END_MILLIS = 200
    for module in (logs, metrics, server_span):
        module._FLUSH_MILLIS = 200
    trace.get_tracer_provider().add_span_processor(Spans())
    _logs.get_logger_provider().add_log_record_processor(Lines())
    server = HTTPServer(("127.0.0.1", 0), Told)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open("told.txt", "w") as file:
        file.write(str(server.server_port))
"""

ASOK = """
import os
import asok_trace, counts
from asok import Asok

app = Asok(os.path.dirname(os.path.abspath(__file__)))
app.config["RATE_LIMIT"] = False
asok_trace.setup(app)
counts.count()
"""
PAGE = """
import logging

def get(request):
    logging.getLogger("shop").info("working")
    return "done"
"""
PALLETS = """
import logging
import asok_trace, counts
from {package} import {cls}

app = {cls}(__name__)
asok_trace.setup(app)
counts.count()


@app.get("/work")
{define} work():
    logging.getLogger("shop").info("working")
    return "done"
"""
THREADED = (
    *(sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "8"),
    *("--log-config-json", "{log_config}", "shop:app"),
)
PROGRAMS = {
    "asok": (ASOK, THREADED),
    "flask": (PALLETS.format(package="flask", cls="Flask", define="def"), THREADED),
    "quart": (
        PALLETS.format(package="quart", cls="Quart", define="async def"),
        uvicorn("shop:app", "--no-access-log"),
    ),
}


@contextmanager
def running(
    framework: str, folder: Path, collector: Collector, **variables: str
) -> Iterator[Served]:
    """Serve the application of ``framework``, with short queues that are exported at once."""
    program, command = PROGRAMS[framework]
    (folder / "counts.py").write_text(COUNTS, encoding="utf-8")
    if framework == "asok":
        page = folder / "src" / "pages" / "work" / "page.py"
        page.parent.mkdir(parents=True)
        page.write_text(PAGE, encoding="utf-8")
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        **{
            f"OTEL_{queue}_{name}": value
            for queue in ("BSP", "BLRP")
            for name, value in (
                ("SCHEDULE_DELAY", "10"),
                ("MAX_QUEUE_SIZE", str(ROOM)),
                ("MAX_EXPORT_BATCH_SIZE", str(ROOM // 2)),
            )
        },
        **variables,
    }
    with served(folder, program, *command, **settings) as server:
        assert server.get("/work").status == 200  # it is loaded
        yield server


def told(folder: Path) -> Any:
    """What the application says of its queues."""
    port = (folder / "told.txt").read_text(encoding="utf-8")
    with urlopen(f"http://127.0.0.1:{port}/", timeout=SECONDS) as answer:
        return json.load(answer)

"""Small Asok sites whose work leaves its request, and what was logged and traced of it."""

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from tests.gateway.conftest import call, faults, lines, make_site, site
from tests.propagate.post import SECONDS, Post

if TYPE_CHECKING:
    from tests.gateway.sites import Site

__all__ = ["call", "faults", "lines", "make_site", "site"]


@pytest.fixture
def shop(site: "Site", monkeypatch: pytest.MonkeyPatch) -> Iterator["Site"]:
    """An instrumented site; its jobs run in this process."""
    monkeypatch.delenv("ASOK_QUEUE_BACKEND", raising=False)
    with asok_trace.instrument(site.app):
        yield site


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What a tracer provider, global for one test, has ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """Every record of the standard library from now on, stamped."""
    handler = _Records()
    root = logging.getLogger()
    root.addHandler(handler)
    with asok_trace.stamp_logging():
        yield handler.records
    root.removeHandler(handler)


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    """A mail server that Asok is configured for."""
    with Post() as server:
        monkeypatch.setenv("MAIL_HOST", "127.0.0.1")
        monkeypatch.setenv("MAIL_PORT", str(server.server_address[1]))
        monkeypatch.setenv("MAIL_TLS", "false")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join(SECONDS)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Redis server that asok is configured for, and a client of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ready to accept connections" in line:
            break
    monkeypatch.setenv("ASOK_QUEUE_BACKEND", "redis")
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}/0")
    monkeypatch.delenv("ASOK_REDIS_URL", raising=False)
    import redis

    with redis.Redis(port=port) as client:
        yield client
    process.terminate()
    process.stdout.close()
    process.wait(SECONDS)


@pytest.fixture(autouse=True)
def _no_jobs() -> Iterator[None]:
    """Asok's lists of local jobs begin empty."""
    yield
    jobs = sys.modules.get("asok.background")
    if jobs is not None:
        jobs._LOCAL_JOBS.clear()
        jobs._LOCAL_DLQ.clear()

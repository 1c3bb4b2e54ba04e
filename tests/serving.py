"""A program behind a real server, in a process of its own, and all that it printed.

needs: pythonjsonlogger
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 60
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "pythonjsonlogger.json.JsonFormatter", "fmt": "%(name)s %(message)s"}
    },
    "handlers": {
        "out": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "json",
        }
    },
    # Gunicorn does not let these propagate.
    "loggers": {
        name: {"level": "INFO", "handlers": ["out"], "propagate": False}
        for name in ("gunicorn.access", "gunicorn.error")
    },
    "root": {"handlers": ["out"], "level": "INFO"},
}

Document = dict[str, Any]


class Answer(NamedTuple):
    """What a client got."""

    status: int
    body: bytes
    ids: list[str]


def documents(output: str) -> list[Document]:
    """The JSON objects in ``output``, each on a line or spread over several; other text is left
    out."""
    decoder = json.JSONDecoder()
    found: list[Document] = []
    position = 0
    while (position := output.find("{", position)) >= 0:
        try:
            document, position = decoder.raw_decode(output, position)
        except ValueError:
            position += 1
            continue
        found.append(document)
    return found


def environment(**variables: str) -> dict[str, str]:
    """That of this process, without what would configure OpenTelemetry or us, and ``variables``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "ASOK_TRACE_"))}
    path = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", "")))
    root = str(Path(__file__).parents[1])
    return kept | {"PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONPATH": root} | variables


class Served:
    """A server that is running, or has ended."""

    def __init__(self, command: Sequence[str], folder: Path, variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._read: list[str] = []
        self._told = threading.Event()
        self.port = 0
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()
        if not self._told.wait(SECONDS) or not self.port:
            self.stop()
            raise AssertionError(f"{command} does not listen:\n{self.output}")

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._read.append(line)
            found = None if self.port else _ADDRESS.search(line)
            if found:
                self.port = int(found[1])
                self._told.set()
        self._told.set()

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return "".join(self._read)

    @property
    def lines(self) -> list[Document]:
        """The JSON objects of it; what has a logger is from the standard library."""
        return documents(self.output)

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for ``path``, on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            ids = response.headers.get_all("X-Request-ID") or []
            return Answer(response.status, response.read(), ids)
        finally:
            connection.close()

    def together(self, paths: Sequence[str]) -> dict[str, Answer]:
        """Ask for all ``paths`` at once."""
        found: dict[str, Answer] = {}

        def ask(path: str) -> None:
            found[path] = self.get(path)

        threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Shut it down, and read the rest of what it prints."""
        if self._process.poll() is None:
            self._process.send_signal(by)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join()
            if self._process.stdout is not None:
                self._process.stdout.close()


@contextmanager
def served(folder: Path, program: str, *command: str, **variables: str) -> Iterator[Served]:
    """Serve ``program`` as the module ``shop``. In ``command``, ``{log_config}`` is a file for
    `logging.config`; the server has to say its address when it listens."""
    (folder / "shop.py").write_text(program, encoding="utf-8")
    log_config = folder / "logging.json"
    log_config.write_text(json.dumps(_LOGGING), encoding="utf-8")
    filled = [word.format(log_config=log_config) for word in command]
    server = Served(filled, folder, variables)
    try:
        yield server
    finally:
        server.stop()


def uvicorn(app: str, *more: str) -> tuple[str, ...]:
    """Its command line for ``app``."""
    options = ("--host", "127.0.0.1", "--port", "0", "--log-config", "{log_config}")
    return (sys.executable, "-m", "uvicorn", app, *options, *more)


def gunicorn(app: str, *more: str) -> tuple[str, ...]:
    """Its command line for ``app``."""
    options = ("--bind", "127.0.0.1:0", "--log-config-json", "{log_config}")
    return (sys.executable, "-m", "gunicorn", *options, "--access-logfile", "-", *more, app)

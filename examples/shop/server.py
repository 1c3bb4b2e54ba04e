"""The shop on a server: a copy of it in a directory of its own, seeded and served."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from check import Line

SOURCE = Path(__file__).resolve().parent

# What Python may need to start. Nothing else is passed on: Asok and gunicorn read settings from
# the environment, and whoever runs the demo may have some for an application of their own.
PASSED_ON = ("LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")


class Address(NamedTuple):
    """Where the shop is: its pages, and its WebSocket server."""

    pages: str
    sockets: str


class Shop:
    """The shop in ``directory``, where it also keeps its database, its log and its report."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "log.jsonl"
        self._errors = directory / "errors.txt"
        self._report = directory / "report.txt"
        self._environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        self._environment |= {"HOME": str(directory), "SECRET_KEY": secrets.token_hex(32)}

    def install(self) -> None:
        """Copy the application and create its database with two users.

        Raises:
            subprocess.SubprocessError: seeding failed, or did not end.
        """
        for name in ("wsgi.py", "gunicorn.conf.py"):
            shutil.copy(SOURCE / name, self._directory)
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE / "src", self._directory / "src", ignore=unwanted)
        with self._errors.open("ab") as errors:
            subprocess.run(
                [sys.executable, "-m", "asok", "seed"],
                cwd=self._directory,
                env=self._environment,
                stdout=errors,
                stderr=errors,
                timeout=15,
                check=True,
            )

    @contextmanager
    def serve(self, seconds: float) -> Iterator[Address]:
        """Serve it with gunicorn, yield where, and stop it: after ``seconds`` at the latest."""
        # We bind and gunicorn inherits: no port can be lost to somebody else in between, and
        # whoever connects before gunicorn is ready waits in the queue of the socket.
        with (
            socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
            self._log.open("ab") as log,
            self._errors.open("ab") as errors,
        ):
            port, sockets_port = listener.getsockname()[1], _free_port()
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn"),
                    *("--bind", f"fd://{listener.fileno()}", "wsgi:app"),
                ],
                cwd=self._directory,
                # Asok's own: where to listen for WebSockets, and whose pages may open one.
                env=self._environment | {"ASOK_WS_PORT": str(sockets_port), "ASOK_PORT": str(port)},
                pass_fds=(listener.fileno(),),
                stdout=log,
                stderr=errors,
                start_new_session=True,  # a group of its own, to be killed as a whole
            )
        watchdog = threading.Timer(seconds, _kill, (process,))
        watchdog.start()
        try:
            yield Address(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{sockets_port}")
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            _kill(process)
            watchdog.cancel()

    def lines(self) -> list[Line]:
        """Return what it has logged so far."""
        whole, _, _ = self._log.read_text("utf-8").rpartition("\n")
        return [_parsed(text) for text in whole.splitlines()]

    def report(self) -> str:
        """Return the trees of its requests, which it writes when it is stopped."""
        return self._report.read_text("utf-8") if self._report.exists() else ""

    def errors(self) -> str:
        """Return the end of what else it and its server had to say."""
        return "\n".join(self._errors.read_text("utf-8").splitlines()[-20:])


def _free_port() -> int:
    """A port nobody listens on; Asok binds it itself, and cannot be handed a socket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _parsed(text: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        return {"not a line of JSON": text}
    return line if isinstance(line, dict) else {"not an object": text}


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # ended; macOS says the latter
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

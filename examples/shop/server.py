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

from check import Line

SOURCE = Path(__file__).resolve().parent

# What Python may need to start. Nothing else is passed on: Asok and gunicorn read settings from
# the environment, and whoever runs the demo may have some for an application of their own.
PASSED_ON = ("LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")


class Shop:
    """The shop in ``directory``, where it also keeps its database and its log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "log.jsonl"
        self._errors = directory / "errors.txt"
        self._environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        self._environment |= {"HOME": str(directory), "SECRET_KEY": secrets.token_hex(32)}

    def install(self) -> None:
        """Copy the application and create its database with two users.

        Raises:
            subprocess.SubprocessError: seeding failed, or did not end.
        """
        shutil.copy(SOURCE / "wsgi.py", self._directory)
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
    def serve(self, seconds: float) -> Iterator[str]:
        """Serve it with gunicorn, yield its URL, and stop it: after ``seconds`` at the latest."""
        # We bind and gunicorn inherits: no port can be lost to somebody else in between, and
        # whoever connects before gunicorn is ready waits in the queue of the socket.
        with (
            socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
            self._log.open("ab") as log,
            self._errors.open("ab") as errors,
        ):
            port = listener.getsockname()[1]
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"),
                    *("--worker-class", "gthread", "--threads", "8", "wsgi:app"),
                ],
                cwd=self._directory,
                env=self._environment,
                pass_fds=(listener.fileno(),),
                stdout=log,
                stderr=errors,
                start_new_session=True,  # a group of its own, to be killed as a whole
            )
        watchdog = threading.Timer(seconds, _kill, (process,))
        watchdog.start()
        try:
            yield f"http://127.0.0.1:{port}"
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

    def errors(self) -> str:
        """Return the end of what else it and its server had to say."""
        return "\n".join(self._errors.read_text("utf-8").splitlines()[-20:])


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

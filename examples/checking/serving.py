"""An example on a server: in a directory of its own, where it leaves its log and its report."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from check import Line

# What Python may need to start. Nothing else is passed on: frameworks and servers read settings
# from the environment, and whoever runs a demo may have some for an application of their own.
PASSED_ON = ("LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")


class Served:
    """The example in ``source``, copied to ``directory`` and served there."""

    def __init__(self, source: Path, directory: Path) -> None:
        self.directory = directory
        self._source = source
        self._log = directory / "log.jsonl"
        self._errors = directory / "errors.txt"
        self._report = directory / "report.txt"
        self._environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        self._environment |= {"HOME": str(directory), "SECRET_KEY": secrets.token_hex(32)}

    def copy(self, names: Iterable[str]) -> None:
        """Copy these files and directories of the example."""
        for name in names:
            source = self._source / name
            if source.is_dir():
                unwanted = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, self.directory / name, ignore=unwanted)
            else:
                shutil.copy(source, self.directory)

    def run(self, *command: str) -> None:
        """Run a module of Python there, before it is served.

        Raises:
            subprocess.SubprocessError: it failed, or did not end.
        """
        with self._errors.open("ab") as errors:
            subprocess.run(
                [sys.executable, "-m", *command],
                cwd=self.directory,
                env=self._environment,
                stdout=errors,
                stderr=errors,
                timeout=15,
                check=True,
            )

    @contextmanager
    def serve(
        self, *command: str, seconds: float, environment: Mapping[str, str] | None = None
    ) -> Iterator[int]:
        """Serve it with ``command``, yield on which port, and stop it: after ``seconds`` at the
        latest. The command is a module of Python, and says where ``{socket}`` and ``{port}`` go.
        """
        # We bind and the server inherits: no port can be lost to somebody else in between, and
        # whoever connects before the server is ready waits in the queue of the socket.
        with (
            socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
            self._log.open("ab") as log,
            self._errors.open("ab") as errors,
        ):
            port = listener.getsockname()[1]
            known = {"socket": f"fd://{listener.fileno()}", "port": str(port)}
            more = {key: value.format(**known) for key, value in (environment or {}).items()}
            process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(**known) for part in command)],
                cwd=self.directory,
                env=self._environment | more,
                pass_fds=(listener.fileno(),),
                stdout=log,
                stderr=errors,
                start_new_session=True,  # a group of its own, to be killed as a whole
            )
        watchdog = threading.Timer(seconds, _kill, (process,))
        watchdog.start()
        try:
            yield port
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

    def await_lines(self, event: str, number: int) -> None:
        """Wait for what is logged after the responses; ten seconds at most."""
        deadline = time.monotonic() + 10
        while sum(line.get("event") == event for line in self.lines()) < number:
            if time.monotonic() > deadline:
                return  # the check says which are missing
            time.sleep(0.02)

    def report(self) -> str:
        """Return the trees of its requests, which it writes when it is stopped."""
        return self._report.read_text("utf-8") if self._report.exists() else ""

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

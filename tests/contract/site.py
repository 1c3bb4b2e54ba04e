"""One application behind one server: copied, started, talked to, stopped.

Copied to a directory of its own, because it writes sessions, a database and caches under its
root. Stopped with its whole process group, because servers and `asok dev` fork.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.contract.browsers import Browser, HttpBrowser, InProcess, Reply
from tests.contract.kinds import Instead, Kind
from tests.contract.lines import Line, Log, canonical, of_logger
from tests.contract.servers import Framework, Server

APPS = Path(__file__).parent / "apps"
START_SECONDS = 30.0
STOP_SECONDS = 5.0
SECRET_KEY = "a-key-for-tests-that-is-long-enough-0123456789"

# What configures an application or a server, and must not come from whoever runs the suite.
_NOT_THEIRS = ("ASOK_", "DATABASE_", "DEBUG", "GUNICORN_", "LOG_", "OTEL_", "UVICORN_", "WEB_")


class Exchange(NamedTuple):
    """A request's response, and everything that was logged from before it until it was over."""

    reply: Reply
    lines: Sequence[Line]


class Site:
    """One application, served by one server."""

    def __init__(self, framework: Framework, server: Server, where: Path) -> None:
        self.framework = framework
        self.server = server
        self.root = where / "app"
        self.output = where / "output.txt"
        self._log_file = where / "log.jsonl"
        # With the one line alone the application prints, as structlog does by default.
        self.log = Log(self._log_file) if server.instrumented else Log(self.output, mixed=True)
        self._log_config = where / "logging.json"
        self._browsers: list[Browser] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Start the server, and wait until it has answered a request."""
        shutil.copytree(APPS / self.framework.app, self.root)
        shutil.copytree(APPS / "common", self.root, dirs_exist_ok=True)
        self._log_file.touch()
        self.output.touch()
        self._log_config.write_text(json.dumps(self._logging()))
        with _reserved_port(self.server.ports) as self.port:
            self._launch()
            self.wait_until_it_accepts(START_SECONDS)
        assert self.exchange("GET", "/health").reply.status == 200, self.tail()

    def wait_until_it_accepts(self, seconds: float) -> None:
        """Wait until somebody listens on the port."""
        deadline = time.monotonic() + seconds
        while not self._accepts():
            assert self.alive(), f"{self.server.name} has ended:\n{self.tail()}"
            assert time.monotonic() < deadline, f"{self.server.name} is slow:\n{self.tail()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, and whatever is left of its process group."""
        self.close_browsers()
        process, self._process = self._process, None
        if process is None:
            return
        for stream in process.stdin, process.stdout:
            if stream is not None:
                with suppress(BrokenPipeError):  # it has ended; the others must be stopped, too
                    stream.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)

    def answers(self, kind: Kind) -> Instead:
        """What this site answers to a kind of request."""
        return kind.under(self.server.name, self.server.interface)

    def alive(self) -> bool:
        """Whether the server's first process runs."""
        return self._process is not None and self._process.poll() is None

    def tail(self) -> str:
        """The end of what the server has printed, for failure messages."""
        return self.output.read_text(encoding="utf-8", errors="replace")[-3000:]

    def browser(self) -> Browser:
        """A new client with no cookies; it keeps one connection open, where it can."""
        if not self.server.in_process:
            return self.http_browser()
        assert self._process is not None
        self._browsers.append(InProcess(self._process))
        return self._browsers[-1]

    def http_browser(self) -> HttpBrowser:
        """A new client of a real server."""
        browser = HttpBrowser(self.port)
        self._browsers.append(browser)
        return browser

    def close_browsers(self) -> None:
        """Let go of every connection: servers take so many and no more."""
        while self._browsers:
            self._browsers.pop().close()

    def exchange(
        self, method: str, path: str, *, browser: Browser | None = None, **request: Any
    ) -> Exchange:
        """Send a request, and wait for the last line that it makes anybody log.

        Nobody else may be talking to this site meanwhile: all lines of that time are returned.
        """
        mark = self.log.mark()
        reply = (browser or self.browser()).request(method, path, **request)
        return Exchange(reply, self.settled(mark, [reply]))

    def settled(self, mark: int, replies: Sequence[Reply]) -> list[Line]:
        """Wait for the last line of everybody who got one of ``replies``; return all lines.

        Every request makes a canonical line, and an access line where the server logs any.
        """
        if not self.server.instrumented:
            return self.log.since(mark)
        ids = {request_id for reply in replies for request_id in reply.ids}
        access = self.server.access.logger

        def over(lines: Sequence[Line]) -> bool:
            last = canonical(lines)
            return (
                len(last) >= len(replies)
                and ids <= {line.get("request_id") for line in last}
                and (access is None or len(of_logger(lines, access)) >= len(replies))
            )

        return self.log.until(mark, over)

    def log_in(self, browser: Browser, user: int) -> Exchange:
        """Send the login form as ``user``."""
        form = self.exchange("GET", "/login", browser=browser).reply
        tokens = [("X-CSRF-Token", token) for token in form.values("X-CSRF-Token")]
        sent = self.exchange("POST", f"/login?id={user}", browser=browser, headers=tokens)
        assert sent.reply.status == 200
        return sent

    def _launch(self) -> None:
        values = {
            "port": str(self.port),
            "log_config": str(self._log_config),
            "python": sys.executable,
            "module": self.framework.module,
        }
        program, *arguments = (word.format(**values) for word in self.server.command)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(_NOT_THEIRS)},
            "SECRET_KEY": SECRET_KEY,
            "CONTRACT_LOG": str(self._log_file),
            "CONTRACT_STAMP": self.server.stamp,
            "PYTHONUNBUFFERED": "1",
            **self.server.environment,
        }
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [Path(sysconfig.get_path("scripts")) / program, *arguments],
                cwd=self.root,
                env=environment,
                stdin=subprocess.PIPE if self.server.in_process else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.server.in_process else output,
                stderr=output,
                start_new_session=True,  # a process group of its own, to be stopped whole
            )

    def _accepts(self) -> bool:
        if self.server.in_process:
            return True
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _logging(self) -> dict[str, Any]:
        """The server's log configuration: its lines go where the application's go."""
        filters = ["request"] if self.server.stamp == "filter" else []
        names = {own.logger for own in (self.server.access, self.server.report) if own.logger}
        return {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "fmt": "%(name)s %(levelname)s %(message)s",
                }
            },
            "filters": {"request": {"()": "asok_trace.RequestFilter"}},
            "handlers": {
                "console": {"class": "logging.StreamHandler"},  # gunicorn's root asks for it
                "file": {
                    "class": "logging.FileHandler",
                    "filename": str(self._log_file),
                    "formatter": "json",
                    "filters": filters,
                },
            },
            "loggers": {
                name: {"level": "INFO", "handlers": ["file"], "propagate": False}
                for name in sorted(names)
            },
        }


@contextmanager
def _reserved_port(ports: range) -> Iterator[int]:
    """A free port of these that nobody else gets while this lasts, and the server can bind.

    The socket is bound but does not listen. On Linux that keeps the port from everybody who
    asks for any, and yet lets a server bind it, as both allow addresses to be used again.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in random.sample(ports, len(ports)):
            with suppress(OSError):
                reservation.bind(("127.0.0.1", port))
                break
        port = reservation.getsockname()[1]
        if sys.platform != "linux":
            reservation.close()
        yield port


GetSite = Callable[[Framework, Server], Site]
"""Gives the site of a framework and a server, started."""

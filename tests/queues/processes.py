"""The processes of a queue: Redis, an application's server, and a worker."""

import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

Line = dict[str, Any]

WAIT_SECONDS = 60.0
STOP_SECONDS = 10.0
SECRET_KEY = "a-key-for-tests-that-is-long-enough-0123456789"
PROJECT = Path(__file__).parent / "project"

_NOT_THEIRS = ("ASOK_", "CELERY_", "DATABASE_", "DEBUG", "GUNICORN_", "OTEL_", "REDIS_")

# Where nobody listens.
_NOWHERE = "1"


def until(found: Callable[[], Any], what: Callable[[], str]) -> Any:
    """Wait until ``found()`` is true and return it; ``what`` describes the failure."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (result := found()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)
    return result


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, but for what would configure the programs, and ``extra``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_THEIRS)}
    return {**kept, "PYTHONUNBUFFERED": "1", "SECRET_KEY": SECRET_KEY, **extra}


class Process:
    """A program in a process group of its own, and what it prints."""

    def __init__(
        self, command: Sequence[str], where: Path, output: Path, env: Mapping[str, str]
    ) -> None:
        self._output = output
        with output.open("wb") as file:
            self._popen = subprocess.Popen(
                command,
                cwd=where,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """Everything it has printed so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    def until_printed(self, text: str) -> None:
        """Wait until it has printed ``text``."""

        def found() -> bool:
            assert text in self.printed or self.alive(), self.printed
            return text in self.printed

        until(found, lambda: f"{text!r} was not printed:\n{self.printed}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it, and whatever is left of its process group. A worker finishes its jobs."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, how)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(STOP_SECONDS)


def program(name: str) -> str:
    """The path of a program that was installed beside this Python."""
    return str(Path(sys.executable).parent / name)


def free_port() -> int:
    """A port of this machine that nobody uses right now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens on ``port``."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def listening(
    command: Callable[[int], Sequence[str]], where: Path, output: Path, env: Mapping[str, str]
) -> Iterator[tuple[int, Process]]:
    """A server on a free port: tried again, should another program take the port first."""
    for _ in range(5):
        port = free_port()
        process = Process(command(port), where, output, env)
        until(lambda: accepts(port) or not process.alive(), lambda: process.printed)  # noqa: B023
        if process.alive():
            break
    assert process.alive(), process.printed
    try:
        yield port, process
    finally:
        process.stop(signal.SIGTERM)


class Log:
    """Lines of JSON in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self, **facts: Any) -> list[Line]:
        """The lines so far that say ``facts``."""
        text = self.path.read_text(encoding="utf-8")
        found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line for line in found if facts.items() <= line.items()]

    def until(self, number: int = 1, **facts: Any) -> list[Line]:
        """Wait for so many lines that say ``facts``; more are a failure."""
        until(lambda: len(self.lines(**facts)) >= number, lambda: f"{facts} in {self.lines()}")
        found = self.lines(**facts)
        assert len(found) == number, found
        return found

    def one(self, **facts: Any) -> Line:
        """Wait for the only line that says ``facts``."""
        return self.until(1, **facts)[0]


class Shop:
    """The project in a directory of its own, served by gunicorn, and its worker."""

    def __init__(self, where: Path, redis_url: str, otlp: str | None = None) -> None:
        self.root = where / "shop"
        shutil.copytree(PROJECT, self.root, ignore=shutil.ignore_patterns("__pycache__"))
        self.log = Log(where / "worker.jsonl")
        self._where = where
        self._port = 0
        self.environment = environment(
            ASOK_QUEUE_BACKEND="redis",
            ASOK_REDIS_URL=redis_url,
            MAIL_HOST="127.0.0.1",
            MAIL_PORT=_NOWHERE,
            MAIL_TLS="false",
        )
        if otlp is not None:
            self.environment |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_BSP_SCHEDULE_DELAY": "50",
            }

    @contextmanager
    def worker(self, *command: str, log: Path | None = None, **extra: str) -> Iterator[Process]:
        """`asok worker`, or ``command`` in its place, in a process."""
        process = Process(
            command or (program("asok"), "worker"),
            self.root,
            (log or self.log.path).with_suffix(".txt"),
            {**self.environment, "QUEUE_LOG": str(log or self.log.path), **extra},
        )
        try:
            process.until_printed("Listening to queues")
            yield process
        finally:
            process.stop()

    @contextmanager
    def served(self) -> Iterator[None]:
        """The application under gunicorn."""
        env = {**self.environment, "QUEUE_LOG": str(self._where / "server.jsonl")}
        with listening(
            lambda port: (
                *(program("gunicorn"), "--bind", f"127.0.0.1:{port}", "--threads", "4"),
                "wsgi:app",
            ),
            self.root,
            self._where / "server.txt",
            env,
        ) as (self._port, _):
            yield

    def ask(self, request_id: str, user: str | None = None, **query: Any) -> str:
        """Send a request that queues a job; return the job's id."""
        headers = {"X-Request-ID": request_id}
        if user is not None:
            headers["X-User"] = user
        if "arguments" in query:
            query["arguments"] = json.dumps(query["arguments"])
        connection = HTTPConnection("127.0.0.1", self._port, timeout=WAIT_SECONDS)
        try:
            connection.request("GET", f"/queue?{urlencode(query)}", headers=headers)
            response = connection.getresponse()
            body = response.read().decode()
        finally:
            connection.close()
        assert response.status == 200, body
        assert response.getheader("X-Request-ID") == request_id
        return body


def job(function: str, *arguments: Any, **more: Any) -> dict[str, Any]:
    """The dict of a job as asok makes it; ``more`` are further keys of it, or other values."""
    made = {"id": f"job-{function}", "module": "jobs", "function": function, "args": arguments}
    made |= {"kwargs": {}, "queue": "default", "retries": 0, "retry_count": 0, "backoff": 0}
    return {**made, **more}


def envelope(job: object, key: str = SECRET_KEY) -> str:
    """``job`` signed as asok does."""
    text = json.dumps(job, sort_keys=True)
    signature = hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return json.dumps({"v": 1, "job": text, "sig": signature})

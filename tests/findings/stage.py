"""Where a bug is played: an instrumented application, and what was found of it.

``python -m tests.findings.stage BUG...`` plays some, and then their repaired twins, in a process
of their own.

needs: asok, flask, quart
"""

import asyncio
import dataclasses
import functools
import gc
import importlib
import inspect
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

import asok_trace
from asok_trace.core import findings
from asok_trace.core.finding import Finding
from tests.findings.corpus import Bug, bugs, twin

SECONDS: Final = 20
MODULES: Final = (
    *("lost", "lost_reads", "late", "left", "elsewhere", "attached", "dropped", "kept", "outside"),
    "harmless",
)


class Stage:
    """An application of one framework, whose views a bug adds, and a client of it."""

    def __init__(self, framework: str, root: Path, **settings: Any) -> None:
        self.framework = framework
        self.ids: dict[str, list[str]] = {}
        """Path -> the ids that its responses have had."""
        self.error: BaseException | None = None
        self.lines: list[dict[str, Any]] = []
        if framework == "asok":
            from tests.gateway.sites import Site

            self.site: Any = Site(root)
            self.app: Any = self.site.app
        elif framework == "flask":
            from flask import Flask

            self.app = Flask("stage")
        else:
            from quart import Quart

            self.app = Quart("stage")
        self.handle = asok_trace.instrument(self.app, **settings)

    def view(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Serve ``function`` under its own name: ``/cart``."""
        if self.framework == "asok":
            self.site.view(function)
        else:
            self.app.add_url_rule(f"/{function.__name__}", function.__name__, function)
        return function

    def get(self, path: str) -> None:
        """Ask for ``path`` as a server does, to the last byte."""
        if self.framework == "asok":
            from tests.gateway.sites import wsgi

            [request_id] = wsgi(self.app, path).ids
        else:
            answer = self.app.test_client().get(path, buffered=True)
            request_id = answer.headers["X-Request-ID"]
        self.ids.setdefault(path, []).append(request_id)

    async def ask(self, path: str) -> None:
        """`get` in the loop that runs: of Quart, and of Asok over ASGI."""
        if self.framework == "asok":
            from tests.gateway.sites import asgi_scope, receiving, replied

            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            await self.app(asgi_scope(path), receiving(), send)
            [request_id] = replied(sent).ids
        else:
            answer = await self.app.test_client().get(path)
            await answer.get_data()
            request_id = answer.headers["X-Request-ID"]
        self.ids.setdefault(path, []).append(request_id)

    def wait(self, event: threading.Event) -> None:
        """Wait until something has happened."""
        assert event.wait(SECONDS), "it did not happen in time"


class Played(NamedTuple):
    """What has come of a bug."""

    findings: list[Finding]
    ids: dict[str, list[str]]
    notes: list[str]
    texts: list[str]
    """What was logged of the findings."""


class _Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def play(bug: Bug, root: Path) -> Played:
    """Play ``bug`` in this process, and return what was found."""
    findings.clear()
    told = _Told()
    logger = logging.getLogger("asok_trace")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(told)
    with logged(), _tracing(bug.spans):
        stage = Stage(bug.framework, root, level=bug.level, threads=bug.mode, **bug.settings)
        try:
            done = bug.play(stage)
            if inspect.iscoroutine(done):
                asyncio.run(done)
            del done
            gc.collect()
            found = asok_trace.findings()
        finally:
            stage.handle.undo()
            logger.removeHandler(told)
            logger.setLevel(level)
    notes = [] if stage.error is None else getattr(stage.error, "__notes__", [])
    return Played(found, stage.ids, notes, told.texts)


def play_alone(bug: Bug, *, fixed: bool) -> Played:
    """Play ``bug``, or its twin, in a process of its own; or of all that need its environment."""
    if bug.alone:
        together = [bug]
    else:
        together = [other for other in corpus() if other.environment == bug.environment]
    names = tuple(other.name for other in together)
    return _played_alone(names, tuple(bug.environment.items()))[bug.name, fixed]


@functools.cache
def _played_alone(
    names: tuple[str, ...], environment: tuple[tuple[str, str], ...]
) -> dict[tuple[str, bool], Played]:
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "ASOK_TRACE_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, *names],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env=inherited | dict(environment),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = {}
    for name, fixed, played in map(json.loads, done.stdout.splitlines()):
        found = [Finding(**fields) for fields in played.pop("findings")]
        results[name, fixed] = Played(found, **played)
    return results


@contextmanager
def logged() -> Iterator[None]:
    """Lines of structlog and of the standard library are stamped, and go nowhere."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, asok_trace.inject, drop],
        cache_logger_on_first_use=False,
    )
    try:
        with asok_trace.stamp_logging():
            yield
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


@contextmanager
def _tracing(wanted: bool) -> Iterator[None]:
    """A tracer provider, where one is wanted."""
    if not wanted:
        yield
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    api: Any = trace
    before, api._TRACER_PROVIDER = api._TRACER_PROVIDER, TracerProvider()
    api._TRACER_PROVIDER.add_span_processor(asok_trace.SpanStamper())
    try:
        yield
    finally:
        api._TRACER_PROVIDER = before


def silent() -> None:
    """Nothing was found, not even what ran outside any request."""
    asok_trace.assert_clean(outside=True)


def work(done: threading.Event) -> None:
    """Say so, and be done."""
    structlog.get_logger().info("working")
    done.set()


def corpus() -> list[Bug]:
    """Every bug there is."""
    return [
        bug
        for name in MODULES
        for bug in bugs(importlib.import_module(f"tests.findings.bugs.{name}"))
    ]


def main(*names: str) -> None:
    """Play these bugs and their twins, each in a context of its own, and print what has come of
    them."""
    chosen = [bug for bug in corpus() if bug.name in names]
    for fixed in (False, True):
        for bug in [bug for bug in chosen if bug.has_twin or not fixed]:
            with tempfile.TemporaryDirectory() as root:
                played = Context().run(play, twin(bug) if fixed else bug, Path(root))
            found = [dataclasses.asdict(finding) for finding in played.findings]
            print(json.dumps([bug.name, fixed, {**played._asdict(), "findings": found}]))


if __name__ == "__main__":
    os.environ.setdefault("SECRET_KEY", "a-key-for-tests-that-is-long-enough-0123456789")
    main(*sys.argv[1:])

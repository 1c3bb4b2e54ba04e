"""`asok-trace doctor`: ask an application for its own pages, and say what it does to their context.

What it finds it finds as the application would in production: by the detectors, at ``strict``.
"""

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from typing import Any, Final

from asok_trace import assemble, callables, config
from asok_trace.core import findings, names, settings
from asok_trace.core.errors import PIECES, ConfigError
from asok_trace.core.finding import OUTSIDE, Finding
from asok_trace.core.settings import STRICT
from asok_trace.detect import retained
from asok_trace.frameworks import base, routes
from asok_trace.frameworks.routes import Route
from asok_trace.propagate import threads
from asok_trace.stamp import stdlib
from asok_trace.tools import clients
from asok_trace.tools.loading import Unusable, load

_STARTUP_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.02

_POOLS: Final = "concurrent.futures.thread"

_CONTEXT: Final = "asok_trace_strict"
"""Our runtime context for OpenTelemetry, which has to be chosen before that is imported."""


@dataclass(frozen=True)
class Request:
    """What the doctor was asked for."""

    target: str
    """``module:attribute``."""
    factory: bool = False
    interface: str | None = None
    examples: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    paths: Sequence[str] = ()
    timeout: float = 30.0
    """Seconds for each answer."""
    grace: float = 1.0
    """Seconds for what goes on after the last one."""
    outside: bool = False
    """Count what ran with no request behind it, too."""


@dataclass(frozen=True)
class Asked:
    """A request that was sent, and what came back."""

    method: str
    path: str
    route: str
    status: int | None
    ms: float
    error: str | None


@dataclass(frozen=True)
class Skipped:
    """A route that was not requested."""

    route: str
    reason: str


@dataclass
class Report:
    """What came of it."""

    app: str
    counts: bool
    """Whether ``outside`` counts."""
    requested: list[Asked] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What of ours failed on the way, and could find nothing from then on."""

    @property
    def ok(self) -> bool:
        """Whether there was something to look at, and all of it was fine."""
        return bool(self.requested) and not self.faults and not self.counted

    @property
    def counted(self) -> list[Finding]:
        """The findings that are mistakes: what ran with no request behind it need not be one."""
        return [found for found in self.findings if self.counts or found.slug != OUTSIDE]


def examine(request: Request) -> Report:
    """Import the application, request its pages, and return what was found.

    Its GET handlers run for real. Sets up the process for it and takes nothing back.

    Raises:
        Unusable: with a text for whoever gave the command.
    """
    _prepare(request)
    app = load(request.target, factory=request.factory)
    report = Report(request.target, request.outside)
    served, kinds = _watched(app, request, report)
    planned = _plan(app, request, report)
    client = clients.of(served, kinds)
    try:
        client.start(_STARTUP_SECONDS)
    except clients.Failed as failed:
        raise Unusable(f"{request.target} cannot be started: {failed}.") from None
    _see_lines_and_spans()
    before = set(threading.enumerate())
    for path, route in planned:
        if client.stuck:
            last = report.requested[-1].path
            report.skipped.append(Skipped(route, f"GET {last} still blocks the event loop"))
        else:
            report.requested.append(_ask(client, path, route, request.timeout))
    _wait(client, before, request.grace)
    report.findings = findings.findings()
    report.faults = [piece.name for piece in PIECES if not piece.working]
    client.stop(_STOP_SECONDS)
    return report


def _prepare(request: Request) -> None:
    """What has to be decided before the application is imported."""
    os.environ[names.ENVIRONMENT_PREFIX + "LEVEL"] = STRICT
    os.environ[names.ENVIRONMENT_PREFIX + "GRACE"] = str(request.grace)
    # The spans of these requests are nobody else's business.
    for signal in ("TRACES", "METRICS", "LOGS"):
        os.environ[f"OTEL_{signal}_EXPORTER"] = "none"
    if list(entry_points(group="opentelemetry_context", name=_CONTEXT)):
        os.environ.setdefault("OTEL_PYTHON_CONTEXT", _CONTEXT)
    try:
        config.apply_environment()
    except ConfigError as error:
        raise Unusable(str(error)) from None
    settings.want(STRICT)
    # Each finding is shown at the end; what is logged beside them is a fault of ours.
    logging.getLogger(names.LOGGER).addFilter(lambda record: record.levelno >= logging.ERROR)


def _watched(app: Any, request: Request, report: Report) -> tuple[Any, set[str]]:
    """Have ``app`` watched; return what is to be called, and the kinds of its entries, none if
    its framework is not known."""
    known = base.of_app(app)
    kinds = set() if known is None else {entry.kind for entry in known[1]}
    if known is not None and kinds.isdisjoint({"wsgi", "asgi"}):
        raise Unusable(f"{request.target} has no pages: it is a {type(app).__name__}.")
    marked = callables.instrumented(app)
    if marked is None:
        try:
            served = assemble.instrument(
                app, interface=request.interface, level=STRICT, access_log=False
            ).app
        except ConfigError as error:
            raise Unusable(f"{request.target}: {error}") from None
    else:
        served, own = app, marked[1]
        # None where a launcher has done it, from the environment.
        if own is not None and own.level != STRICT:
            report.notes.append(
                f'{request.target} is instrumented with level="{own.level}", and its requests are '
                f"looked at no closer than that. Leave it out: ASOK_TRACE_LEVEL says it as well."
            )
    threads.watch_threads()  # what is carried in production is carried here
    return served, kinds


def _see_lines_and_spans() -> None:
    """After the startup, which may configure all of it."""
    # Not before: OpenTelemetry reads which context it is to use while it is being imported.
    from asok_trace import providers
    from asok_trace.stamp.structlog import put_in_chain

    put_in_chain()
    if not stdlib.active():
        stdlib.stamp_logging()
    providers.set_up(None)


def _plan(app: Any, request: Request, report: Report) -> list[tuple[str, str]]:
    """The paths to request, each with its route; what is skipped goes into ``report``."""
    found = routes.of(app)
    if found is None:
        report.notes.append(
            f"The routes of {request.target} cannot be told: / is requested, and what --path says."
        )
        found = [Route("/", (), lambda _values: "/")]
    used: set[str] = set()
    planned: dict[str, str] = {}
    for route in found:
        used.update(route.parameters)
        path, reason = _path(route, request)
        if path is None:
            report.skipped.append(Skipped(route.pattern, reason))
        else:
            planned.setdefault(path, route.pattern)
    for path in request.paths:
        planned.setdefault(path, path)
    report.notes += [
        f"--example {name}={request.examples[name]} fits no route: none has a parameter {name}."
        for name in request.examples
        if name not in used
    ]
    return list(planned.items())


def _path(route: Route, request: Request) -> tuple[str | None, str]:
    """The path to request for ``route``; None, and the reason, if it is to be skipped."""
    if route.unfit is not None:
        return None, route.unfit
    excluded = _excluding(route.pattern, request)
    missing = [name for name in route.parameters if name not in request.examples]
    if excluded is None and missing:
        return None, " ".join(f"--example {name}=..." for name in missing)
    path = None
    if excluded is None:
        try:
            path = route.build({name: request.examples[name] for name in route.parameters})
        except ValueError as error:
            return None, f"its example does not fit: {error}"
        excluded = _excluding(path, request)
    return (path, "") if excluded is None else (None, f"--exclude {excluded}")


def _excluding(path: str, request: Request) -> str | None:
    return next((pattern for pattern in request.exclude if fnmatchcase(path, pattern)), None)


def _ask(client: clients.Client, path: str, route: str, seconds: float) -> Asked:
    start = time.perf_counter()
    answer = client.get(path, seconds)
    ms = round((time.perf_counter() - start) * 1000, 1)
    return Asked("GET", path, route, answer.status, ms, answer.error)


def _wait(client: clients.Client, before: set[threading.Thread], seconds: float) -> None:
    """Wait until what the requests have started is done, and they are gone; not longer than
    ``seconds``, after which they should be."""
    end = time.monotonic() + seconds
    quiet = 0
    while quiet < 2 and time.monotonic() < end:  # once may be between a job and the next
        quiet = 0 if client.busy() or _at_work(before) else quiet + 1
        time.sleep(_LOOK_SECONDS)
    gc.collect()
    if retained.pending():
        time.sleep(max(0.0, end - time.monotonic()))


def _at_work(before: set[threading.Thread]) -> bool:
    """Whether a thread runs that was not there ``before``: none of ours, nor an idle pool's."""
    frames = sys._current_frames()
    for thread in set(threading.enumerate()) - before:
        frame = frames.get(thread.ident or 0)
        idle = frame is not None and frame.f_globals.get("__name__") == _POOLS
        if not idle and not thread.name.startswith(names.LOGGER):
            return True
    return False

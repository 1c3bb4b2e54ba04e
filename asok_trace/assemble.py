"""Put the parts together: hook up an application, its framework, and a framework's worker."""

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from asok_trace import callables, config
from asok_trace.core.errors import ConfigError
from asok_trace.core.hooks import Handle, Hook
from asok_trace.core.settings import CARRY, OFF, STRICT, Settings, default, set_default
from asok_trace.frameworks import base
from asok_trace.frameworks.base import Entry, Framework
from asok_trace.gateway import asgi, message, notes, wsgi
from asok_trace.gateway.gate import Gate
from asok_trace.propagate import elsewhere, jobs, mirrored
from asok_trace.propagate.threads import propagate_threads
from asok_trace.stamp import stdlib, tracing

# On the application and on the framework's modules, not with us: a framework's reloader may throw
# them away.
_MARK = "_asok_trace"


def instrument(app: Any, *, interface: str | None = None, **settings: Any) -> Handle:
    """Open a scope for every request of ``app``, and set its request id on every response; for
    every message of a WebSocketServer, in whose handlers ``current_request`` works from then on.
    What the framework itself starts elsewhere goes on from its request: background jobs, mail,
    jobs on a queue; each run of a scheduled function is a unit of work.

    Wraps the entries of the application on the object itself; ``app`` stays the object it
    was. Doing it again changes nothing and returns the same handle. Costs a sixth of what
    Asok takes for an empty page; with a tracer provider, about what OpenTelemetry's own WSGI
    middleware does.

    Args:
        app: an Asok, Flask or Quart application, or an Asok WebSocketServer; or any WSGI or ASGI
            callable, which is not changed: serve ``handle.app`` in its place.
        interface: ``wsgi`` or ``asgi``, for a callable of which that cannot be told.
        settings: ``isolate``, ``user`` (not asked for a callable: there is no request to ask
            about), ``access_log``, ``request_id_header``,
            ``trust_incoming``, ``exclude``, ``log_events``, ``cron``, ``threads``; see
            `asok_trace.core.settings.Settings`.

    Returns:
        A handle; ``handle.undo()`` gives the application back as it was. Of a callable, the
        ``handle.app`` then passes everything through.

    Raises:
        ConfigError: an unknown application or setting, a bad value, or an application that is
            instrumented already with other settings.
    """
    found = base.of_app(app)
    resolved = config.resolve(settings)
    marked = callables.instrumented(app) if found is None else vars(app).get(_MARK)
    if marked is not None:
        handle, before = marked
        if not settings or before == resolved:
            return handle
        if before is not None:
            raise ConfigError(
                f"{app!r} is instrumented already, with {before}. Give all settings in one "
                f"call, or call undo() on the first handle."
            )
        handle.undo()
    if found is None:
        return callables.instrument(app, interface, resolved)
    framework, entries = found
    gate = Gate.of(app, framework, resolved)
    undos: list[Callable[[], None]] = []
    try:
        for entry in _wanted(entries, resolved):
            undos.append(_install(app, entry, gate))  # noqa: PERF401  # undone if one fails
        undos.append(callables.in_process(resolved).undo)
    except BaseException:
        _all(undos)
        raise

    def undo() -> None:
        _all(undos)
        vars(app).pop(_MARK, None)

    handle = Handle(undo, app)
    vars(app)[_MARK] = (handle, resolved)
    return handle


def instrument_unasked(app: Any) -> Handle:
    """Instrument ``app`` on behalf of the program's launcher: what the program itself says of it
    later holds."""
    handle = instrument(app)
    vars(app)[_MARK] = (handle, None)
    return handle


def setup(app: Any = None, *, interface: str | None = None, **settings: Any) -> Handle:
    """Set up the whole thing: stamped log lines, spans with exporters, and ``app``.

    - structlog: if it is not configured, as the one-liner does; else `inject` is put in front of
      the last processor of your chain, unless it is in there.
    - The standard library's logging: `stamp_logging`.
    - OpenTelemetry: tracer, meter and logger providers, unless you have set some (then your spans
      are stamped), with the exporters that ``OTEL_*`` variables name; log lines go there, too.
      With none of them set, the last requests are kept in memory for `report`.
      ``OTEL_SDK_DISABLED=true`` is honoured.
    - `instrument(app)`, if an application is given; `propagate_threads`, unless ``threads`` says
      otherwise.

    Call it after your own configuration, which it keeps. Doing it again adds what is missing.

    Args:
        app, interface: as for `instrument`; or None.
        settings: those of `instrument`, which hold for `scope` as well; ``service``, the
            ``service.name`` of the providers (else ``OTEL_SERVICE_NAME`` is); and
            ``log_events``, which makes log lines events of the current span.

    Returns:
        A handle, whose ``app`` is to be served; ``handle.undo()`` takes back what this call has
        set up, but for the providers, which OpenTelemetry lets nobody replace.

    Raises:
        ConfigError: as `instrument` does; or an exporter that is named but not installed.
    """
    from asok_trace import providers
    from asok_trace.stamp.structlog import put_in_chain

    resolved = config.resolve(settings)
    undos: list[Callable[[], None]] = []
    served = app
    try:
        if app is not None:
            before = getattr(app, "__dict__", {}).get(_MARK)
            handle = instrument(app, interface=interface, **settings)
            served = handle.app
            if before is None or before[0] is not handle:
                undos.append(handle.undo)
        undos.append(providers.set_up(resolved.service))
        callables.tell_strict(resolved)
        tracing.spans()  # loaded now, not by the first request
        tracing.meters()
        undos.append(put_in_chain())
        if resolved.threads is None:
            undos.append(propagate_threads(CARRY).undo)
        elif app is None and resolved.threads != OFF:
            undos.append(propagate_threads(resolved.threads).undo)
        if not stdlib.active():
            undos.append(stdlib.stamp_logging().undo)
        if settings:
            undos.append(_make_default(resolved))
    except BaseException:
        _all(undos)
        raise
    return Handle(lambda: _all(undos), served)


def _make_default(settings: Settings) -> Callable[[], None]:
    """Make ``settings`` the process-wide ones; return how to undo it, unless they are changed."""
    before = default()
    set_default(settings)
    return lambda: set_default(before) if default() is settings else None


def _all(undos: list[Callable[[], None]]) -> None:
    for undo in reversed(undos):
        undo()


def _wanted(entries: Sequence[Entry], settings: Settings) -> Iterator[Entry]:
    errors = settings.level == STRICT if settings.errors is None else settings.errors
    for entry in entries:
        if entry.kind == "complaint" and not errors:
            continue
        if settings.cron or not entry.kind.startswith("cron"):
            yield entry


def install_worker(framework: Framework) -> Handle:
    """Hook up the framework's own worker process, where the jobs of its queue are run."""
    undos = [_install_shared(entry, framework) for entry in framework.worker]
    return Handle(lambda: _all(undos))


def _install(app: Any, entry: Entry, gate: Gate) -> Callable[[], None]:
    """Hook up one entry; return how to take it back."""
    if entry.owner is not None:
        return _install_shared(entry, gate.framework)
    make = _MAKERS[entry.kind]
    return Hook(app, entry.attribute, lambda hook: make(hook, gate)).undo


class _Shared:
    """A hook on what all applications of a framework share, until the last of them is undone."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.users = 0


def _install_shared(entry: Entry, framework: Framework) -> Callable[[], None]:
    owner = pkgutil.resolve_name(entry.owner or "")
    marks: dict[str, _Shared] = vars(owner).get(_MARK, {})
    shared = marks.get(entry.attribute)
    if shared is None:
        make = _SHARED[entry.kind]
        shared = _Shared(Hook(owner, entry.attribute, lambda hook: make(hook, framework)))
        marks[entry.attribute] = shared
        setattr(owner, _MARK, marks)  # not earlier: an attribute that is missing raises
    shared.users += 1
    return partial(_leave, owner, marks, entry.attribute)


def _leave(owner: Any, marks: dict[str, _Shared], attribute: str) -> None:
    shared = marks[attribute]
    shared.users -= 1
    if not shared.users:
        shared.hook.undo()
        del marks[attribute]
        if not marks and vars(owner).get(_MARK) is marks:
            delattr(owner, _MARK)


_MAKERS: dict[str, Callable[[Hook, Gate], Any]] = {
    "wsgi": wsgi.gateway,
    "asgi": asgi.gateway,
    "environ": notes.environ,
    "route": notes.route,
    "dispatch": notes.dispatch,
    "error": notes.error,
    "task": elsewhere.task,
    "connect": partial(message.gateway, event="connect"),
    "message": partial(message.gateway, event="message"),
    "disconnect": partial(message.gateway, event="disconnect"),
}

_SHARED: dict[str, Callable[[Hook, Framework], Any]] = {
    "job": jobs.job,
    "attempt": jobs.attempt,
    "queued": jobs.queued,
    "consume": jobs.consume,
    "verified": jobs.verified,
    "job_failed": jobs.job_failed,
    "outlive": elsewhere.outlive,
    "awaited": elsewhere.awaitable,
    "cron": elsewhere.cron,
    "cron_turn": elsewhere.turn,
    "error_log": notes.error_log,
    "complaint": notes.complaint,
    "received": asgi.received,
    "span": mirrored.started,
    "traced": mirrored.traced,
}

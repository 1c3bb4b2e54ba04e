"""What happens within a request, noted on its scope for the request's end: the environ that a
framework builds, the route it finds, the error it makes a page of or reports."""

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from asok_trace.core.callsite import caller
from asok_trace.core.errors import Piece, contained
from asok_trace.core.hooks import Hook
from asok_trace.core.names import CARRIED
from asok_trace.core.scope import ACTIVE
from asok_trace.detect import explain
from asok_trace.frameworks import base, lookup
from asok_trace.frameworks.base import Framework
from asok_trace.gateway.exchange import opening, routing
from asok_trace.gateway.gate import Gate

noting: Final = Piece("noting what a framework reports to its log", then="spans do not say so")


def environ(hook: Hook, _gate: Gate) -> Callable[..., Any]:
    """The environ that the framework builds of an ASGI request carries its scope as well."""

    def build(*args: Any, **kwargs: Any) -> Any:
        environ = hook.original(*args, **kwargs)
        if hook.active:
            contained(opening, environ.setdefault, CARRIED, ACTIVE.get())
        return environ

    return build


def route(hook: Hook, gate: Gate) -> Callable[..., Any]:
    """Note the route as soon as the framework has found it."""

    def resolve(*args: Any, **kwargs: Any) -> Any:
        found = hook.original(*args, **kwargs)
        if hook.active:
            contained(routing, _note_route, gate, found)
        return found

    return resolve


def _note_route(gate: Gate, found: Any) -> None:
    scope = ACTIVE.get()
    if scope is not None and scope._open:
        if found not in gate.routes:
            gate.routes[found] = gate.framework.route(gate.app, found)
        scope._route = gate.routes[found]


def dispatch(hook: Hook, gate: Gate) -> Callable[..., Any]:
    """Note what the framework knows while its request is current: at first the route, and the
    address as middleware may have corrected it; at last the user."""

    def dispatch(*args: Any, **kwargs: Any) -> Any:
        if not hook.active:
            return hook.original(*args, **kwargs)
        contained(routing, _note_request, gate)
        result = hook.original(*args, **kwargs)
        if inspect.iscoroutine(result):
            return finished(result)
        contained(routing, lookup.facts)
        return result

    async def finished(dispatching: Coroutine[Any, Any, Any]) -> Any:
        result = await dispatching
        contained(routing, lookup.facts)
        return result

    return dispatch


def _note_request(gate: Gate) -> None:
    scope = ACTIVE.get()
    request = gate.framework.current()
    if scope is not None and scope._open and request is not None:
        scope._route = gate.framework.route(gate.app, gate.framework.matched(request))
        if gate.framework.carried(request) is scope:
            scope.locate(gate.framework.facts(request)[0])


def error(hook: Hook, _gate: Gate) -> Callable[..., Any]:
    """Note the exception that the framework makes an error page of."""

    def respond(*args: Any, **kwargs: Any) -> Any:
        if hook.active:
            contained(routing, _note_error, args)
        return hook.original(*args, **kwargs)

    return respond


def _note_error(args: tuple[Any, ...]) -> None:
    error = next((arg for arg in args if isinstance(arg, BaseException)), None)
    explain.passing(error, base.complaints)  # before it is logged
    scope = ACTIVE.get()
    if scope is not None and scope._open:
        scope._error = error


def complaint(hook: Hook, framework: Framework) -> Callable[..., Any]:
    """Explain the error about there being no current request, as it is raised."""

    @functools.wraps(hook.original)
    def current(*args: Any, **kwargs: Any) -> Any:
        try:
            return hook.original(*args, **kwargs)
        except RuntimeError as error:
            if hook.active:
                contained(explain.explaining, _complained, hook, framework, error)
            raise

    return current


def _complained(hook: Hook, framework: Framework, error: RuntimeError) -> None:
    frame = caller()
    # What the framework has between this and whoever reads an attribute of its request.
    while frame is not None and frame.f_globals.get("__name__") == hook.owner.__module__:
        frame = frame.f_back
    if frame is not None:
        explain.raised(error, lambda: framework.complaints, frame)


def error_log(hook: Hook, _framework: Framework) -> Callable[..., None]:
    """Note the exceptions that are reported to a logger, as errors of the message, scheduled run
    or task they happened in: the framework swallows them.

    Not by a filter: a logger that is disabled, as `dictConfig` does by default, asks none.
    """

    def error(*args: Any, **kwargs: Any) -> None:
        if hook.active:
            contained(noting, _note_reported, sys.exception(), kwargs.get("exc_info"))
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the line is not ours
        hook.original(*args, **kwargs)

    return error


def _note_reported(error: BaseException | None, shown: object) -> None:
    explain.passing(error, base.complaints)
    scope = ACTIVE.get()
    if scope is None or not scope._open:
        return
    # A task's logger is told of nothing but its failure.
    if scope._kind == "task" or (shown and scope._kind in ("message", "cron")):
        scope._error = error

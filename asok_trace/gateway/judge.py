"""What a request finds in place when it begins, and what it leaves when it ends."""

import inspect
import sys
from collections.abc import Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from asok_trace.core.callsite import relative, where
from asok_trace.core.errors import Piece
from asok_trace.core.scope import Scope
from asok_trace.core.settings import OFF, STRICT
from asok_trace.detect import leaks
from asok_trace.frameworks import otel

if TYPE_CHECKING:
    from asok_trace.gateway.exchange import Gate

judging: Final = Piece("looking at what a request leaves behind")

_STRUCTLOG: Final = "structlog_"
"""How structlog names the variables that it keeps bound values in."""


class Found:
    """What was in place when a request began, to be compared with what is when it ends."""

    __slots__ = ("_bound", "_gate", "_request", "_traced")

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        self._request = gate.current()
        self._traced = otel.current() if otel.configured() else None
        self._bound = _bound() if gate.settings.level == STRICT else None

    def bled_in(self) -> None:
        """Report a request that is in place although it is over: somebody left it."""
        request = self._request
        if request is None:
            return
        framework = self._gate.framework
        scope = framework.carried(request)
        # One that has no gateway, or that a test made by hand, is nobody's mistake.
        if scope is None or scope._open or framework.preserved(request):
            return
        self._request = None  # or the next one would not be missed
        leaks.bleed(
            scope,
            "its request current, and another one began",
            "end what was begun: request_context() in a with block, and no BaseException in a "
            "signal's receiver; isolate=True keeps it from the next request",
            view(self._gate, scope),
        )

    def left_by(self, scope: Scope, traced: Any) -> None:
        """Report what the request of ``scope`` leaves behind; ``traced`` is the OpenTelemetry
        context in which it ran, None if nobody traces or that of the server is in force."""
        gate = self._gate
        request = gate.current()
        if request is not None and request is not self._request:
            own = gate.framework.carried(request)
            if own is None or own is scope or not own._running:
                leaks.bleed(
                    scope,
                    "its request current" if own is scope else "another request current",
                    "push and pop a context in one with block; let no BaseException out of a "
                    "signal's receiver",
                    view(gate, scope),
                )
        expected = self._traced if traced is None else traced
        if expected is not None:
            span = otel.left(expected)
            if span is not None:
                leaks.bleed(
                    scope,
                    f"the span {span!r} attached",
                    "with tracer.start_as_current_span(...): instead of attach(); or detach() "
                    "in a finally",
                    view(gate, scope),
                )
        if self._bound is not None:
            bound = _bound()
            keys = [key for key in bound if bound[key] is not self._bound.get(key)]
            if keys:
                leaks.bleed(
                    scope,
                    f"the structlog variables {', '.join(sorted(keys))} bound",
                    "with structlog.contextvars.bound_contextvars(...): or clear_contextvars() "
                    "when the request ends",
                    view(gate, scope),
                )


def found(gate: "Gate") -> Found | None:
    """Return what is in place now; None where nothing is looked for. Never raises."""
    if gate.settings.level == OFF or not judging.working:
        return None
    try:
        made = Found(gate)
        made.bled_in()
    except Exception as error:
        judging.failed(error)
        return None
    return made


def left(found: Found, scope: Scope, traced: Any) -> None:
    """Report what the request of ``scope`` leaves behind. Never raises."""
    if not judging.working:
        return
    try:
        found.left_by(scope, traced)
    except Exception as error:
        judging.failed(error)


def abandoned(gate: "Gate", scope: Scope) -> None:
    """Report a body that was dropped half-way. Never raises."""
    if gate.settings.level == OFF or not judging.working:
        return
    try:
        leaks.unclosed(
            scope,
            "the body",
            "whoever iterates it has to call its close() (PEP 3333): a middleware around the "
            "application, or the server",
            view(gate, scope),
        )
    except Exception as error:
        judging.failed(error)


def view(gate: "Gate", scope: Scope) -> str | None:
    """The function or page that handles the route of ``scope``: ``file:line function``."""
    if scope._route is None:
        return None
    page = next((found for found, route in gate.routes.items() if route == scope._route), None)
    if isinstance(page, str):
        return f"{relative(page)}:1 {scope._route}"
    function = gate.framework.view(gate.app, scope._route, scope._method)
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return None if code is None else where(code, code.co_firstlineno)


def _bound() -> Mapping[str, object]:
    if "structlog" not in sys.modules:
        return {}
    return {
        variable.name.removeprefix(_STRUCTLOG): value
        for variable, value in copy_context().items()
        if variable.name.startswith(_STRUCTLOG) and value is not Ellipsis
    }

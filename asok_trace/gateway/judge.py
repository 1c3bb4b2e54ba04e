"""What a request finds in place when it begins, and what it leaves when it ends."""

import inspect
import sys
from collections.abc import Mapping
from contextvars import ContextVar, copy_context
from typing import Any, Final, NamedTuple

from asok_trace.core import findings
from asok_trace.core.callsite import relative, short, where
from asok_trace.core.errors import Piece
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.core.settings import OFF, STRICT
from asok_trace.detect import leaks
from asok_trace.detect.leaks import Place
from asok_trace.frameworks import otel
from asok_trace.gateway.gate import Gate

judging: Final = Piece("looking at what a request leaves behind")

_STRUCTLOG: Final = "structlog_"
"""How structlog names the variables that it keeps bound values in."""
_CLEARING: Final = "clear_contextvars"

_REQUEST: Final = "request"
_LEAVES_REQUEST: Final = (
    "enter and leave a request's context in one with block; let no BaseException, such as "
    "SystemExit, out of a signal's receiver"
)


class _Left(NamedTuple):
    """Something that is in place when a request ends, and was not when it began."""

    what: str
    """By which it is known again."""
    said: str
    fix: str


class Found:
    """What was in place when a request began, to be compared with what is when it ends."""

    __slots__ = ("_bound", "_clears", "_gate", "_request", "_traced")

    def __init__(self, gate: Gate, traced: bool, strict: bool) -> None:
        self._gate = gate
        self._request = gate.current()
        self._traced = otel.current() if traced else None
        self._bound = _bound() if strict else None
        self._clears: list[bool] = []
        if strict:
            _clears.set(self._clears)
        # What makes a request of its own in a context that it was given is in it on purpose.
        if self._request is not None and ACTIVE.get() is None:
            self._bled_in()

    def _bled_in(self) -> None:
        """Report a request that is in place although it is over: somebody left it."""
        framework = self._gate.framework
        scope = framework.carried(self._request)
        # One that has no gateway, or that a test made by hand, is nobody's mistake; and one that
        # ends while others go on in its context is not over for them.
        if scope is None or not scope._ended or framework.preserved(self._request):
            return
        said = "its request current, and another one began in its context"
        left = _Left(_REQUEST, said, _LEAVES_REQUEST)
        _report(self._gate, scope, left)

    def report(self, scope: Scope, traced: Any, *, last: bool) -> bool:
        """As `left` does."""
        request = self._gate.current()
        if request is not None and request is not self._request:
            own = self._gate.framework.carried(request)
            if own is scope and not last:
                return False
            if own is None or own is scope or not own._running:
                said = ("its" if own is scope else "another") + " request current in its context"
                _report(self._gate, scope, _Left(_REQUEST, said, _LEAVES_REQUEST))
        if self._traced is not None:
            self.report_span(scope, traced)
        if self._bound is not None:
            self._report_bound(scope, self._bound)
        return True

    def report_span(self, scope: Scope, traced: Any) -> None:
        """Report the span that is still attached, if there is one."""
        if self._traced is None:
            return
        span = otel.left(self._traced if traced is None else traced)
        by = None if span is None else otel.attached()
        # Where somebody looks at each detach, it may have been reported already.
        if span is not None and (by is None or by.left_by(scope)):
            at = "" if by is None else f" at {by.callsite}"
            left = _Left(
                f"span {span}",
                f"the span {span!r} attached to its context{at}",
                "with tracer.start_as_current_span(...): or opentelemetry.context.detach(token) "
                "in a finally",
            )
            _report(self._gate, scope, left)

    def _report_bound(self, scope: Scope, before: Mapping[str, object]) -> None:
        # A program that clears them when each request begins may leave them.
        if self._clears:
            return
        bound = _bound()
        keys = sorted(key for key in bound if bound[key] is not before.get(key))
        if keys:
            names = ", ".join(keys)
            left = _Left(
                f"structlog {names}",
                f"the structlog variables {names} bound in its context",
                "with structlog.contextvars.bound_contextvars(...): or clear_contextvars() when "
                "each request begins",
            )
            _report(self._gate, scope, left)

    def keeps(self, scope: Scope) -> bool:
        """Whether the request of ``scope`` is still current: the framework is not done with it."""
        request = self._gate.current()
        return request is not None and self._gate.framework.carried(request) is scope


class _Name(str):
    """The name of a variable that notices when structlog clears its own, for which it asks them
    all for their names: in a context that has none of these, nothing else shows it."""

    __slots__ = ()

    def startswith(self, *prefix: Any) -> bool:
        if sys._getframe(1).f_code.co_name == _CLEARING:
            clears = _clears.get()
            if not clears:
                clears.append(True)
        return super().startswith(*prefix)


_clears: Final[ContextVar[list[bool]]] = ContextVar(_Name("asok_trace_clears"))
"""Is given something when structlog's variables are cleared in the request that it is of."""


def found(gate: Gate, *, traced: bool) -> Found | None:
    """Return what is in place now; None where nothing is looked for. Never raises an Exception.

    ``traced`` says whether anybody traces.
    """
    level = gate.settings.level
    if level == OFF or not judging.working:
        return None
    try:
        if findings._waiting:
            findings.settle()
        return Found(gate, traced, level == STRICT)
    except Exception as error:
        judging.failed(error)
        return None


def left(found: Found, scope: Scope, traced: Any, *, last: bool) -> bool:
    """Report what the request of ``scope`` leaves behind. Never raises an Exception.

    Args:
        last: False if the body is yet to be closed: then nothing is reported as long as the
            request is current, which is how Flask streams.

    Returns:
        Whether that is all: nothing has to be looked at again.
    """
    if not judging.working:
        return True
    try:
        return found.report(scope, traced, last=last)
    except Exception as error:
        judging.failed(error)
        return True


def attached(found: Found, scope: Scope, traced: Any) -> None:
    """Report a span that is still attached when the application returns, before the context that
    it is in is put away. Never raises an Exception."""
    if not judging.working:
        return
    try:
        if not found.keeps(scope):
            found.report_span(scope, traced)
    except Exception as error:
        judging.failed(error)


def abandoned(gate: Gate, scope: Scope) -> None:
    """Report a body that was dropped half-way. Never raises an Exception."""
    if gate.settings.level == OFF or not judging.working:
        return
    try:
        leaks.unclosed(
            scope,
            f"the body of the response to {leaks.told(scope)} was dropped half-way",
            "whoever iterates it has to call its close() (PEP 3333): a middleware around the "
            "application, or the server",
            view(gate, scope),
        )
    except Exception as error:
        judging.failed(error)


def _report(gate: Gate, scope: Scope, left: _Left) -> None:
    leaks.bleed(scope, left.said, left.fix, view(gate, scope), what=left.what)


def view(gate: Gate, scope: Scope) -> Place | None:
    """The function or page that handles the route of ``scope``; without a route, the application,
    if that is a function. None if neither can be told."""
    if scope._route is None:
        function = gate.app
    else:
        page = next((found for found, route in gate.routes.items() if route == scope._route), None)
        if isinstance(page, str):
            return Place(f"{relative(page)}:1 {scope._route}", scope._route)
        function = gate.framework.view(gate.app, scope._route, scope._method)
    function = inspect.unwrap(function) if callable(function) else None
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    module = getattr(function, "__module__", "?")
    return Place(where(code, code.co_firstlineno), f"{module}.{short(code.co_qualname)}")


def _bound() -> Mapping[str, object]:
    if "structlog" not in sys.modules:
        return {}
    return {
        variable.name.removeprefix(_STRUCTLOG): value
        for variable, value in copy_context().items()
        if variable.name.startswith(_STRUCTLOG) and value is not Ellipsis
    }

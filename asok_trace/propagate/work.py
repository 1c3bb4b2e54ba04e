"""One unit of work that goes on from a request: its scope and its span, in a context of its own."""

from collections.abc import Mapping
from contextvars import Context, ContextVar, copy_context
from time import perf_counter
from types import TracebackType
from typing import Any, Final

from asok_trace.core.errors import Piece, attempted, contained
from asok_trace.core.scope import ACTIVE, SERVED, Scope
from asok_trace.detect import explain, leaks
from asok_trace.frameworks import base
from asok_trace.stamp import tracing

opening: Final = Piece("opening the scope of a task or job")
closing: Final = Piece("closing the scope of a task or job", then="the next is tried again")
forgetting: Final = Piece("letting the request of a task go")


class Work:
    """Opens ``scope`` and its span when it is entered, and closes them when it is left.

    ``status`` and ``error`` may be set meanwhile, where the framework swallows what is raised.
    """

    __slots__ = (
        "_before",
        "_origin",
        "_span",
        "_started",
        "_traced",
        "error",
        "named",
        "scope",
        "status",
    )

    def __init__(self, scope: Scope, *, origin: Scope | None = None, **traced: Any) -> None:
        """Args:
        scope: open, and nobody else's.
        origin: the scope that it goes on from; its span is a child as long as that is open.
        traced: further arguments of `asok_trace.stamp.work_span.start`.
        """
        self.scope = scope
        self.status: str | None = None
        # Whether it is called like a function of the program, of which there are so many.
        self.named = True
        self.error: BaseException | None = None
        self._origin = origin
        self._traced: Mapping[str, Any] = traced
        self._before: Scope | None = None
        self._span: Any = None
        self._started: float | None = None

    def __enter__(self) -> Scope:
        self._before = ACTIVE.get()
        contained(opening, self._open)
        return self.scope

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        attempted(closing, self._close, exc)
        before = self._before
        # No token: a reset in another context would raise into the host's code.
        ACTIVE.set(before if before is not None and before._running else None)

    def _open(self) -> None:
        ACTIVE.set(self.scope)
        self._started = perf_counter()
        spans = tracing.work_spans()
        if spans is not None:
            contained(tracing.tracing_work, self._start, spans)

    def _close(self, exc: BaseException | None) -> None:
        scope = self.scope
        error = exc or self.error or scope._error
        explain.passing(error, base.complaints)
        meters = tracing.meters()
        if meters is not None and self._started is not None:
            seconds, self._started = perf_counter() - self._started, None
            attempted(tracing.measuring, meters.worked, scope, seconds, error, self.named)
        if self._span is not None:
            attempted(tracing.tracing_work, self._span.end, scope, error, self.status)
        scope.close(line=leaks.late(scope._line))
        self._span = self.error = None

    def _start(self, spans: Any) -> None:
        origin = self._origin
        follows = origin is not None and not origin._open
        self._span = spans.start(self.scope, follows=follows, **self._traced)


def without_request() -> Context:
    """Return a copy of this context in which no request is current and no scope is active."""
    found: Context | None = contained(forgetting, _without_request)
    return copy_context() if found is None else found


def _without_request() -> Context:
    # A variable cannot be taken out of a context, and None is not always what it is by default.
    left: set[ContextVar[Any]] = {ACTIVE, SERVED}
    for framework in base.loaded():
        left.update(framework.variables())
    kept = [(variable, value) for variable, value in copy_context().items() if variable not in left]
    made = Context()
    made.run(_set, kept)
    return made


def _set(values: list[tuple[ContextVar[Any], Any]]) -> None:
    for variable, value in values:
        variable.set(value)

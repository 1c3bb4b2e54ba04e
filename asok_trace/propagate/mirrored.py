"""A framework's own tracing, of which OpenTelemetry knows nothing: each of its spans is one of
OpenTelemetry's as well, in the request's trace, with its parent and as long as what it measures.

The framework's spans stay what they are for whoever reads them.
"""

import functools
import gc
import inspect
import sys
from collections.abc import Callable, Coroutine
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType
from typing import Any, Final

from asok_trace.core.errors import attempted, contained
from asok_trace.core.hooks import Hook
from asok_trace.frameworks import otel
from asok_trace.frameworks.base import Framework
from asok_trace.propagate.steps import awaited, stepped
from asok_trace.propagate.streams import asynchronous
from asok_trace.stamp.tracing import mirroring

# On a span of the framework's: ours. On a function that has been made to last: what it was.
_MIRROR: Final = "_asok_trace"
_PLAIN: Final = "_asok_trace_plain"

# The framework's own server span, beside ours.
_MIDDLEWARE: Final = "asok.middleware.tracing"


def started(hook: Hook, _framework: Framework) -> Callable[..., Any]:
    """Starts a span: a method of a tracer."""

    @functools.wraps(hook.original)
    def start_span(
        self: Any,
        name: str,
        parent: Any = None,
        trace_id: str | None = None,
        parent_span_id: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        span = hook.original(self, name, parent, trace_id, parent_span_id, *args, **kwargs)
        if hook.active and otel.configured():
            continued = bool(trace_id and parent_span_id)
            server = sys._getframe(1).f_globals.get("__name__") == _MIDDLEWARE
            contained(mirroring, _mirror, span, parent, continued, server)
        return span

    return start_span


def _mirror(span: Any, parent: Any, continued: bool, server: bool) -> None:
    from asok_trace.stamp import mirror_span

    found = getattr(parent, _MIRROR, None)
    made = mirror_span.start(span, found, continued=continued, server=server)
    setattr(span, _MIRROR, made)
    cls: Any = type(span)
    span.__class__ = _mirrored(cls)


@functools.lru_cache(maxsize=4)  # a class for each time that a reloader loads the framework
def _mirrored(cls: Any) -> Any:
    """The class of a span that tells ours what becomes of it."""

    class Mirrored(cls):  # type: ignore[misc]  # of whatever class it is
        def __enter__(self) -> Any:
            contained(mirroring, _of(self).enter)
            return super().__enter__()

        def __exit__(self, *exc_info: object) -> Any:
            try:
                return super().__exit__(*exc_info)
            finally:
                attempted(mirroring, _of(self).leave)

        def record_exception(self, exception: BaseException) -> Any:
            contained(mirroring, _of(self).failed, exception)
            return super().record_exception(exception)

        def finish(self, status: str | None = None) -> None:
            running = self.end_time is None
            super().finish(status)
            if running:
                attempted(mirroring, _of(self).end, self)

    Mirrored.__name__, Mirrored.__qualname__ = cls.__name__, cls.__qualname__
    Mirrored.__module__ = cls.__module__
    return Mirrored


def _of(span: Any) -> Any:
    return getattr(span, _MIRROR)


def traced(hook: Hook, _framework: Framework) -> Callable[..., Any]:
    """The decorator that makes each call of a function a span: of a coroutine or generator
    function too, which the framework takes to end as soon as it is called."""
    if hook.owner.__name__ == hook.original.__module__:  # not where it is only imported
        contained(mirroring, _catch_up, hook)

    def trace(name: Any = None) -> Any:
        if callable(name):
            return hook.original(_lasting(hook, name))
        decorator = hook.original(name)
        return lambda function: decorator(_lasting(hook, function))

    return functools.update_wrapper(trace, hook.original)


def _catch_up(hook: Hook) -> None:
    """Do the same to what was decorated before: all these functions are of one code."""
    code = hook.original(lambda: None).__code__
    for found in gc.get_referrers(code):
        if isinstance(found, FunctionType) and found.__code__ is code:
            _make_last(hook, found)


def _make_last(hook: Hook, decorated: Any) -> None:
    function = _plain(decorated.__wrapped__)
    for cell in decorated.__closure__:
        if _plain(cell.cell_contents) is function:
            cell.cell_contents = _lasting(hook, function)


def _lasting(hook: Hook, function: Any) -> Any:
    """``function`` so that the span around its call lasts until it has really ended."""
    function = _plain(function)
    if not any(kind(function) for kind in _OF_THEM):
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        last = _LASTING.get(type(made))
        if last is None or not hook.active or _is_old(made):
            return made
        mirror = contained(mirroring, _around, hook.original)
        if mirror is None:
            return made
        lasting = last(mirror, made)
        lasting.__name__, lasting.__qualname__ = made.__name__, made.__qualname__  # as tasks say
        return lasting

    setattr(call, _PLAIN, function)
    return call


def _is_old(made: Any) -> bool:
    """Whether it is a generator that can be awaited (`types.coroutine`)."""
    return type(made) is GeneratorType and inspect.isawaitable(made)


def _plain(function: Any) -> Any:
    return getattr(function, _PLAIN, function)


def _around(decorator: Any) -> Any:
    """Ours of the framework's current span, which from now on does not end with it."""
    tracer = decorator.__globals__["tracer"]
    mirror = getattr(tracer.get_current_span(), _MIRROR, None)
    if mirror is not None:
        mirror.lasts()
    return mirror


class _Waiting:
    """A coroutine that is begun later; or closed, as whoever has the one around it may do."""

    __slots__ = ("coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine

    def __del__(self) -> None:
        self.coroutine.close()


def _coroutine(mirror: Any, coroutine: Any) -> Any:
    return _awaited(mirror, _Waiting(coroutine))


async def _awaited(mirror: Any, waiting: _Waiting) -> Any:
    with mirror.lasting():
        return await awaited(mirror, waiting.coroutine)


def _generator(mirror: Any, generator: Any) -> Any:
    steps = _steps(mirror, generator)
    next(steps)  # or the span would not end with one that is closed before its first step
    return steps


def _steps(mirror: Any, generator: Any) -> Any:
    with mirror.lasting():
        steps = stepped(mirror, generator)
        yield
        return (yield from steps)


def _stream(mirror: Any, generator: Any) -> Any:
    return asynchronous(mirror, generator, mirror.lasting())


_OF_THEM: Final = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)
_LASTING: Final[dict[type, Callable[[Any, Any], Any]]] = {
    CoroutineType: _coroutine,
    GeneratorType: _generator,
    AsyncGeneratorType: _stream,
}

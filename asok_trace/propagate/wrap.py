"""`wrap` and `detach`: a function bound to a context."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

from asok_trace.core.callsite import Callsite, caller
from asok_trace.core.errors import contained
from asok_trace.core.fork import fork
from asok_trace.core.scope import Scope
from asok_trace.detect.origin import HANDED, Handed
from asok_trace.frameworks import lookup, otel
from asok_trace.propagate.steps import awaited, ran
from asok_trace.propagate.streams import within
from asok_trace.propagate.work import Work, opening, without_request

_Function = TypeVar("_Function", bound=Callable[..., Any])

# On what we return: whoever carries contexts to threads must not give it a second one.
_BOUND: Final = "__asok_trace_bound__"


def wrap(fn: _Function, *, outlive: bool = False) -> _Function:
    """Return ``fn`` bound to a copy of this context: what it does elsewhere, in a thread, pool,
    timer or callback, is done for this request.

    The context is captured now and copied for each run, so that one wrapped function may run in
    many threads at once. Wrap where the work is handed over, ``pool.submit(wrap(charge), 7)``;
    as a decorator it would capture the context of the import. Costs 5 microseconds, and 1 per
    run; with ``outlive`` 20, and 12 per run without a span.

    Args:
        fn: a function, coroutine function, generator function or any other callable.
        outlive: for work that goes on after the response. It runs in a scope of its own, with
            the same request id, ``task=<its name>`` on its lines, and a span of its own: a child
            as long as the request is open, later a root with a link to it. Nothing of the request
            itself is kept; a framework's ``current_request`` raises in there.

    Returns:
        A function with the signature of ``fn``.

    Raises:
        TypeError: ``fn`` is a coroutine, or cannot be called.
    """
    _refuse(fn, "wrap")
    if outlive and _is_generator_function(fn):
        raise TypeError(
            f"wrap({fn!r}, outlive=True) cannot be: a generator's body runs in pieces, whenever "
            f"somebody iterates it. Use wrap_stream() on what it returns, or wrap the function "
            f"that iterates it."
        )
    origin = lookup.here() if outlive else None
    if origin is None:
        return _bound(fn, copy_context().copy)
    captured, name = without_request(), name_of(fn)
    captured.run(HANDED.set, Handed(name, True, _site()))
    template: Scope | None = contained(opening, fork, origin, "task", name)

    def opened() -> tuple[Context, Work | None]:
        work: Work | None = None
        if template is not None:
            work = contained(opening, _work, template, name, origin)
        return captured.copy(), work

    return _outliving(fn, opened)


def _work(template: Scope, name: str, origin: Scope) -> Work:
    return Work(fork(template, "task", name, line=otel.line()), origin=origin)


def detach(fn: _Function) -> _Function:
    """Return ``fn`` bound to an empty context: for long-lived work, that must not carry the
    request which happens to start it. Each run gets an empty context of its own.

    Args:
        fn: a function, coroutine function, generator function or any other callable.

    Returns:
        A function with the signature of ``fn``.

    Raises:
        TypeError: ``fn`` is a coroutine, or cannot be called.
    """
    _refuse(fn, "detach")
    empty = Context()
    empty.run(HANDED.set, Handed(name_of(fn), False, _site()))
    return _bound(fn, empty.copy)


def _site() -> Callsite | None:
    frame = caller()
    return None if frame is None else Callsite(frame.f_code, frame.f_lasti)


def is_bound(fn: object) -> bool:
    """Whether ``fn`` came from `wrap` or `detach`, or is a partial of what did."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return hasattr(fn, _BOUND)


def name_of(fn: object) -> str:
    """What a callable is called on log lines: ``Mailer.send``, ``charge``."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _refuse(fn: object, verb: str) -> None:
    if inspect.isawaitable(fn):
        name = getattr(fn, "__qualname__", "fn")
        raise TypeError(
            f"{verb}({fn!r}) cannot be: a coroutine runs once, in the context of its task. Pass "
            f"the function: {verb}({name})(...), or give the coroutine to create_task(), which "
            f"copies the context itself."
        )
    if not callable(fn):
        raise TypeError(f"{verb}({fn!r}) cannot be: it is not callable. Pass a function.")


def _is_coroutine_function(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(_call(fn))


def _is_generator_function(fn: Any) -> bool:
    return any(
        inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        for function in (fn, _call(fn))
    )


def _call(fn: Any) -> Any:
    """The method that calling ``fn`` runs, which of an object may be asynchronous. Of its class:
    a class itself has one for its instances."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(type(fn), "__call__", None)  # noqa: B004  # the method, not whether


def _bound(fn: _Function, make: Callable[[], Context]) -> _Function:
    """Return ``fn`` so that each run of it gets the context that ``make`` returns."""
    run: Callable[..., Any]
    if _is_coroutine_function(fn):

        async def run(*args: Any, **kwargs: Any) -> Any:
            context = make()
            return await awaited(context, context.run(fn, *args, **kwargs))

    elif _is_generator_function(fn):

        def run(*args: Any, **kwargs: Any) -> Any:
            context = make()
            return within(context, context.run(fn, *args, **kwargs))

    else:

        def run(*args: Any, **kwargs: Any) -> Any:
            context = make()
            result = ran(context, fn, *args, **kwargs)
            # A partial of a coroutine function, or a lambda that calls one.
            return awaited(context, result) if inspect.iscoroutine(result) else result

    return _marked(run, fn)


def _outliving(fn: _Function, opened: Callable[[], tuple[Context, Work | None]]) -> _Function:
    """Return ``fn`` so that each run of it is a unit of work of its own."""
    run: Callable[..., Any]
    if _is_coroutine_function(fn):

        async def run(*args: Any, **kwargs: Any) -> Any:
            context, work = opened()
            return await context.run(_worked, context, work, fn, args, kwargs)

    else:

        def run(*args: Any, **kwargs: Any) -> Any:
            context, work = opened()
            return context.run(_worked, context, work, fn, args, kwargs)

    return _marked(run, fn)


def _worked(context: Context, work: Work | None, fn: Any, args: Any, kwargs: Any) -> Any:
    with ExitStack() as end:
        if work is not None:
            end.enter_context(work)
        result = fn(*args, **kwargs)
        if inspect.iscoroutine(result):
            return awaited(context, _finished(result, end.pop_all()))
        return result


async def _finished(coroutine: Coroutine[Any, Any, Any], end: ExitStack) -> Any:
    with end:
        return await coroutine


def _marked(run: Callable[..., Any], fn: _Function) -> _Function:
    made = functools.update_wrapper(run, fn)
    setattr(made, _BOUND, True)
    return made  # type: ignore[return-value]  # of the signature of fn

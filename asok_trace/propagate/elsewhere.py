"""What a framework itself runs elsewhere: mail, awaitables, tasks, scheduled functions."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from typing import Any, Final

from asok_trace.core import ids, names, settings
from asok_trace.core.errors import Piece, attempted, contained
from asok_trace.core.fork import fork
from asok_trace.core.hooks import Hook
from asok_trace.core.scope import ACTIVE, Scope, bindable
from asok_trace.frameworks import lookup, otel
from asok_trace.frameworks.base import Framework
from asok_trace.propagate.steps import awaited
from asok_trace.propagate.work import Work, without_request
from asok_trace.propagate.wrap import is_bound, name_of, wrap

carrying: Final = Piece("carrying the context into a thread of the framework")
scheduling: Final = Piece("opening the scope of a scheduled run")
closing_run: Final = Piece("closing the scope of a scheduled run", then="the next is tried again")

# On a scheduled task: its runs so far, and the one it is at. One thread runs each task.
_RUNS: Final = "_asok_trace_runs"
_RUN: Final = "_asok_trace_run"


class _Outliving:
    """A static method that is bound to the context in which somebody takes hold of it."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __get__(self, instance: object, owner: object) -> Any:
        original = self._hook.original
        bound = None
        if self._hook.active:
            bound = contained(carrying, lambda: wrap(original, outlive=True))
        return original if bound is None else bound


def outlive(hook: Hook, _framework: Framework) -> Any:
    """A function that the framework hands to a thread: `wrap(outlive=True)` as it does."""
    return _Outliving(hook)


def task(hook: Hook, _gate: object) -> Callable[..., Any]:
    """Takes a function that is to run in a task after the response: a unit of work of its own, in
    which the framework's request is what it would be without us."""

    def add(func: Any, *args: Any, **kwargs: Any) -> Any:
        context: Context | None = contained(carrying, _task_context, func) if hook.active else None
        if context is None:
            return hook.original(func, *args, **kwargs)
        run = func if is_bound(func) else _task_run(func, lookup.here())
        return context.run(hook.original, run, *args, **kwargs)

    return add


def _task_context(func: Any) -> Context:
    """A copy of this context for the task, with a scope of its own for what the framework itself
    says of it, such as what it has raised."""
    origin, name = lookup.here(), name_of(func)
    if origin is not None:
        scope = fork(origin, "task", name, line=otel.line())
    else:
        events = settings.default().log_events
        scope = Scope(ids.make(), "task", name=name, line=otel.line(), events=events)
    context = copy_context()
    context.run(ACTIVE.set, scope)
    return context


def _task_run(func: Any, origin: Scope | None) -> Callable[..., Any]:
    """``func`` as a unit of work. The framework calls what is no coroutine function in a thread."""

    def worked() -> AbstractContextManager[Any]:
        return contained(carrying, _task_work, name_of(func), origin) or nullcontext()

    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with worked():
                return await func(*args, **kwargs)

        return run_async

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        with worked():
            return func(*args, **kwargs)

    return run


def _task_work(name: str, origin: Scope | None) -> Work | None:
    around = ACTIVE.get()
    if around is None:
        return None
    return Work(fork(around, "task", name, line=otel.line()), origin=origin)


def awaitable(hook: Hook, _framework: Framework) -> Callable[..., Any]:
    """Runs an awaitable in another thread and waits for it."""

    def run(given: Any, *args: Any, **kwargs: Any) -> Any:
        # Futures know their own loop, and have run already as far as we are concerned.
        if hook.active and inspect.iscoroutine(given):
            given = contained(carrying, _in_this_context, given) or given
        return hook.original(given, *args, **kwargs)

    return run


def _in_this_context(coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return awaited(copy_context(), coroutine)


def cron(hook: Hook, _framework: Framework) -> Callable[..., Any]:
    """Runs a scheduled function: in a scope of its own, without a request."""

    def execute(task: Any) -> Any:
        if not hook.active:
            return hook.original(task)
        context: Context | None = contained(scheduling, without_request)
        return hook.original(task) if context is None else context.run(run, task)

    def run(task: Any) -> Any:
        work: Work | None = contained(scheduling, _scheduled, task)
        try:
            return hook.original(task)
        except BaseException as error:  # what the framework does not swallow, such as SystemExit
            if work is not None:
                work.error = error
            raise
        finally:
            if work is not None:
                attempted(closing_run, _ended, task, work)

    return execute


def _scheduled(task: Any) -> Work:
    scope = Scope(
        ids.make(),
        "cron",
        name=name_of(task._fn),
        line=otel.line(),
        events=settings.default().log_events,
        bound=bindable({names.RUN: getattr(task, _RUNS, 0) + 1}),
    )
    work = Work(scope, made=True)
    setattr(task, _RUN, work)
    return work


def turn(hook: Hook, _framework: Framework) -> Callable[..., Any]:
    """Says whether a scheduled function runs now, or another process's does: only then is there
    a run, with a number and a span."""

    def acquire(task: Any) -> Any:
        acquired = hook.original(task)
        if hook.active and acquired:
            contained(scheduling, _begun, task)
        return acquired

    return acquire


def _begun(task: Any) -> None:
    work = getattr(task, _RUN, None)
    if work is not None:
        setattr(task, _RUNS, getattr(task, _RUNS, 0) + 1)
        work.__enter__()


def _ended(task: Any, work: Work) -> None:
    setattr(task, _RUN, None)
    work.__exit__(None, None, None)

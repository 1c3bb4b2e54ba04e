"""Run what stops and goes on, a coroutine or a generator, in a context of its own.

The context is entered for each step and left at each ``yield`` and ``await``: one that is held
across them would be the context of whoever runs meanwhile.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any

from asok_trace.detect import explain
from asok_trace.frameworks import base


def ran(context: Context | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` in ``context``; what it raises is explained, as it passes."""
    try:
        return context.run(function, *args, **kwargs)  # type: ignore[union-attr]  # None only once run
    except Exception as error:
        explain.passing(error, base.complaints, context)
        context = None  # an exception holds this frame
        raise


def stepped(
    context: Context, inner: Generator[Any, Any, Any] | Coroutine[Any, Any, Any]
) -> Generator[Any, Any, Any]:
    """Return a generator that yields what ``inner`` yields and returns what it returns (as
    ``yield from`` does, PEP 380), with each of its steps in ``context``."""
    steps = _steps(context, inner)
    next(steps)  # or closing it before its first step would not close ``inner``
    return steps


def _steps(
    context: Context, inner: Generator[Any, Any, Any] | Coroutine[Any, Any, Any]
) -> Generator[Any, Any, Any]:
    step: Callable[..., Any]
    given: Any
    yielded: Any = None
    try:
        while True:
            try:
                given, step = (yield yielded), inner.send
            except GeneratorExit:
                context.run(inner.close)
                raise
            except BaseException as error:
                given, step = error, inner.throw
            yielded = context.run(step, given)
    except StopIteration as stop:
        return stop.value
    except Exception as error:
        explain.passing(error, base.complaints, context)
        raise
    finally:
        given = None  # an exception holds this frame


@coroutine
def _awaiting(context: Context, inner: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    return (yield from stepped(context, inner))


async def awaited(context: Context, awaitable: Awaitable[Any]) -> Any:
    """Await ``awaitable`` with each of its steps in ``context``; the task stays the same."""
    if not isinstance(awaitable, Coroutine):
        awaitable = _awaits(awaitable)
    return await _awaiting(context, awaitable)


async def _awaits(awaitable: Awaitable[Any]) -> Any:
    return await awaitable

"""`wrap_stream()`: a stream whose every step runs in the context it was made in."""

import inspect
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import nullcontext
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar, overload

from asok_trace.propagate.steps import awaited, stepped

_Item = TypeVar("_Item")

_NOTHING: Final = nullcontext()


@overload
def wrap_stream(iterable: Iterable[_Item]) -> Iterator[_Item]: ...
@overload
def wrap_stream(iterable: AsyncIterable[_Item]) -> AsyncIterator[_Item]: ...
def wrap_stream(iterable: Any) -> Any:
    """Return an iterator over ``iterable`` whose every step runs in a copy of this context.

    For bodies that a server iterates after the view has returned. The context is entered for
    each step and never held in between; closing early closes ``iterable`` in it, once.

    Args:
        iterable: a generator, an async generator, or anything else that can be iterated; it is
            iterated once.

    Returns:
        A generator for a generator, an async generator for what is asynchronous, else an
        iterator with ``close()``. Costs 0.1 microseconds per step of a generator.

    Raises:
        TypeError: ``iterable`` cannot be iterated, or is a function that makes generators.
    """
    return within(copy_context(), iterable)


def within(context: Context, iterable: Any) -> Any:
    """Return an iterator over ``iterable`` whose every step runs in ``context``."""
    if inspect.isgenerator(iterable):
        return stepped(context, iterable)
    if hasattr(iterable, "__aiter__"):
        return asynchronous(context, iterable)
    if hasattr(iterable, "__iter__"):
        return _Steps(context, iterable)
    hint = (
        f"Call it: wrap_stream({iterable.__name__}())."
        if callable(iterable) and hasattr(iterable, "__name__")
        else "Pass a generator, or anything else that has __iter__ or __aiter__."
    )
    raise TypeError(f"wrap_stream({iterable!r}) has nothing to iterate. {hint}")


class _Steps(Iterator[Any]):
    """An iterator that is no generator: a list, or a server's wrapper with a ``close()``."""

    __slots__ = ("_context", "_entered", "_iterable", "_iterator")

    def __init__(self, context: Context, iterable: Iterable[Any]) -> None:
        self._context = context
        self._iterable: Any = iterable
        self._iterator: Iterator[Any] | None = None
        # The thread that is in a step.
        self._entered: int | None = None

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._step(iter, self._iterable)
        return self._step(next, self._iterator)

    def close(self) -> None:
        iterable, self._iterable = self._iterable, ()
        iterator, self._iterator = self._iterator, iter(())
        # What has none of its own may have made a generator.
        close = getattr(iterable, "close", None) or getattr(iterator, "close", None)
        if close is not None:
            self._step(close)

    def _step(self, function: Callable[..., Any], *args: Any) -> Any:
        here = threading.get_ident()
        if self._entered == here:  # closed from within its own step
            return function(*args)
        if self._entered is not None:  # closed while another thread is in one
            return self._context.copy().run(function, *args)
        self._entered = here
        try:
            return self._context.run(function, *args)
        finally:
            self._entered = None


async def asynchronous(context: Context, iterable: Any, around: Any = _NOTHING) -> Any:
    """Iterate over ``iterable`` in ``context``, with ``around`` entered from the first step to the
    last."""
    with around:
        iterator = context.run(iterable.__aiter__)
        # Of a generator; what has only __anext__ is asked for nothing else.
        send = getattr(iterator, "asend", None)
        try:
            step = context.run(_first, iterator)
            while True:
                item = await awaited(context, step)
                try:
                    sent = yield item
                except BaseException as error:
                    throw = getattr(iterator, "athrow", None)
                    if throw is None or isinstance(error, GeneratorExit):
                        raise
                    step = context.run(throw, error)
                else:
                    if sent is None or send is None:
                        step = context.run(iterator.__anext__)
                    else:
                        step = context.run(send, sent)
        except StopAsyncIteration:
            return
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await awaited(context, context.run(close))


def _first(iterator: Any) -> Any:
    """The first step. When the event loop ends, and when the collector finds a generator, the loop
    closes what it was told of then: that is ours, and not this one, beside ours and outside its
    context."""
    if not inspect.isasyncgen(iterator):
        return iterator.__anext__()
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, _closed_by_ours)
    try:
        return iterator.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _closed_by_ours(_iterator: Any) -> None:
    """In place of the loop's finalizer: whoever drops the generator drops ours around it."""

"""`ContextExecutor`: a pool whose jobs run in the context that submitted them."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import ParamSpec, TypeVar

from asok_trace.propagate.steps import ran
from asok_trace.propagate.wrap import is_bound

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class ContextExecutor(ThreadPoolExecutor):
    """A `concurrent.futures.ThreadPoolExecutor` that runs each job in a copy of the context of
    whoever submits it: ``submit``, ``map``, and ``loop.run_in_executor(pool, ...)``.

    Its threads keep none of these contexts. A function from `wrap` or `detach` runs in the
    context that it is bound to. Costs 2 microseconds per job.
    """

    def submit(
        self,
        fn: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> "Future[_Result]":
        """Schedule ``fn(*args, **kwargs)`` and return its future."""
        job = fn if is_bound(fn) else _carrying(fn)
        # A thread that is started for it must not get this context, as some Pythons would do.
        return Context().run(super().submit, job, *args, **kwargs)


def _carrying(fn: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    from functools import partial

    return partial(ran, copy_context(), fn)

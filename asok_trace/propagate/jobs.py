"""A framework's own background jobs: in this process, and by a queue in another one."""

import sys
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

from asok_trace.core import names, text
from asok_trace.core.errors import Piece, attempted, contained
from asok_trace.core.fork import fork
from asok_trace.core.hooks import Hook
from asok_trace.core.scope import ACTIVE, bindable
from asok_trace.frameworks import lookup, otel
from asok_trace.frameworks.base import Framework, Job
from asok_trace.propagate.carrier import received, to_carrier
from asok_trace.propagate.work import Work

queueing: Final = Piece("putting the request on a job for a queue")
opening_job: Final = Piece("opening the scope of a background job")
closing_job: Final = Piece("closing the scope of a background job", then="the next is tried again")


class _Running:
    """A job of this process, through all its attempts."""

    __slots__ = ("attempts", "job", "origin", "scope")

    def __init__(self, framework: Framework, facts: Any) -> None:
        self.job: Job = framework.job(facts)
        self.attempts = 0
        # None if nobody's request queued it.
        self.origin = lookup.here()
        if self.origin is None:
            bound = bindable({names.QUEUE: self.job.queue})
            self.scope = received(None, self.job.name, bound).scope
        else:
            self.scope = fork(
                self.origin, "job", self.job.name, line=otel.line(), queue=self.job.queue
            )


_running: Final[ContextVar[_Running | None]] = ContextVar("asok_trace_job", default=None)

# The work that a worker process is at, in the context of one raw job.
_consumed: Final[ContextVar[Work | None]] = ContextVar("asok_trace_consumed", default=None)


def job(hook: Hook, framework: Framework) -> Callable[..., Any]:
    """Runs a job, retries included, with the context that it was queued in: in a copy of that,
    what the framework logs about the job is stamped."""

    def run(fn: Any, facts: Any, context: Context, *rest: Any) -> Any:
        if not hook.active:
            return hook.original(fn, facts, context, *rest)
        return context.copy().run(begin, fn, facts, context, *rest)

    def begin(fn: Any, facts: Any, context: Context, *rest: Any) -> Any:
        running: _Running | None = contained(opening_job, _Running, framework, facts)
        if running is None:
            return hook.original(fn, facts, context, *rest)
        _running.set(running)
        ACTIVE.set(running.scope)
        try:
            return hook.original(fn, facts, context, *rest)
        finally:
            attempted(closing_job, running.scope.close)

    return run


def attempt(hook: Hook, _framework: Framework) -> Callable[..., Any]:
    """Runs one attempt of a job in the context that it was queued in: a unit of work each."""

    def run(fn: Any, context: Context, *rest: Any) -> Any:
        running = _running.get()
        work: Work | None = None
        if hook.active and running is not None:
            work = contained(opening_job, _attempt, running)
        if work is None:
            return hook.original(fn, context, *rest)

        def worked(*args: Any, **kwargs: Any) -> Any:
            with work:
                return fn(*args, **kwargs)

        return hook.original(worked, context, *rest)

    return run


def _attempt(running: _Running) -> Work:
    running.attempts += 1
    return Work(
        fork(running.scope, "job", running.job.name, line=otel.line(), attempt=running.attempts),
        origin=running.origin,
        attributes={names.ATTRIBUTE_JOB_ID: running.job.id},
    )


def queued(hook: Hook, framework: Framework) -> Callable[..., Any]:
    """Builds the dict of a job: the carrier rides in it, if it goes to another process."""

    def build(*args: Any, **kwargs: Any) -> Any:
        made = hook.original(*args, **kwargs)
        if hook.active:
            contained(queueing, _put, framework, made)
        return made

    return build


def _put(framework: Framework, made: dict[str, Any]) -> None:
    if framework.queues_elsewhere():
        carrier = to_carrier()
        if carrier:
            made[names.JOB_CARRIER] = carrier


def consume(hook: Hook, _framework: Framework) -> Callable[..., Any]:
    """Handles one raw job in a worker process, in a context of its own."""

    def run(*args: Any) -> Any:
        return copy_context().run(handle, *args) if hook.active else hook.original(*args)

    def handle(*args: Any) -> Any:
        try:
            result = hook.original(*args)
        except BaseException as error:
            # Not of the job's function, or none that the framework catches: it tells nobody.
            attempted(closing_job, _end, error)
            raise
        attempted(closing_job, _end, None)
        return result

    return run


def _end(error: BaseException | None) -> None:
    work = _consumed.get()
    if work is not None:
        if error is not None:
            work.error, work.status = error, "failed"
        work.__exit__(None, None, None)


def verified(hook: Hook, framework: Framework) -> Callable[..., Any]:
    """Returns the job if its signature holds: only then is its carrier believed."""

    def verify(*args: Any) -> Any:
        job = hook.original(*args)
        # The framework passes over an empty one.
        if hook.active and job and isinstance(job, dict):
            contained(opening_job, _consume, framework, job)
        return job

    return verify


def _consume(framework: Framework, verified_job: dict[str, Any]) -> None:
    job = framework.job(verified_job)
    work = received(
        job.carrier,
        job.name,
        bindable({names.QUEUE: job.queue, names.ATTEMPT: job.attempt}),
        attributes={names.ATTRIBUTE_JOB_ID: text.clean(job.id, text.VALUE_LIMIT)},
    )
    work.status = "completed"
    _consumed.set(work)
    work.__enter__()


def job_failed(hook: Hook, framework: Framework) -> Callable[..., Any]:
    """Called where a job has failed: the exception is being handled."""

    def failed(client: Any, job: Any, *rest: Any) -> Any:
        if hook.active:
            contained(closing_job, _fail, framework, job)
        return hook.original(client, job, *rest)

    return failed


def _fail(framework: Framework, failed_job: dict[str, Any]) -> None:
    work = _consumed.get()
    if work is not None:
        work.error = sys.exception()
        work.status = "failed" if framework.job(failed_job).last else "retrying"

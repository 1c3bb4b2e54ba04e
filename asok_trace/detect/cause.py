"""Why there is no request where one was read, as text: for a note, and for a finding."""

import inspect
import time
from types import CodeType
from typing import Final, NamedTuple

from asok_trace.core.callsite import short
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect import remedy
from asok_trace.detect.leaks import told
from asok_trace.detect.origin import HANDED, SPAWNED, Handed, Origin

_STEPS: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

_NOBODY: Final = "it"
_SCRIPT: Final = "<module>"


class Cause(NamedTuple):
    """Text, all of it."""

    why: str
    """A sentence, without its full stop."""
    how: str
    """The same as the end of a finding's message."""
    fix: str
    origin: str | None = None
    request_id: str | None = None
    path: str | None = None

    @property
    def note(self) -> str:
        """What the exception says."""
        return f"{self.why}. {self.fix[0].upper()}{self.fix[1:]}."


def cause_of(kind: str, code: CodeType | None, elsewhere: bool) -> Cause | None:
    """Return why there is no request in this context; None if there is nothing to say about it.

    Args:
        kind: what was read: a ``request`` or a ``websocket``.
        code: the function that was given to a thread, a loop or whatever else to run.
        elsewhere: whether it ran in another thread than this one.
    """
    work = _NOBODY if code is None else short(code.co_qualname)
    scope, handed, came_from = ACTIVE.get(), HANDED.get(), SPAWNED.get()
    if scope is not None and scope._open and scope._name is None:
        if not elsewhere and (kind == "websocket") == (scope._kind == "http"):
            return None  # it reads the one kind in a handler of the other
        return _served(scope, work, code, elsewhere)
    if handed is not None:
        return _handed(handed, scope)
    # A scheduled function may have been scheduled in a request, and yet does not belong to it.
    if came_from is not None and not (scope is not None and scope._open and scope._kind == "cron"):
        return _spawned(came_from, work)
    if scope is None and work in (_NOBODY, _SCRIPT):
        return Cause("No request is served here", "", "pass what it needs of one as arguments")
    if scope is None:
        fix = remedy.hand_over_where("where a request starts it", work)
        why = f"No request is current in {_called(work)}, and none is known to have started it"
        return Cause(why, "", fix)
    name = told(scope)
    if scope._open:
        return Cause(
            f"{name} is a unit of work of its own ({scope._kind}), in which no request is current",
            f", in the {scope._kind} {name}",
            "pass what it needs of a request as arguments",
            None,
            scope._request_id,
            name,
        )
    # Of one that was left in a strange context the time is not known.
    ms = f"{round((time.perf_counter() - scope._ended) * 1000)} ms " if scope._ended else ""
    return Cause(
        f"{_called(work)} asked {ms}after request {scope._request_id} {name} had ended",
        f", {ms}after {name} had ended",
        f"await it in the request; or hand over asok_trace.wrap({remedy.written(work)}, "
        f"outlive=True), and what it needs of the request as arguments",
        None,
        scope._request_id,
        name,
    )


def _handed(handed: Handed, scope: Scope | None) -> Cause:
    at = "" if handed.site is None else f" at {handed.site}"
    origin = None if handed.site is None else f"handed over at {handed.site}"
    if handed.outlive:
        return Cause(
            f"{handed.name}() was given to asok_trace.wrap(..., outlive=True){at}: it may run "
            f"after its request has ended, so it has no current request",
            ", by work that may outlive it",
            "pass what it needs of the request as arguments; or leave outlive out if the request "
            "waits for it",
            origin,
            None if scope is None else scope._request_id,
            None if scope is None else f"{scope._method} {scope._path}",
        )
    return Cause(
        f"{handed.name}() was given to asok_trace.detach(){at}: it runs in an empty context, so "
        f"it has no current request",
        ", by work that was detached from it",
        f"pass what it needs of the request as arguments; or asok_trace.wrap({handed.name}) if it "
        f"works for the request",
        origin,
    )


def _spawned(came_from: Origin, work: str) -> Cause:
    by = "a request" if came_from.name is None else came_from.name
    request = f"during request {came_from.request_id} {came_from.what}"
    return Cause(
        f"{_called(work)} was started at {came_from.callsite} {request}, without its context",
        f", by what {by} started without its context",
        remedy.hand_over(came_from.handed or work),
        f"started at {came_from.callsite}",
        came_from.request_id,
        came_from.what,
    )


def _served(scope: Scope, work: str, code: CodeType | None, elsewhere: bool) -> Cause:
    """While a request is served: not where it is."""
    name = told(scope)
    request = f"request {scope._request_id} {name}"
    if code is not None and code.co_flags & _STEPS:
        why = f"{_called(work)} is a body of {request}, and runs when its view has returned"
        how = ", by a body that runs when its view has returned"
        fix = (
            f"return asok_trace.wrap_stream({work}(...)) from the view, or use the framework's "
            f"stream_with_context()"
        )
    elif elsewhere:
        why = f"{_called(work)} ran in another thread, where no request was current; {request} got"
        why += " its error from there"
        how = f", in another thread, from which {name} got the error"
        fix = remedy.hand_over_where("where it is started", work)
    else:
        why = (
            f"{request} was served, but it was not current in {_called(work)}: in another "
            f"context, or before or after the framework had it in place"
        )
        how = f", while {name} was served"
        fix = f"hand over asok_trace.wrap({remedy.written(work)}) where it is started"
    return Cause(why, how, fix, None, scope._request_id, name)


def _called(work: str) -> str:
    return work if work == _NOBODY else f"{work}()"

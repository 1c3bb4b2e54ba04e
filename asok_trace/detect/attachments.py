"""Who attached an OpenTelemetry context, and what there is to say of how it was detached."""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from itertools import count
from types import FrameType
from typing import Final

from asok_trace.core import findings, settings
from asok_trace.core.callsite import (
    Callsite,
    in_program,
    is_library,
    module,
    short,
    speaker,
    where,
)
from asok_trace.core.errors import Piece
from asok_trace.core.finding import FOREIGN, UNCLOSED
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect.leaks import told
from asok_trace.detect.orphans import task

watching: Final = Piece("looking at how OpenTelemetry contexts are attached and detached")

KEPT: Final = 100
"""Dropped tokens that wait for the end of their request."""

_serials: Final = count(1)

_GENERATOR: Final = CO_GENERATOR | CO_ASYNC_GENERATOR
_SUSPENDED: Final = _GENERATOR | CO_COROUTINE


class Attached:
    """One attachment: by whom, and where. Text and code, and the scope, which holds no request
    once it is closed."""

    __slots__ = (
        "callsite",
        "context_id",
        "module",
        "outlived",
        "own",
        "scope",
        "serial",
        "task",
        "thread",
        "told",
    )

    def __init__(self, context: object, frame: FrameType) -> None:
        by = frame.f_back or frame
        opener = speaker(by)
        self.callsite = Callsite(opener.f_code, opener.f_lasti)
        self.module: str = module(opener)
        self.own = _is_own(module(by))
        self.thread = threading.current_thread().name
        self.task = task()
        self.scope: Scope | None = ACTIVE.get()
        self.serial = next(_serials)
        self.context_id = id(context)
        # What it was attached over, and where that was detached, if that came first.
        self.outlived: tuple[Callsite, Callsite] | None = None
        # As what it was reported: one mistake, one finding. The id of the request that left it
        # behind, or the slug; None if it was not.
        self.told: str | None = None

    @property
    def where(self) -> str:
        """The thread, and the task in it."""
        return self.thread if self.task is None else f"{self.thread}, {self.task}"

    def left_by(self, scope: Scope) -> bool:
        """The request of ``scope`` leaves this behind: return whether that is to be reported,
        instead of what becomes of it."""
        if self.told is None:
            self.told = scope._request_id
            _left.append((self.told, self.callsite))
        return self.told == scope._request_id

    def over(self) -> None:
        """It was detached: if it becomes current again, what did that is reported, not this."""
        self.told = self.told or FOREIGN

    def is_reported(self) -> bool:
        """Whether this one was, or another one of its place and request, as left behind."""
        return self.told is not None or (
            self.scope is not None and (self.scope._request_id, self.callsite) in _left
        )


def _is_own(caller: str) -> bool:
    """Whether the ``caller`` of attach() is OpenTelemetry's or ours: some of theirs rely on whoever
    is around them to detach."""
    root = caller.partition(".")[0]
    return root in ("opentelemetry", "asok_trace") and caller != "opentelemetry.trace"


# What requests have left behind: their ids, and where it was attached.
_left: "deque[tuple[str, Callsite]]" = deque(maxlen=KEPT)

# Attachments whose token is gone, and that nobody can detach any more.
dropped: "deque[Attached]" = deque(maxlen=KEPT)


How = Callable[["Attached", str, str | None], str]
"""Says what was wrong, to be told of this one in that thread and task."""


def elsewhere(attached: Attached, thread: str, running: str | None) -> str:
    """In another `contextvars.Context`, and why it was another."""
    if attached.thread != thread:
        place = "thread"
    elif attached.task != running:
        place = "task"
    else:
        place = "contextvars.Context"
    return f"was detached in another {place}"


def twice(_attached: Attached, _thread: str, _running: str | None) -> str:
    """Once more, after it was detached as it should be."""
    return "was detached twice"


def too_late(attached: Attached, _thread: str, _running: str | None) -> str:
    """Out of order: what it was attached over becomes current, although that is over."""
    text = "was detached after what it was attached over"
    if attached.outlived is None:
        return text
    opener, closer = attached.outlived
    return f"{text}: that was attached at {opener}, detached at {closer}"


class _Here(threading.local):
    """The with block that this thread reported last: its frame, the code and the instruction."""

    last: tuple[int, int, int] | None = None


_here: Final = _Here()


def report(attached: Attached, frame: FrameType, how: How) -> bool:
    """Note a detach that went wrong, in the call ``frame``; False if nobody is to be told. Never
    raises an Exception."""
    if not settings.watching or not watching.working or sys.is_finalizing():
        return False
    try:
        _note(attached, frame, how)
    except Exception as error:
        watching.failed(error)
        return False
    return True


def _note(attached: Attached, frame: FrameType, how: How) -> None:
    again = how is not twice and attached.is_reported()
    attached.told = attached.told or FOREIGN
    if again:
        return
    closer = speaker(frame)
    closer = in_program(closer) or closer
    code, instruction = closer.f_code, closer.f_lasti
    if code is attached.callsite.code and code.co_flags & _SUSPENDED:
        last, here = _here.last, (id(closer), id(code), instruction)
        if last is not None and last[:2] == here[:2] and last != here:
            return  # it is being closed, and each of its with blocks ends: one mistake
        _here.last = here
    scope = attached.scope
    site = findings.sites.get((FOREIGN, id(code), instruction))
    if site is not None:
        site.hit(scope)
        return
    thread, running = threading.current_thread().name, task()
    findings.add(
        FOREIGN,
        (code, instruction),
        message=f"an OpenTelemetry context attached in {attached.where} "
        f"{how(attached, thread, running)}",
        callsite=where(code, closer.f_lineno or code.co_firstlineno),
        fix=_fix(closer),
        key=f"{FOREIGN}:{module(closer)}.{short(code.co_qualname)}",
        origin=f"attached at {attached.callsite}",
        task=running,
        request_id=None if scope is None else scope._request_id,
        path=None if scope is None else told(scope),
        scope=scope,
        # A collection can end a generator anywhere.
        deferred=_is_logging(frame),
    )


def _fix(closer: FrameType) -> str:
    if closer.f_code.co_flags & _GENERATOR:
        return (
            "no span around a yield: start it around the loop that iterates; or close the "
            "generator there, with contextlib.closing() or aclosing()"
        )
    return (
        "with tracer.start_as_current_span(...): around the work; or attach() and, in a finally of "
        "the same function, one detach()"
    )


def tell_dropped(frame: FrameType) -> None:
    """Report what was dropped, unless a request is running here; never raises an Exception."""
    scope = ACTIVE.get()
    if (scope is not None and scope._running) or sys.is_finalizing():
        return
    try:
        if not _is_logging(frame):
            look()
    except Exception as error:
        watching.failed(error)


def look() -> None:
    """Report the attachments whose token was dropped; those of a request only when that is over,
    since its gateway may report them itself."""
    for _ in range(len(dropped)):
        try:
            attached = dropped.popleft()
        except IndexError:  # another thread was faster
            return
        if attached.scope is not None and attached.scope._running:
            dropped.append(attached)
        elif settings.watching and watching.working and not attached.is_reported():
            Context().run(_unclosed, attached)  # not of whoever happens to look


def _unclosed(attached: Attached) -> None:
    code, instruction = attached.callsite
    site = findings.sites.get((UNCLOSED, id(code), instruction))
    if site is not None:
        site.hit()
        return
    scope = attached.scope
    findings.add(
        UNCLOSED,
        attached.callsite,
        message=f"an OpenTelemetry context attached in {attached.where} was never detached: its "
        f"token was thrown away",
        callsite=str(attached.callsite),
        fix="with tracer.start_as_current_span(...): instead of attach(); or keep what attach() "
        "returns, and detach() it in a finally",
        key=f"{UNCLOSED}:{attached.module}.{short(code.co_qualname)}",
        thread=attached.thread,
        task=attached.task,
        request_id=None if scope is None else scope._request_id,
        path=None if scope is None else told(scope),
        # Nobody could write anything else instead.
        quietly=is_library(code.co_filename),
    )


def _is_logging(frame: FrameType | None) -> bool:
    """Whether somebody is logging in this thread, who may hold a lock for it."""
    while frame is not None:
        if module(frame).partition(".")[0] == logging.__name__:
            return True
        frame = frame.f_back
    return False


findings._lookers.append(look)

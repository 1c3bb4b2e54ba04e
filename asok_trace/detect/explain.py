"""Errors that explain themselves: why there was no request where one was read, and where a variable
was reset in a context that it was not set in. As a note (PEP 678) on the exception, and a finding.

Nothing of an exception is kept. What was done for it is marked on it, since it may pass us many
times on its way: a job, a future, a gateway.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from types import CodeType, FrameType, TracebackType
from typing import Final

from asok_trace.core import findings, settings, text
from asok_trace.core.callsite import in_program, module, short, where
from asok_trace.core.errors import Piece, contained
from asok_trace.core.finding import FOREIGN, LOST
from asok_trace.core.scope import ACTIVE
from asok_trace.detect import orphans
from asok_trace.detect.cause import Cause, cause_of
from asok_trace.detect.leaks import told
from asok_trace.detect.origin import SPAWNED

explaining: Final = Piece("explaining an error about a request's context")

Complaints = Callable[[], tuple[str, ...]]
"""Returns how the texts of the frameworks' RuntimeErrors begin where there is no request."""

# On the exception, in its __dict__, which is pickled with it.
_MARK: Final = "_asok_trace"
_NOTED: Final = "noted"
_FOUND: Final = "found"

_EXPLAINED: Final = (RuntimeError, ValueError, BaseExceptionGroup)

# Errors in one chain or group that are looked at.
_CHAIN: Final = 32

# What calls a function that somebody else has handed over: below it is another stack. Of a live
# one, the last calls what was handed to the event loop.
_HANDOVERS: Final = ("concurrent.futures.thread", "multiprocessing.pool", "threading")
_RUNNERS: Final = (*_HANDOVERS, "asyncio.events")

_RESET: Final = re.compile(
    r"<Token (?:used )?var=<ContextVar name='(.*?)'.* was created in a different Context", re.DOTALL
)
_TOGETHER: Final = (
    "set and reset it in one task and thread; a generator that is broken off: "
    "contextlib.closing() or aclosing() around it; one that is iterated elsewhere: "
    "asok_trace.wrap_stream()"
)
_ENTERED: Final = "cannot enter context: "
_ENTERED_NOTE: Final = (
    "A context is entered by one at a time. Give each run a copy: copy_context() for each job "
    "instead of one for all, or asok_trace.wrap(), which does it."
)


class _Here(threading.local):
    busy = False


_here: Final = _Here()


def passing(
    error: BaseException | None, complaints: Complaints, context: Context | None = None
) -> None:
    """Explain ``error``, and what it was raised from, as it passes. Never raises an Exception.

    Args:
        complaints: asked if it may be one.
        context: where it was raised, if that is not this one.
    """
    if error is None or not explaining.working or _here.busy:
        return
    if not isinstance(error, _EXPLAINED) and error.__context__ is None and error.__cause__ is None:
        return  # as of most errors, and of each 404
    if context is None:
        contained(explaining, _passing, error, complaints)
    else:  # a copy: somebody may be in it
        contained(explaining, context.copy().run, _passing, error, complaints)


def raised(error: BaseException, complaints: Complaints, frame: FrameType) -> None:
    """Explain ``error``, that the access in ``frame`` is just raising. Never raises an
    Exception."""
    # What is logged of it may read the request again.
    if not _here.busy:
        contained(explaining, _raised, error, complaints, frame)


def _passing(error: BaseException, complaints: Complaints) -> None:
    _here.busy = True
    try:
        for one in _chain(error):
            said = one.args[0] if one.args else None
            if not isinstance(said, str) or vars(one).get(_MARK) == _FOUND:
                continue
            if isinstance(one, RuntimeError):
                if said.startswith(_ENTERED):
                    _note(one, _ENTERED_NOTE, _FOUND)
                elif said.startswith(complaints()):
                    grouped = isinstance(error, BaseExceptionGroup)
                    _complained(one, said, None if grouped else error.__traceback__)
            elif isinstance(one, ValueError):
                found = _RESET.match(said)
                if found is not None:
                    _reset(one, found[1])
    finally:
        _here.busy = False


def _raised(error: BaseException, complaints: Complaints, frame: FrameType) -> None:
    _here.busy = True
    try:
        said = error.args[0] if error.args else None
        if not isinstance(said, str) or not said.startswith(complaints()):
            return
        kind = _kind(said)
        cause = cause_of(kind, _given(frame), elsewhere=False)
        if cause is not None:
            # A library may just be asking; if it does not catch this, it will pass us.
            found = in_program(frame) is frame
            _note(error, cause.note, _FOUND if found else _NOTED)
            if found:
                _lost(frame, frame.f_lasti, frame.f_lineno, kind, cause)
    finally:
        _here.busy = False


def _complained(error: BaseException, said: str, way: TracebackType | None) -> None:
    place = error.__traceback__
    if place is None:
        return  # never raised: somebody has made it to show it
    work, elsewhere = _handed(place)
    if not elsewhere and way is not None:
        work, elsewhere = _handed(way)  # it may have been raised from one that was caught below
    kind = _kind(said)
    cause = cause_of(kind, work, elsewhere)
    if cause is not None:
        _note(error, cause.note, _FOUND)
        place = _innermost(place)
        _lost(place.tb_frame, place.tb_lasti, place.tb_lineno, kind, cause)


def _lost(frame: FrameType, instruction: int, line: int | None, kind: str, cause: Cause) -> None:
    if not settings.watching or orphans.silent():
        return
    came_from = SPAWNED.get()
    # A library's own housekeeping: nobody could write anything else instead.
    quietly = in_program(frame) is not frame and (came_from is None or not came_from.meant)
    message = f"current {kind} read outside any request{cause.how}"
    _found(LOST, frame, instruction, line, message, cause, quietly=quietly)


def _found(
    slug: str,
    frame: FrameType,
    instruction: int,
    line: int | None,
    message: str,
    cause: Cause,
    *,
    quietly: bool = False,
) -> None:
    code = frame.f_code
    site = findings.sites.get((slug, id(code), instruction))
    if site is not None:
        site.hit()
        return
    findings.add(
        slug,
        (code, instruction),
        message=message,
        callsite=where(code, line or code.co_firstlineno),
        fix=cause.fix,
        key=f"{slug}:{module(frame)}.{short(code.co_qualname)}",
        origin=cause.origin,
        task=orphans.task(),
        request_id=cause.request_id,
        path=cause.path,
        quietly=quietly,
    )


def _reset(error: BaseException, name: str) -> None:
    place = error.__traceback__
    if place is None:
        return
    scope = ACTIVE.get()
    what = f"the ContextVar {text.clean(name, text.NAME_LIMIT)!r}"
    during = "" if scope is None else f", during request {scope._request_id} {told(scope)}"
    cause = Cause(
        f"{what} is reset in another context than it was set in{during}: in another task or "
        f"thread, or in a copied context, as of a generator that is iterated or closed elsewhere",
        "",
        _TOGETHER,
        None,
        None if scope is None else scope._request_id,
        None if scope is None else told(scope),
    )
    _note(error, cause.note, _FOUND)
    if settings.watching:
        place = _innermost(place)
        message = f"{what} was reset in another context than it was set in"
        _found(FOREIGN, place.tb_frame, place.tb_lasti, place.tb_lineno, message, cause)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error``, and what its traceback shows with it: those of a group, and what it came from."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions[:_CHAIN]
        before = one.__cause__ if one.__suppress_context__ else one.__context__
        if before is not None:
            waiting.append(before)


def _note(error: BaseException, note: str, mark: str) -> None:
    if _MARK not in vars(error):
        error.add_note(note)
    vars(error)[_MARK] = mark


def _kind(said: str) -> str:
    return "websocket" if "websocket" in said and "request" not in said else "request"


def _innermost(place: TracebackType) -> TracebackType:
    """The part of the traceback that shows where the program was; if it was not, the last."""
    found: TracebackType | None = None
    following: TracebackType | None = place
    while following is not None:
        place = following
        if in_program(place.tb_frame) is place.tb_frame:
            found = place
        following = place.tb_next
    return found or place


def _handed(way: TracebackType | None) -> tuple[CodeType | None, bool]:
    """The program's first function on this way, since it was handed to a pool or a thread, if it
    was; and whether that happened."""
    work: CodeType | None = None
    elsewhere = False
    while way is not None:
        if way.tb_frame.f_globals.get("__name__") in _HANDOVERS:
            work, elsewhere = None, True
        elif work is None and in_program(way.tb_frame) is way.tb_frame:
            work = way.tb_frame.f_code
        way = way.tb_next
    return work, elsewhere


def _given(frame: FrameType | None) -> CodeType | None:
    """The same of a live stack: what a thread, a pool, a loop or we have been given to run."""
    work: CodeType | None = None
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name in _RUNNERS or name.startswith("asok_trace."):
            break
        if in_program(frame) is frame:
            work = frame.f_code
        frame = frame.f_back
    return work

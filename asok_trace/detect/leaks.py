"""What outlives its request, or is left behind by it."""

import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple, cast

from asok_trace.core import findings, names, settings, text
from asok_trace.core.callsite import (
    Callsite,
    in_program,
    is_library,
    module,
    outermost,
    relative,
    short,
    speaker,
    where,
)
from asok_trace.core.errors import Piece
from asok_trace.core.finding import BLEED, FOREIGN, LATE, UNCLOSED
from asok_trace.core.findings import Site
from asok_trace.core.scope import Fields, Live, Scope
from asok_trace.core.telling import is_telling
from asok_trace.detect import remedy
from asok_trace.detect.origin import SPAWNED, Origin
from asok_trace.detect.orphans import task

watching: Final = Piece("looking for what outlives its request")

_SAID_LIMIT: Final = 80


class Place(NamedTuple):
    """Where a finding belongs that no line of the program shows."""

    callsite: str
    """``file:line function``, as far as that is known."""
    name: str
    """What `ignore` knows it by: ``module.function``."""


@lru_cache(maxsize=8)
def late(line: Live | None) -> Live:
    """Return how a line is stamped that is logged in a closed scope: as ``line`` did it before,
    with the time since the end, and a finding."""

    def late_line(scope: Scope) -> Fields:
        fields = scope.fresh() if line is None else line(scope)
        if not scope._ended or fields.get(names.REQUEST_ID) is not scope._request_id:
            return fields  # nothing is late yet; or the framework has gone on to another request
        milliseconds = _lateness(scope)
        _note_late(scope, sys._getframe(1), "line logged", milliseconds)
        return {**fields, names.LATE_MS: cast("str", milliseconds)}

    return late_line


def late_span(scope: Scope, name: str, frame: FrameType) -> tuple[Site | None, int | None]:
    """Note a span that was started in a closed scope; return the finding, if it is reported, and
    the milliseconds since the end; None if it is not late. Never raises an Exception."""
    if not scope._ended:
        return None, None
    milliseconds = _lateness(scope)
    quoted = text.clean(name, _SAID_LIMIT)
    return _note_late(scope, frame, f"span {quoted!r} started", milliseconds), milliseconds


def _lateness(scope: Scope) -> int:
    return round((time.perf_counter() - scope._ended) * 1000)


def _note_late(scope: Scope, frame: FrameType, what: str, milliseconds: int) -> Site | None:
    if not settings.watching or not watching.working or is_telling():
        return None
    try:
        frame = speaker(frame)
        shown = in_program(frame)
        place = shown or frame
        site = findings.sites.get((LATE, id(place.f_code), place.f_lasti))
        if site is None:
            site = _add_late(scope, place, what, milliseconds, quietly=shown is None)
        else:
            site.hit()
    except Exception as error:
        watching.failed(error)
        return None
    return None if site is None or site.ignored else site


def _add_late(
    scope: Scope, frame: FrameType, what: str, milliseconds: int, *, quietly: bool
) -> Site | None:
    running = task()
    work = remedy.written(short(outermost(frame).f_code.co_qualname))
    fix = (
        f"hand over asok_trace.wrap({work}, outlive=True) where it is started: a unit of work of "
        f"its own; or asok_trace.detach({work}) if it serves all requests"
    )
    if running is not None:
        fix = (
            f"await it in the request; or asyncio.create_task(asok_trace.wrap({work}, "
            f"outlive=True)(...)): a unit of work of its own; or asok_trace.detach({work})(...) if "
            f"it serves all requests"
        )
    started = _started(scope)
    return findings.add(
        LATE,
        (frame.f_code, frame.f_lasti),
        message=f"{what} {milliseconds} ms after {_called(scope)} had ended",
        callsite=where(frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno),
        fix=fix,
        key=f"{LATE}:{_name(frame)}",
        origin=None if started is None else f"started at {started}",
        task=running,
        request_id=scope._request_id,
        path=told(scope),
        # A library's own housekeeping: nobody could write anything else instead.
        quietly=quietly,
    )


def _started(scope: Scope) -> str | None:
    """Where the work that runs here was started, as far as somebody has noted it."""
    came_from = SPAWNED.get()
    if came_from is not None and came_from.request_id == scope._request_id:
        return str(came_from.callsite)
    asyncio = sys.modules.get("asyncio")
    try:
        running = None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        return None
    # In asyncio's debug mode a task knows.
    for frame in reversed(getattr(running, "_source_traceback", None) or ()):
        if not is_library(frame.filename):
            return f"{relative(frame.filename)}:{frame.lineno} {frame.name}"
    return None


def told(scope: Scope) -> str:
    """``POST /cart``, or the name of a unit of work."""
    return scope._name or f"{scope._method} {scope._path}"


def _called(scope: Scope) -> str:
    if scope._name is not None:
        return f"the {scope._kind} {scope._name}"
    if scope._kind == "message":
        return f"the {scope._method} on {scope._path}"
    return f"the {'connection' if scope._kind == 'websocket' else 'response'} to {told(scope)}"


def _pauses(code: CodeType) -> bool:
    """Whether what it begins may be gone on with by somebody else."""
    return bool(code.co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR))


def _name(frame: FrameType) -> str:
    return f"{module(frame)}.{short(frame.f_code.co_qualname)}"


def bleed(scope: Scope, left: str, fix: str, place: Place | None, *, what: str) -> None:
    """Note what the request of ``scope`` has left behind. Never raises an Exception.

    Args:
        left: what, and where, as the end of a sentence: ``its request current``.
        fix: what to write instead.
        place: what handled the request, if that is known.
        what: by which it is known again, together with the place.
    """
    _note(BLEED, scope, f"{_called(scope)} left {left}", fix, place, what)


def unclosed(scope: Scope, message: str, fix: str, place: Place | None) -> None:
    """Note what was dropped while it was open, in the request of ``scope``. Never raises an
    Exception."""
    _note(UNCLOSED, scope, message, fix, place, "")


def _note(slug: str, scope: Scope, message: str, fix: str, place: Place | None, what: str) -> None:
    if not settings.watching or not watching.working:
        return
    try:
        request = scope._route or told(scope)
        callsite, name = place or Place(request, request)
        # Without code: what is told apart is what was left, and by whom.
        known_as = f"{what} {callsite} {name}"
        site = findings.sites.get((slug, known_as, 0))
        if site is not None:
            site.hit(scope)
            return
        findings.add(
            slug,
            (None, 0),
            known_as=known_as,
            message=message,
            callsite=callsite,
            fix=fix,
            key=f"{slug}:{text.clean(name, text.NAME_LIMIT)}",
            task=task(),
            request_id=scope._request_id,
            path=told(scope),
            scope=scope,
        )
    except Exception as error:
        watching.failed(error)


def never_left(name: str, opened: Callsite, of: str, request_id: str) -> None:
    """Note that the unit of work ``name``, which was entered at ``opened``, was thrown away and
    not left. For finalizers: it is told later. Never raises an Exception."""
    if settings.watching and watching.working:
        findings.later(partial(_add_never_left, name, opened, of, request_id))


def _add_never_left(name: str, opened: Callsite, of: str, request_id: str) -> None:
    site = findings.sites.get((UNCLOSED, id(opened.code), opened.instruction))
    if site is not None:
        site.hit()
        return
    findings.add(
        UNCLOSED,
        opened,
        message=f"scope({name!r}) was entered and never left",
        callsite=str(opened),
        fix=f"with asok_trace.scope({name!r}): around the work",
        key=f"{UNCLOSED}:{of}.{short(opened.code.co_qualname)}",
        request_id=request_id,
        path=name,
    )


def left_in_thread(code: CodeType, of: str, came_from: Origin) -> None:
    """Note that the function of ``code``, of the module ``of``, which a pool ran for the request
    that ``came_from`` tells of, has left a request current in the pool's thread."""
    site = findings.sites.get((UNCLOSED, id(code), -1))
    if site is not None:
        site.hit()
        return
    findings.add(
        UNCLOSED,
        (code, -1),
        message=f"{short(code.co_qualname)}() left a request current in the thread of a pool, for "
        f"the next job to find",
        callsite=where(code, code.co_firstlineno),
        fix="enter and leave a request's context in one with block; reset what was set, in a "
        "finally",
        key=f"{UNCLOSED}:{of}.{short(code.co_qualname)}",
        origin=f"started at {came_from.callsite}",
        request_id=came_from.request_id,
        path=came_from.what,
    )


def foreign(
    name: str, frame: FrameType, opened: Callsite, scope: Scope, *, finalized: bool
) -> None:
    """Note that the unit of work ``name`` was left in another context than it was entered in.
    Never raises an Exception.

    Args:
        name: the unit's.
        frame: where it was left.
        opened: where it was entered.
        scope: the unit's.
        finalized: whether a finalizer may have done it: then it is told later.
    """
    if not settings.watching or not watching.working:
        return
    try:
        frame = in_program(frame) or frame
        if frame.f_code is opened.code and _pauses(opened.code) and not finalized:
            frame = in_program(frame.f_back) or frame  # a generator's: whoever went on with it
        code, instruction = frame.f_code, frame.f_lasti
        site = findings.sites.get((FOREIGN, id(code), instruction))
        if site is not None:
            site.hit()
            return
        tell: Callable[[], Any] = partial(
            findings.add,
            FOREIGN,
            (code, instruction),
            message=f"scope({name!r}) was left in another context than it was entered in",
            callsite=where(code, frame.f_lineno or code.co_firstlineno),
            fix="enter and leave it in one task and thread; a generator that is broken off: "
            "contextlib.closing() or aclosing() around it; one that is iterated elsewhere: "
            "asok_trace.wrap_stream()",
            key=f"{FOREIGN}:{_name(frame)}",
            origin=f"entered at {opened}",
            task=task(),
            request_id=scope._request_id,
            path=told(scope),
        )
        if finalized:
            findings.later(tell)
        else:
            tell()
    except Exception as error:
        watching.failed(error)

"""What outlives its request, or is left behind by it."""

import sys
import time
from functools import lru_cache
from types import FrameType
from typing import Final, cast

from asok_trace.core import findings, names, settings, text
from asok_trace.core.callsite import Callsite, in_program, outermost, short, speaker, where
from asok_trace.core.errors import Piece
from asok_trace.core.findings import BLEED, FOREIGN, LATE, UNCLOSED
from asok_trace.core.scope import Fields, Live, Scope
from asok_trace.detect.origin import SPAWNED
from asok_trace.detect.orphans import task

watching: Final = Piece("looking for what outlives its request")


@lru_cache(maxsize=8)
def late(line: Live | None) -> Live:
    """Return how a line is stamped that is logged in a closed scope: as ``line`` did it before,
    with the time since the end, and a finding."""

    def late_line(scope: Scope) -> Fields:
        fields = scope.fresh() if line is None else line(scope)
        if fields.get(names.REQUEST_ID) is not scope._request_id:
            return fields  # the framework has gone on to a request that is its own
        milliseconds = _lateness(scope)
        _note_late(scope, sys._getframe(1), "line logged", milliseconds)
        return {**fields, names.LATE_MS: cast("str", milliseconds)}

    return late_line


def late_span(scope: Scope, name: str, frame: FrameType) -> tuple[str | None, int]:
    """Note a span that was started in a closed scope; return the slug of what it is, if that is
    reported, and the milliseconds since the end. Never raises an Exception."""
    milliseconds = _lateness(scope)
    quoted = text.clean(name, 80)
    return _note_late(scope, frame, f"span {quoted!r} started", milliseconds), milliseconds


def _lateness(scope: Scope) -> int:
    return round((time.perf_counter() - scope._ended) * 1000)


def _note_late(scope: Scope, frame: FrameType, what: str, milliseconds: int) -> str | None:
    if not settings.watching or not watching.working or findings.is_telling():
        return None
    try:
        frame = speaker(frame)
        site = findings.sites.get((LATE, id(frame.f_code), frame.f_lasti))
        if site is None:
            site = _add_late(scope, frame, what, milliseconds)
        else:
            site.hit()
    except Exception as error:
        watching.failed(error)
        return None
    return None if site is None or site.ignored else LATE


def _add_late(scope: Scope, frame: FrameType, what: str, milliseconds: int) -> findings.Site | None:
    shown = in_program(frame)
    code = (shown or frame).f_code
    number = (shown or frame).f_lineno or code.co_firstlineno
    module = (shown or frame).f_globals.get("__name__", "?")
    running = task()
    work = short(outermost(frame).f_code.co_qualname)
    came_from = SPAWNED.get()
    return findings.add(
        LATE,
        (frame.f_code, frame.f_lasti),
        message=f"{what} {milliseconds} ms after {_called(scope)} had ended",
        callsite=where(code, number),
        fix=(
            f"hand over asok_trace.wrap({work}, outlive=True) where it is started: a unit of work "
            f"of its own"
            if running is None
            else f"await it in the request; or asyncio.create_task(asok_trace.wrap({work}, "
            f"outlive=True)(...)): a unit of work of its own"
        ),
        key=f"{LATE}:{module}.{short(code.co_qualname)}",
        origin=None if came_from is None else f"started at {came_from.callsite}",
        task=running,
        request_id=scope._request_id,
        path=told(scope),
        # A library's own housekeeping: nobody could write anything else instead.
        quietly=shown is None,
    )


def told(scope: Scope) -> str:
    """``POST /cart``, or the name of a unit of work."""
    return scope._name or f"{scope._method} {scope._path}"


def _called(scope: Scope) -> str:
    what = {"http": "the response to", "websocket": "the connection", "message": "the message"}
    return f"{what.get(scope._kind, scope._kind)} {told(scope)}"


def bleed(scope: Scope, left: str, fix: str, view: str | None) -> None:
    """Note what the request of ``scope`` has left behind. Never raises an Exception.

    Args:
        left: what, as the end of a sentence: ``its request current``.
        fix: what to write instead.
        view: the function that handled it, as ``file:line function``, if that is known.
    """
    _note(BLEED, scope, f"{_called(scope)} left {left} in its context", fix, view)


def unclosed(scope: Scope, what: str, fix: str, view: str | None) -> None:
    """Note what was dropped while it was open, in the request of ``scope``. Never raises an
    Exception."""
    _note(UNCLOSED, scope, f"{what} of {told(scope)} was dropped while it was open", fix, view)


def _note(slug: str, scope: Scope, message: str, fix: str, view: str | None) -> None:
    if not settings.watching or not watching.working:
        return
    try:
        place = view or scope._route or told(scope)
        key = f"{slug}:{text.clean(place.rpartition(' ')[2], text.NAME_LIMIT)}"
        # Without code: what is told apart is what was left, and by whom.
        what = (slug, (message.partition(" left ")[2] or slug) + place, 0)
        site = findings.sites.get(what)
        if site is not None:
            site.hit()
            return
        findings.add(
            slug,
            (None, 0),
            known_as=what[1],
            message=message,
            callsite=place,
            fix=fix,
            key=key,
            task=task(),
            request_id=scope._request_id,
            path=told(scope),
        )
    except Exception as error:
        watching.failed(error)


def foreign(what: str, frame: FrameType, opened: Callsite | None, scope: Scope | None) -> None:
    """Note that ``what`` was closed in another context than it was opened in. Never raises an
    Exception.

    Args:
        what: ``scope("nightly")``.
        frame: where it was closed.
        opened: where it was opened, if that is known.
        scope: the request it belongs to, if there is one.
    """
    if not settings.watching or not watching.working:
        return
    try:
        frame = in_program(frame) or frame
        code = frame.f_code
        site = findings.sites.get((FOREIGN, id(code), frame.f_lasti))
        if site is not None:
            site.hit()
            return
        module = frame.f_globals.get("__name__", "?")
        findings.add(
            FOREIGN,
            (code, frame.f_lasti),
            message=f"{what} was closed in another context than it was opened in",
            callsite=where(code, frame.f_lineno or code.co_firstlineno),
            fix="open and close it in one function, without a yield or an await of another task in "
            "between; asok_trace.wrap_stream() for a generator that is iterated elsewhere",
            key=f"{FOREIGN}:{module}.{short(code.co_qualname)}",
            origin=None if opened is None else f"opened at {opened}",
            task=task(),
            request_id=None if scope is None else scope._request_id,
            path=None if scope is None else told(scope),
        )
    except Exception as error:
        watching.failed(error)

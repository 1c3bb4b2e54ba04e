"""Calls outside any request, and why: before there was one, with none behind it, or lost."""

import sys
import threading
from types import FrameType, TracebackType
from typing import Final

from asok_trace.core import findings, settings, text
from asok_trace.core.callsite import (
    in_program,
    outermost,
    short,
    speaker,
    where,
)
from asok_trace.core.errors import Piece
from asok_trace.core.findings import LOST, OUTSIDE, STARTUP
from asok_trace.detect.origin import SPAWNED, Origin

watching: Final = Piece("looking for calls outside any request")

_SAID_LIMIT: Final = 80

# Libraries start threads of their own, in whichever request happens to be the first. What a web
# framework starts is the request's work.
_FRAMEWORKS: Final = ("asok", "flask", "quart")


class _Here(threading.local):
    """The line that this thread noted last: the frame that logged it, and the instruction."""

    last: tuple[int, int] | None = None


_here: Final = _Here()


def line(said: object, frame: FrameType | None, *, again: bool = False) -> None:
    """Note a line that was logged outside any request. Never raises an Exception.

    Args:
        said: the event, or the format string, before anything was put into it.
        frame: where to begin to look for who logged it.
        again: structlog may have handed it on: then it has been noted.
    """
    if not settings.watching or not watching.working:
        return
    if not findings.serving:
        findings.count(STARTUP)
        return
    if frame is None or findings.is_telling():
        return
    try:
        frame = speaker(frame)
        here = (id(frame), frame.f_lasti)
        if again and _here.last == here:
            return
        _here.last = here
        came_from = SPAWNED.get()
        slug = OUTSIDE if came_from is None else LOST
        site = findings.sites.get((slug, id(frame.f_code), frame.f_lasti))
        if site is None:
            quoted = text.clean(said, _SAID_LIMIT)
            _add(slug, frame, came_from, f"line {quoted!r} logged")
        else:
            site.hit()
    except Exception as error:
        watching.failed(error)


def span(name: str, frame: FrameType, *, has_parent: bool) -> str | None:
    """Note a span that was started outside any request; return the slug of what it is, if it is
    reported. Never raises an Exception.

    Args:
        name: the span's.
        frame: where to begin to look for who started it.
        has_parent: whether it is part of a trace: then there is something behind it.
    """
    if not settings.watching or not watching.working:
        return None
    came_from = SPAWNED.get()
    if has_parent and came_from is None:
        return None
    if not findings.serving:
        findings.count(STARTUP)
        return None
    try:
        frame = speaker(frame)
        slug = OUTSIDE if came_from is None else LOST
        site = findings.sites.get((slug, id(frame.f_code), frame.f_lasti))
        if site is None:
            quoted = text.clean(name, _SAID_LIMIT)
            site = _add(slug, frame, came_from, f"span {quoted!r} started")
        else:
            site.hit()
    except Exception as error:
        watching.failed(error)
        return None
    return None if site is None or site.ignored else slug


def access(place: FrameType | TracebackType, what: str, came_from: Origin | None) -> None:
    """Note an access to a framework's current request that raised, since there is none.

    Args:
        place: of the access: the frame that is in it, or the traceback's part of that frame.
        what: what the framework calls it: ``current_request``.
        came_from: who started what it is in, if that is known.
    """
    if not settings.watching or not watching.working:
        return
    if not findings.serving:
        findings.count(STARTUP)
        return
    try:
        if isinstance(place, TracebackType):
            frame, instruction, number = place.tb_frame, place.tb_lasti, place.tb_lineno
        else:
            frame, instruction, number = place, place.f_lasti, place.f_lineno
        site = findings.sites.get((LOST, id(frame.f_code), instruction))
        if site is None:
            _add(LOST, frame, came_from, f"{what} read", (instruction, number))
        else:
            site.hit()
    except Exception as error:
        watching.failed(error)


def _add(
    slug: str,
    frame: FrameType,
    came_from: Origin | None,
    what: str,
    at: tuple[int, int | None] | None = None,
) -> findings.Site | None:
    """Add what is at a new place: ``frame``, at the instruction and line ``at``."""
    instruction, number = (frame.f_lasti, frame.f_lineno) if at is None else at
    shown = in_program(frame)
    # A library's own housekeeping: nobody could write anything else instead.
    quietly = shown is None and (
        came_from is None or came_from.starter.partition(".")[0] not in _FRAMEWORKS
    )
    if shown is None:
        shown = frame
    elif shown is not frame:
        number = shown.f_lineno
    code = shown.f_code
    module = shown.f_globals.get("__name__", "?")
    work = short(outermost(frame).f_code.co_qualname)
    if came_from is not None:
        by = "a request" if came_from.name is None else came_from.name
        message = f"{what} outside any request, by what {by} started without its context"
        fix = (
            f"hand over asok_trace.wrap({work}) there; or "
            f'asok_trace.propagate_threads("carry") for all threads and pools'
        )
    elif slug == LOST:
        message = f"{what} outside any request"
        fix = (
            f"asok_trace.wrap({work}) where a request starts it; "
            f'asok_trace.propagate_threads("watch") tells where that is'
        )
    else:
        message = f"{what} with no request behind it"
        fix = f'with asok_trace.scope("{work}"): around the work that it belongs to'
    return findings.add(
        slug,
        (frame.f_code, instruction),
        message=message,
        callsite=where(code, number or code.co_firstlineno),
        fix=fix,
        key=f"{slug}:{module}.{short(code.co_qualname)}",
        origin=None if came_from is None else f"started at {came_from.callsite}",
        task=task(),
        request_id=None if came_from is None else came_from.request_id,
        path=None if came_from is None else came_from.what,
        quietly=quietly,
    )


def task() -> str | None:
    """The name of the asyncio task that runs here, and what it runs; None outside any."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        found = asyncio.current_task()
    except RuntimeError:
        return None
    if found is None:
        return None
    coroutine = found.get_coro()
    runs = getattr(coroutine, "__qualname__", type(coroutine).__qualname__)
    return f"{found.get_name()} {short(runs)}()"

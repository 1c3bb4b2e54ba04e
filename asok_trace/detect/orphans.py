"""Calls outside any request, and why: before there was one, with none behind it, or lost."""

import sys
import threading
from types import FrameType
from typing import Any, Final

from asok_trace.core import findings, settings, text
from asok_trace.core.callsite import in_program, module, outermost, short, speaker, where
from asok_trace.core.errors import Piece
from asok_trace.core.finding import LOST, OUTSIDE, STARTUP
from asok_trace.core.findings import Site
from asok_trace.core.telling import is_telling
from asok_trace.detect import remedy
from asok_trace.detect.origin import SPAWNED, Origin

watching: Final = Piece("looking for calls outside any request")

_SAID_LIMIT: Final = 80

_SCRIPT: Final = "<module>"

_spawned: Final = SPAWNED.get
_beyond: Final = findings.beyond


class _Here(threading.local):
    """What this thread has noted last, since a line may come by more than once."""

    line: tuple[int, int] | None = None
    """Of structlog: the frame that logged it, and the instruction; until it comes as a record."""
    record: float | None = None
    """When the last record was made: of all its copies the same object, and of nothing else's."""


_here: Final = _Here()


def silent() -> bool:
    """Whether nothing is to be noted of what is outside any request just now: it is off, or there
    was no request yet. That is counted, by each way of logging that a line takes."""
    # Every line outside a request comes here: the order is by what is likely.
    if findings.serving or _spawned() is not None:
        return not settings.watching
    if settings.watching:
        _beyond[STARTUP] += 1
    return True


def line(said: object, frame: FrameType, asked: FrameType | None = None) -> None:
    """Note a line that was logged outside any request, unless it is `silent` there. Never raises
    an Exception.

    Args:
        said: the event, before anything was put into it.
        frame: where to begin to look for who logged it.
        asked: the frame that did, if another thread logs it for that.
    """
    if not watching.working:
        return
    try:
        frame = speaker(frame)
        _here.line = (id(frame), frame.f_lasti)
        _note(asked or frame, "line", said, "logged", moving=asked is not None)
    except Exception as error:
        watching.failed(error)


def record(made: Any, frame: FrameType, *, deferred: bool = False) -> None:
    """Note a log record as `line` does: not twice, if several handlers have it stamped; and not
    if it is what structlog has made of a line that was noted.

    Args:
        made: the record.
        frame: where to begin to look for who logged it.
        deferred: tell it later; see `findings.add`.
    """
    if not watching.working:
        return
    try:
        here = _here
        created = getattr(made, "created", None)
        if here.record is created:
            return
        here.record = created
        frame = speaker(frame)
        noted, here.line = here.line, None
        if noted != (id(frame), frame.f_lasti):
            _note(frame, "line", made.msg, "logged", deferred=deferred)
    except Exception as error:
        watching.failed(error)


def span(name: str, frame: FrameType, *, has_parent: bool) -> Site | None:
    """Note a span that was started outside any request; return the finding, if it is reported.
    Never raises an Exception.

    Args:
        name: the span's.
        frame: where to begin to look for who started it.
        has_parent: whether it is part of a trace: then there is something behind it.
    """
    if not watching.working or (has_parent and SPAWNED.get() is None) or silent():
        return None
    try:
        site = _note(speaker(frame), "span", name, "started")
    except Exception as error:
        watching.failed(error)
        return None
    return None if site is None or site.ignored else site


def _note(
    frame: FrameType,
    what: str,
    said: object,
    done: str,
    *,
    moving: bool = False,
    deferred: bool = False,
) -> Site | None:
    """Note what was said in ``frame``, which may be ``moving``, in another thread; return the place
    at which it is known."""
    came_from = SPAWNED.get()
    slug = OUTSIDE if came_from is None else LOST
    at = -frame.f_lineno if moving else frame.f_lasti
    site = findings.sites.get((slug, id(frame.f_code), at))
    if site is not None:
        site.hit()
        return site
    # If a library has said it, the place is the program's that has called it. If nobody has: its
    # own housekeeping, told apart from what somebody meant to run there.
    place, quietly = in_program(frame), False
    if place is None:
        quietly = came_from is None or not came_from.meant
        place, at = frame, ~at if quietly else at
    else:
        quietly = came_from is None and _at_exit()
        at = at if place is frame else place.f_lasti
    site = findings.sites.get((slug, id(place.f_code), at))
    if site is not None:
        site.hit()
        return site
    if findings.full(slug):
        findings.count(slug)
        return None
    if is_telling():  # a callback's own lines
        return None
    # Text alone is looked at: anything else might run code of the program's to become some.
    quoted = text.clean(said, _SAID_LIMIT) if isinstance(said, str) else type(said).__name__
    work = short(outermost(frame).f_code.co_qualname)
    return _add(
        slug,
        place,
        at,
        came_from,
        f"{what} {quoted!r} {done}",
        work,
        quietly=quietly,
        deferred=deferred,
    )


def _add(
    slug: str,
    place: FrameType,
    at: int,
    came_from: Origin | None,
    what: str,
    work: str,
    *,
    quietly: bool,
    deferred: bool,
) -> Site | None:
    """Add what is at a new place: in ``place``, at that instruction, in ``work``."""
    code = place.f_code
    if work == _SCRIPT:
        work = short(code.co_qualname) if code.co_qualname != _SCRIPT else "work"
    if came_from is not None:
        message = (
            f"{what} outside any request, by what {came_from.what} started without its context"
        )
        # A library's function that the program knows nothing of cannot be wrapped by it.
        handed = (came_from.handed if came_from.meant else None) or work
        fix = remedy.hand_over(handed)
    else:
        message = f"{what} with no request behind it"
        elsewhere = threading.current_thread() is not threading.main_thread()
        fix = remedy.open_scope(work, elsewhere=elsewhere)
    return findings.add(
        slug,
        (code, at),
        message=message,
        callsite=where(code, place.f_lineno or code.co_firstlineno),
        fix=fix,
        key=f"{slug}:{module(place)}.{short(code.co_qualname)}",
        origin=None if came_from is None else f"started at {came_from.callsite}",
        task=task(),
        request_id=None if came_from is None else came_from.request_id,
        path=None if came_from is None else came_from.what,
        quietly=quietly,
        deferred=deferred,
    )


def _at_exit() -> bool:
    """Whether the interpreter ends, and this is one of the functions that it calls for that."""
    main = threading.main_thread()
    return threading.current_thread() is main and not main.is_alive()


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
    return text.clean(f"{found.get_name()} {short(runs)}()", text.NAME_LIMIT)

"""What was found: one `Finding` per kind and place, counted, bounded, told once.

Detectors call `add` where something is new, and `Site.hit` where it is known. What they see reaches
the spans from here, and the log and the listeners by `telling`. Text is kept, and the code of a
place; never a request, a frame or an exception: a detector must not be the leak.
"""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from types import CodeType
from typing import Any, Final

from asok_trace.core import names, telling
from asok_trace.core.finding import INFORMATIVE, KINDS, OUTSIDE, Finding
from asok_trace.core.ignoring import is_ignored
from asok_trace.core.scope import Scope
from asok_trace.core.text import NAME_LIMIT, clean

SITES: Final = 500
"""Places of one kind that are kept; what is found at further ones is counted."""


class Site:
    """A place at which something was found, and how often."""

    __slots__ = ("_code", "_facts", "count", "first_seen", "last_seen", "quiet", "slug")

    def __init__(
        self, slug: str, code: CodeType | None, facts: dict[str, Any], *, quiet: bool
    ) -> None:
        self.slug = slug
        self.quiet = quiet
        self._code = code  # kept, so that its id() stays its own
        self._facts = facts
        self.count = 0
        self.first_seen = self.last_seen = time.time()

    def hit(self, scope: Scope | None = None) -> None:
        """Count one more: of ``scope``, where that need not be the one it is found in."""
        # No lock: between its reading and its writing no other thread gets a turn.
        self.count += 1
        self.last_seen = time.time()
        if markers and not self.ignored:
            for mark in markers:
                mark(self, scope)

    @property
    def ignored(self) -> bool:
        """Whether it is not to be told, by the rules of this moment."""
        if self.quiet:
            return True
        return is_ignored(self._facts["key"], self._facts["thread"])

    def finding(self) -> Finding:
        """What is known of it by now."""
        return Finding(
            kind=KINDS[self.slug],
            slug=self.slug,
            count=self.count,
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            **self._facts,
        )


Place = tuple[str, object, int]
"""Of a `Site`: its slug, the id() of the code and the instruction in it; or another name and 0."""

sites: dict[Place, Site] = {}
"""What was found so far, by its place."""

serving = False
"""Whether this process serves requests: what comes before the first one, and when the server goes
up again or down, is ``startup``."""

beyond: dict[str, int] = dict.fromkeys(KINDS, 0)
"""Slug -> how often it was found at places that are not kept; and all of ``startup``."""

_kept: dict[str, int] = dict.fromkeys(KINDS, 0)
_told: dict[str, int] = dict.fromkeys(KINDS, 0)

markers: list[Callable[[Site, Scope | None], None]] = []
"""Called whenever something is found, by whoever is affected, and with whose it is, if that is
known; they never raise."""

_waiting: deque[Callable[[], None]] = deque(maxlen=SITES)


def serve() -> None:
    """A request has begun."""
    global serving
    serving = True
    if _waiting:
        settle()


def rest() -> None:
    """The server goes up or down: what comes now is as what was before the first request."""
    global serving
    serving = False


def count(slug: str) -> None:
    """Count what is not told one by one."""
    # No lock, here as below: what is not a call, no other thread gets in between.
    beyond[slug] += 1


def full(slug: str) -> bool:
    """Whether no further place of this kind is kept. Each kind has room of its own: what is
    harmless and everywhere must not hide what is not."""
    return _kept[slug] >= SITES


def add(
    slug: str,
    place: tuple[CodeType | None, int],
    *,
    message: str,
    callsite: str,
    fix: str,
    key: str,
    origin: str | None = None,
    thread: str | None = None,
    task: str | None = None,
    request_id: str | None = None,
    path: str | None = None,
    scope: Scope | None = None,
    known_as: str | None = None,
    quietly: bool = False,
    deferred: bool = False,
) -> Site | None:
    """Note what was found at a place that is not in `sites` yet, and tell it. Never raises an
    Exception of a listener's.

    Args:
        place: the code and the instruction, by which it is known again; without code, it is
            ``known_as`` something else.
        scope: whose it is, as for `Site.hit`.
        quietly: count it and keep it, but never tell.
        deferred: tell it later: here, somebody may hold the lock of a log handler.
    """
    code, instruction = place
    where = (slug, known_as or key if code is None else id(code), instruction)
    site = sites.get(where)
    if site is None:
        if full(slug):
            count(slug)
            return None
        facts = {
            "message": message,
            "callsite": callsite,
            "origin": origin,
            "thread": clean(thread or threading.current_thread().name, NAME_LIMIT),
            "task": task,
            "request_id": request_id,
            "path": path,
            "fix": fix,
            "key": key,
        }
        made = Site(slug, code, facts, quiet=quietly)
        # One step: of the threads that come here at once, one has made it.
        site = sites.setdefault(where, made)
        if site is made:
            _kept[slug] += 1
            site.hit(scope)
            if not site.ignored:
                _told[slug] += 1
                tell = partial(_tell, site, _told[slug])
                if deferred:
                    later(tell)
                else:
                    tell()
            return site
    site.hit(scope)
    return site


def _tell(site: Site, rank: int) -> None:
    telling.tell(site.finding(), rank)


def later(tell: Callable[[], None]) -> None:
    """Have ``tell`` called by whoever looks next, in an empty context: from a finalizer nothing
    may be logged, since a collection may run while somebody holds the lock of a log handler."""
    _waiting.append(tell)


def settle() -> None:
    """Call what waits to be told."""
    while _waiting:
        try:
            tell = _waiting.popleft()
        except IndexError:  # another thread was faster
            return
        try:
            Context().run(tell)  # it has nothing to do with the request of whoever looks
        except Exception as error:
            telling.telling.failed(error)


# What is put in to look once more before the findings are read: detectors that wait for something.
_lookers: list[Callable[[], None]] = []


def findings() -> list[Finding]:
    """Return what was found so far and is not ignored, in the order in which it was.

    What needs a collection to be found (``retained``, at the level ``strict``) is looked for now.
    """
    for look in _lookers:
        look()
    settle()
    return [site.finding() for site in list(sites.values()) if not site.ignored]


def assert_clean(*, outside: bool = False) -> None:
    """Raise if a context was lost or leaked: for the end of a test.

    Args:
        outside: count what ran with no request behind it, too.

    Raises:
        AssertionError: with the text of each finding.
    """
    __tracebackhide__ = True
    found = [finding for finding in findings() if outside or finding.slug != OUTSIDE]
    if found:
        count = f"{len(found)} finding" + ("s" if len(found) > 1 else "")
        raise AssertionError("\n\n".join([count, *map(str, found)]))


def counts() -> dict[str, int]:
    """How often each slug was found that is not ignored by a rule."""
    times = dict(beyond)
    for site in list(sites.values()):
        if site.quiet or not site.ignored:
            times[site.slug] += site.count
    return {slug: number for slug, number in times.items() if number}


def totals() -> str:
    """What was found, as text: how often, at how many places; empty if nothing was."""
    settle()
    times = counts()
    places: dict[str, int] = {}
    for site in list(sites.values()):
        if not site.ignored:
            places[site.slug] = places.get(site.slug, 0) + 1
    return ", ".join(
        f"{slug} {times[slug]}"
        + (f" at {places[slug]} place{'s' if places[slug] > 1 else ''}" if places.get(slug) else "")
        for slug in KINDS
        if slug in times
    )


_told_in_all = 0


def tell_totals() -> None:
    """Log how often all was found that was told once, at the end of the process; unless nothing
    was found since that was done."""
    global _told_in_all
    try:
        often = [s for s in list(sites.values()) if s.count > 1 and not s.ignored]
        times = sum(site.count for site in often)
        if times != _told_in_all:
            _told_in_all = times
            informative = all(site.slug in INFORMATIVE for site in often)
            logging.getLogger(names.LOGGER).log(
                logging.INFO if informative else logging.WARNING,
                "asok_trace found in all: %s. Each place was told once.",
                totals(),
            )
    except Exception as error:
        telling.telling.failed(error)


atexit.register(tell_totals)


def clear() -> None:
    """Forget what was found, and that anything was served; rules and listeners stay."""
    global serving, _told_in_all
    serving, _told_in_all = False, 0
    sites.clear()
    _waiting.clear()
    for counter in (beyond, _kept, _told):
        counter.update(dict.fromkeys(KINDS, 0))


# A child process has found nothing yet, and has served nobody.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=clear)

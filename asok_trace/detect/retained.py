"""Requests that are still alive some time after their end, and who holds them.

Looked for at the level ``strict`` alone. What is watched is held by weak references.
"""

import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from asok_trace.core import findings, text
from asok_trace.core.errors import Piece, contained
from asok_trace.core.finding import RETAINED
from asok_trace.core.scope import Scope
from asok_trace.core.settings import Settings
from asok_trace.detect.leaks import Place, told

if TYPE_CHECKING:
    from asok_trace.detect.naming import Holder

WATCHED: Final = 1000
"""Requests that are watched at a time; further ones are skipped."""
SECONDS: Final = 1.0
"""How long one look may search for holders, of all that are due."""

_TICK: Final = 0.5
_SHARE: Final = 20  # of the time is for the program, for each part of it that goes into a look

watching: Final = Piece("looking for requests that are kept alive")


class Gate(Protocol):
    """What is asked of a gateway."""

    @property
    def app(self) -> Any:
        """The application: what it holds is held for good."""

    @property
    def settings(self) -> Settings:
        """With the grace time."""


View = Callable[[Any, Scope], Place | None]

# A request that has ended: weakly; its scope; when, by the monotonic clock; the gateway it came
# through; what tells who handled it; and the ident of the thread. A plain tuple, as it is cheapest.
_Ended = tuple["ref[Any]", Scope, float, Gate, View, int]

_ended: "deque[_Ended]" = deque()
_thread: threading.Thread | None = None
_starting = threading.Lock()
# Re-entrant: whoever is told of a finding may ask for all of them.
_looking = threading.RLock()
_busy = False

skipped = 0
"""Requests that were not watched, since so many others were."""


def watch(request: "ref[Any]", scope: Scope, gate: Gate, view: View) -> None:
    """Have it looked at, after the grace time, whether the request of ``scope`` is still alive.
    Never raises an Exception. Costs a microsecond.

    Args:
        request: a weak reference to what the framework calls the request.
        view: returns what handled it, of ``gate`` and ``scope``, if that is asked for.
    """
    global skipped
    if not watching.working:
        return
    if len(_ended) >= WATCHED:
        skipped += 1
        return
    _ended.append((request, scope, time.monotonic(), gate, view, threading.get_ident()))
    if _thread is None:
        contained(watching, _start)


def look(now: float | None = None) -> None:
    """Report the requests that should be gone at ``now``, by the monotonic clock, and are not.
    Never waits for any to become due, and never raises an Exception."""
    global _busy
    if not watching.working:
        return
    with _looking:  # of two who look, the second has what the first has found
        if _busy or not _ended:
            return
        _busy = True
        try:
            _look(time.monotonic() if now is None else now)
        except Exception as error:
            watching.failed(error)
        finally:
            _busy = False


def pending() -> bool:
    """Whether any request that has ended is alive, due or not; some are until a collection."""
    with _looking:
        return any(one[0]() is not None for one in list(_ended))


def forget() -> None:
    """Watch none of those that have ended so far."""
    _ended.clear()


def _look(now: float) -> None:
    due = _due(now)
    if not due:
        return
    # Some frameworks' requests are circles, and an exception's traceback makes one of any.
    gc.collect()
    until = time.thread_time() + SECONDS
    for one in due:
        if one[0]() is None:
            continue
        if time.thread_time() < until:
            Context().run(_judge, one, now)  # not of whoever happens to look
        else:
            _ended.append(one)  # the next look's


def _due(now: float) -> list[_Ended]:
    """Take out what is due; and what is gone, which is most of it."""
    due: list[_Ended] = []
    for _ in range(len(_ended)):
        try:
            one = _ended.popleft()
        except IndexError:  # another thread has made it forget them
            break
        if one[0]() is not None:
            _, _, at, gate, _, _ = one
            (due if at + gate.settings.grace <= now else _ended).append(one)
    return due


def _judge(one: _Ended, now: float) -> None:
    # Here: nobody else needs to load the search.
    from asok_trace.detect.holders import Found, holder
    from asok_trace.detect.naming import Holder, named

    request, _, _, gate, _, thread = one
    found = holder(request(), app=gate.app, served_in=thread)
    if isinstance(found, Found):
        held_by = named(found)
        del found
    elif found.in_time or found.by_caller:
        return
    else:
        held_by = Holder(
            "what",
            None,
            "",
            "asok_trace.wrap(work, outlive=True) for what goes on after the response; ids instead "
            "of requests in what is kept",
        )
    _tell(one, held_by, now)


def _tell(one: _Ended, held_by: "Holder", now: float) -> None:
    _, scope, at, gate, view, served_in = one
    place = view(gate, scope)
    held = f"{held_by.what} holds it" if held_by.key else "what holds it was not found in time"
    key = held_by.key or (told(scope) if place is None else place.name)
    thread = next((found for found in threading.enumerate() if found.ident == served_in), None)
    findings.add(
        RETAINED,
        (None, 0),
        message=f"the request of {told(scope)} is still alive {now - at:.1f} s after its end: "
        f"{held}",
        callsite=held_by.callsite or (told(scope) if place is None else place.callsite),
        fix=held_by.fix,
        key=f"{RETAINED}:{text.clean(key, text.NAME_LIMIT)}",
        origin=None if place is None else f"handled by {place.callsite}",
        thread=held_by.thread or (None if thread is None else thread.name),
        task=held_by.task,
        request_id=scope._request_id,
        path=told(scope),
        quietly=held_by.quietly,
    )


def _start() -> None:
    global _thread
    with _starting:
        if _thread is not None:
            return
        made = threading.Thread(target=_run, name="asok_trace-retained", daemon=True)
        _thread = made
        try:
            # Not in the context of the request that happens to be the first.
            Context().run(made.start)
        except RuntimeError:  # none can be started any more: the process ends
            _thread = None


def _run() -> None:
    """Look from time to time, as long as there is anything to look at."""
    global _thread
    took = 0.0
    while _ended and watching.working:
        time.sleep(max(_TICK, _SHARE * took))
        began = time.thread_time()
        look()
        took = time.thread_time() - began
    _thread = None
    if _ended and watching.working:  # added meanwhile, by somebody who still saw this thread
        _start()


def _forked() -> None:
    """The parent's requests are the parent's; and its thread is not here."""
    global _thread, _starting, _looking, _busy
    _ended.clear()
    _thread = None
    _starting, _looking, _busy = threading.Lock(), threading.RLock(), False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
findings._lookers.append(look)

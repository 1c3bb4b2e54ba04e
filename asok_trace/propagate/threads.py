"""`propagate_threads()`: carry contexts into threads and pools that others make.

The one table of what is replaced for it, on the classes that everybody uses; every row is taken
back by `Handle.undo`.
"""

import functools
import sys
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from importlib import import_module
from types import FrameType
from typing import Any, Final, NamedTuple

from asok_trace.core.callsite import caller, claim, is_library
from asok_trace.core.errors import ConfigError, Piece, contained
from asok_trace.core.hooks import Handle, Hook
from asok_trace.core.settings import CARRY, MODES, OFF, WATCH
from asok_trace.detect import explain, remedy
from asok_trace.detect.origin import SPAWNED, Origin, origin
from asok_trace.frameworks import base
from asok_trace.propagate import leftover
from asok_trace.propagate.steps import ran
from asok_trace.propagate.wrap import is_bound, wrap

spawning: Final = Piece("carrying the context into a thread")

# Python 3.14 may do it itself, and always does where it runs without the GIL.
_INHERITS: Final = bool(getattr(sys.flags, "thread_inherit_context", 0))

_POOLS: Final = "concurrent.futures.thread"


class _Patch(NamedTuple):
    """One row: an attribute of ``owner`` (``module`` or ``module:Class``) that is replaced."""

    owner: str
    attribute: str
    make: Callable[[Hook], Any]
    inherited: bool = False
    """Whether the owner inherits it: then it is replaced only if somebody has replaced it there,
    as OpenTelemetry does, past the class where ours is."""


class _Wish(NamedTuple):
    """What one caller of `propagate_threads` asked for; told apart by identity."""

    mode: str


_lock = threading.Lock()
_wishes: list[_Wish] = []
_hooks: list[Hook] = []
_mode = OFF


def propagate_threads(mode: str = CARRY) -> Handle:
    """Carry the context of whoever starts a thread, or hands a job to a pool, into it.

    Covers `threading.Thread` and `Timer`, `concurrent.futures.ThreadPoolExecutor` (and with it
    ``loop.run_in_executor``), and, if gevent is loaded, ``gevent.spawn`` and its pools. Threads
    that libraries start for themselves are only watched: a connection pool's housekeeper must
    not keep the request in which it happened to be started. Nothing is done where Python carries
    contexts by itself, and to what `wrap` or `detach` has bound. A fault of ours never keeps
    a thread from starting.

    Process-wide; the latest call that is not undone holds. ``setup`` does it, ``instrument``
    only on demand (``threads="carry"``). Costs 2 microseconds per job, and 5 to 10 per thread.

    Args:
        mode: ``carry``; ``watch``, which changes nothing and remembers who started what during
            which request; or ``off``.

    Returns:
        A handle; ``handle.undo()`` puts back what was in force before.

    Raises:
        ConfigError: an unknown mode.
    """
    if mode not in MODES:
        raise ConfigError(f"threads={mode!r} is not a mode. Use one of {MODES}.")
    frame = caller()
    if frame is not None:
        claim(frame.f_code.co_filename)
    return _wished(_Wish(mode), first=False)


def watch_threads() -> Handle:
    """As ``propagate_threads("watch")`` for who has not been asked how: whatever another call of
    that says, before or after, holds."""
    return _wished(_Wish(WATCH), first=True)


def _wished(wish: _Wish, *, first: bool) -> Handle:
    with _lock:
        _wishes.insert(0 if first else len(_wishes), wish)
        _apply()

    def undo() -> None:
        with _lock:
            _wishes[:] = [other for other in _wishes if other is not wish]
            _apply()

    return Handle(undo)


def _apply() -> None:
    """Bring the table's rows in force, or take them back, as the last wish has it."""
    global _mode
    _mode = remedy.threads = _wishes[-1].mode if _wishes else OFF
    if _mode == OFF:
        while _hooks:
            _hooks.pop().undo()
        return
    there = {(hook.owner, hook.name) for hook in _hooks}
    for patch in _TABLE:
        owner = _loaded(patch.owner)
        if owner is None or (owner, patch.attribute) in there:
            continue
        if not patch.inherited or patch.attribute in vars(owner):
            _hooks.append(Hook(owner, patch.attribute, patch.make))


def _loaded(owner: str) -> Any:
    """The module or class; None if its package is not loaded: nobody's is imported for it."""
    module, _, name = owner.partition(":")
    package = module.partition(".")[0]
    if package not in sys.modules and package not in sys.stdlib_module_names:
        return None
    # Loaded now: the program may import this module of it after the call.
    found = import_module(module)
    return getattr(found, name) if name else found


def _start(hook: Hook) -> Callable[..., None]:
    """`Thread.start`: what the thread runs is bound to the context when it is started."""
    original = hook.original

    @functools.wraps(original)
    def start(self: threading.Thread) -> None:
        prepared = contained(spawning, _prepare, self, sys._getframe(1)) if hook.active else None
        try:
            original(self)
        except BaseException:
            if prepared is not None:
                prepared.remove()
            raise

    return start


def _prepare(thread: threading.Thread, starter: FrameType) -> "_Run | None":
    state = vars(thread)
    if _is_left_alone(state):
        return None
    frame = caller(starter) or starter
    if _mode == CARRY and not is_library(frame.f_code.co_filename):
        return _Run(thread, copy_context())
    if frame.f_globals.get("__name__") == _POOLS:
        return None  # a pool's thread: each of its jobs came from somewhere else
    handed = state.get("_target") or state.get("function") or type(thread).run
    came_from = origin(frame, handed)
    return None if came_from is None else _Run(thread, None, came_from)


def _is_left_alone(state: dict[str, Any]) -> bool:
    """Whether a thread of this state has a context already, Python's or one of ours; or cannot be
    started any more: it has been, or is of a subclass that forgot ``super().__init__()``."""
    started = state.get("_started")
    if _INHERITS or started is None or started.is_set() or state.get("_context") is not None:
        return True
    if isinstance(state.get("run"), _Run):
        return True  # by our method of another class
    # Timer keeps its function elsewhere.
    return is_bound(state.get("_target") or state.get("function"))


class _Run:
    """A thread's ``run`` in a context. On the thread itself, since ``run`` is what subclasses
    override; it takes itself off before it runs."""

    __slots__ = ("_before", "_came_from", "_context", "_run", "_thread")

    def __init__(
        self, thread: Any, context: Context | None, came_from: Origin | None = None
    ) -> None:
        self._thread = thread
        self._context = context
        self._came_from = came_from
        # On the instance, too, if somebody else does as we do.
        self._before = vars(thread).get("run")
        self._run = thread.run
        thread.run = self

    def __call__(self, *_: Any) -> None:
        # Sentry's calls what it wraps with the thread.
        run, context, came_from = self._run, self._context, self._came_from
        self.remove()
        if context is not None:
            ran(context, run)
            return
        SPAWNED.set(came_from)
        try:
            run()
        except Exception as error:
            explain.passing(error, base.complaints)
            raise

    def remove(self) -> None:
        if self._before is None:
            vars(self._thread).pop("run", None)
        else:
            self._thread.run = self._before
        self._thread = self._context = self._run = self._before = None


def _submit(hook: Hook) -> Callable[..., Any]:
    """`ThreadPoolExecutor.submit`: each job is bound to the context it was submitted in."""
    original = hook.original

    @functools.wraps(original)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not hook.active:
            return original(self, fn, *args, **kwargs)
        job = fn
        if spawning.working:
            try:
                job = _job(fn, sys._getframe(1))
            except Exception as error:
                spawning.failed(error)
        if _INHERITS and _mode == CARRY:
            # The pool's thread, if one is started for it, must not get this context.
            return Context().run(original, self, job, *args, **kwargs)
        return original(self, job, *args, **kwargs)

    return submit


def _job(fn: Any, frame: FrameType) -> Any:
    if is_bound(fn):
        return fn
    if _mode == CARRY:
        return functools.partial(ran, copy_context(), fn)
    came_from = origin(caller(frame) or frame, fn)
    return fn if came_from is None else functools.partial(_watched_job, came_from, fn)


def _watched_job(came_from: Origin, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    before = leftover.current()
    try:
        return _watched(came_from, fn, *args, **kwargs)
    finally:
        leftover.judge(before, fn, came_from)


def _watched(came_from: Origin, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    token = SPAWNED.set(came_from)
    try:
        return fn(*args, **kwargs)
    except Exception as error:
        explain.passing(error, base.complaints)
        raise
    finally:
        SPAWNED.reset(token)


def _bind_first(hook: Hook) -> Callable[..., Any]:
    """What takes a function to run in a greenlet: the function is bound. Not by ``gr_context``,
    which a greenlet keeps as long as somebody keeps the greenlet."""
    original = hook.original
    # After the pool, or after the seconds.
    at = 1 if isinstance(hook.owner, type) or hook.name == "spawn_later" else 0

    @functools.wraps(original)
    def spawn(*args: Any, **kwargs: Any) -> Any:
        if hook.active and len(args) > at and not is_bound(args[at]):
            bound = contained(spawning, _greenlet_run, args[at])
            args = (*args[:at], bound or args[at], *args[at + 1 :])
        return original(*args, **kwargs)

    return spawn


def _greenlet_run(fn: Any) -> Any:
    frame = caller()
    if frame is None or not callable(fn):
        return fn
    if _mode == CARRY and not is_library(frame.f_code.co_filename):
        return wrap(fn)
    came_from = origin(frame, fn)
    return fn if came_from is None else functools.partial(_watched, came_from, fn)


_GREENLETS: Final = (
    ("gevent", ("spawn", "spawn_later", "spawn_raw")),
    ("gevent.pool:Group", ("spawn",)),
    (
        "gevent.pool:GroupMappingMixin",
        ("apply", "apply_async", "imap", "imap_unordered", "map", "map_async"),
    ),
    ("gevent.threadpool:ThreadPool", ("spawn",)),
    ("gevent.threadpool:ThreadPoolExecutor", ("submit",)),
)
_TABLE: Final = (
    _Patch("threading:Thread", "start", _start),
    _Patch("threading:Timer", "start", _start, inherited=True),
    _Patch(f"{_POOLS}:ThreadPoolExecutor", "submit", _submit),
    *(_Patch(owner, name, _bind_first) for owner, names in _GREENLETS for name in names),
)

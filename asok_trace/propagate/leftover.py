"""What a pool's job leaves behind in the pool's thread, where the next job would find it."""

import functools
import inspect
from typing import Any, Final

from asok_trace.core import settings
from asok_trace.core.errors import Piece, contained
from asok_trace.detect import leaks
from asok_trace.detect.origin import Origin
from asok_trace.frameworks import base

looking: Final = Piece("looking at what a job leaves in its thread")


def current() -> list[Any] | None:
    """Return the current request of each loaded framework; None where nothing is looked for."""
    return contained(looking, _current) if settings.watching else None


def _current() -> list[Any]:
    return [framework.current() for framework in base.loaded()]


def judge(before: list[Any] | None, fn: Any, came_from: Origin) -> None:
    """Report a request that ``fn`` has made current, and left so: ``before`` is what `current`
    returned when it began. Never raises an Exception."""
    if before is not None:
        contained(looking, _judge, before, fn, came_from)


def _judge(before: list[Any], fn: Any, came_from: Origin) -> None:
    after = _current()
    # A framework that was loaded meanwhile has its place somewhere in between.
    if all(request is None or any(request is one for one in before) for request in after):
        return
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    code = getattr(fn, "__code__", None)
    if code is not None:
        leaks.left_in_thread(code, getattr(fn, "__module__", "?"), came_from)

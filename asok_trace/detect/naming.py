"""A holder in words: what it is, where it stands, what to write instead."""

import ast
import linecache
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from contextvars import Context
from functools import lru_cache
from itertools import pairwise
from types import FrameType, FunctionType, MemberDescriptorType
from typing import Any, Final, NamedTuple

from asok_trace.core import text
from asok_trace.core.callsite import is_library, module, module_of, relative, short, where
from asok_trace.detect.holders import (
    APPLICATION,
    CLASS,
    GLOBAL,
    TASK,
    THREAD,
    Found,
    Work,
    stacks,
    work,
)

_STEPS: Final = 4  # from a holder to what it holds; further ones are not told
_DEPTH: Final = 100  # of one coroutine awaiting another

_QUEUE: Final = "a queue"
_CALLBACK: Final = "a done-callback"
_RESULT: Final = "the result of a future"
_DONE: Final = "the context of a task that is done"
_CONTEXT: Final = "a copied context"

_FIXES: Final = {
    _QUEUE: "put what the consumer needs, asok_trace.to_carrier() and a primary key, instead of "
    "the request",
    _CALLBACK: "add_done_callback(callback, context=contextvars.Context()), and give the callback "
    "what it needs of the request instead of the request",
    _RESULT: "let the work return what is needed of the request, not the request; or drop the "
    "future when it is done",
    _DONE: "drop the task when it is done; or asyncio.create_task(..., "
    "context=contextvars.Context())",
    _CONTEXT: "keep asok_trace.wrap(work, outlive=True), which holds text alone, instead of a "
    "copy of the context",
    "": "keep what is needed of the request (its id, the user's key) instead of the request",
}
_CONTAINERS: Final = (list, tuple, set, frozenset, deque)


class Holder(NamedTuple):
    """What keeps an object alive: text alone."""

    what: str
    """``the global shop.cache.RECENT[...]``."""
    callsite: str | None
    """Where it stands, as ``file:line function``; None if that is not known."""
    key: str
    """``shop.cache.RECENT``."""
    fix: str
    thread: str | None = None
    task: str | None = None
    quietly: bool = False
    """Whether it is a library's own: nobody could write anything else instead."""


def named(found: Found) -> Holder:
    """Put ``found`` into words."""
    first = found.path[0]
    if found.kind == TASK:
        return _task(first)
    if found.kind == THREAD:
        return _thread(found)
    if found.kind in (GLOBAL, CLASS, APPLICATION):
        return (_variable(found.path) if found.kind == APPLICATION else None) or _member(found)
    return _timer(
        "the event loop",
        work(first._callback, first._args),
        "loop.call_later(delay, asok_trace.wrap({}, outlive=True), context=contextvars.Context())",
    )


def _timer(who: str, given: Work | None, fix: str, thread: str | None = None) -> Holder:
    name = "?" if given is None else short(given.code.co_qualname)
    return Holder(
        f"{who}, which is to call {name}(),",
        None if given is None else where(given.code, given.code.co_firstlineno),
        "?" if given is None else f"{given.module}.{name}",
        fix.format(name),
        thread=thread,
    )


def _member(found: Found) -> Holder:
    first, within, steps = found.path[0], None, _steps(found.path)
    member = steps[0].strip(".") if steps else ""
    if found.kind == GLOBAL:
        file = first.get("__file__")
        what, owner = "the global", module_of(first, file)
    elif found.kind == CLASS:
        within, file = first.__name__, _file(first.__module__)
        what, owner = "the class attribute", f"{first.__module__}.{short(first.__qualname__)}"
    else:
        file = None
        what, owner = "the application's", type(first).__name__
    through = _through(found.path)
    return Holder(
        f"{what} {owner}{''.join(steps)}{_by(through)}",
        _assigned(file, member, within) if isinstance(file, str) else None,
        f"{owner}.{member}" if member else owner,
        _FIXES[through],
    )


def _variable(path: list[Any]) -> Holder | None:
    """Of the function around a view, which says more than that the application has the view."""
    for at, one in enumerate(path[:-1]):
        if type(one) is FunctionType and one.__closure__ is path[at + 1]:
            steps, name = _steps(path[at:]), short(one.__qualname__)
            if not steps or is_library(one.__code__.co_filename):
                return None
            through = _through(path[at:])
            return Holder(
                f"the variable {''.join(steps).strip('.')} of {name}(){_by(through)}",
                where(one.__code__, one.__code__.co_firstlineno),
                f"{module_of(one.__globals__, one.__code__.co_filename)}.{name}{steps[0]}",
                _FIXES[through],
            )
    return None


def _by(through: str) -> str:
    return f", by {through}," if through else ""


def _task(task: Any) -> Holder:
    frames = list(_suspended(task.get_coro()))
    place = next((frame for frame in reversed(frames) if _is_program(frame)), None)
    shown = place or frames[0]
    runs = short(frames[0].f_code.co_qualname)
    called = text.clean(f"{task.get_name()} {runs}()", text.NAME_LIMIT)
    return Holder(
        f"the task {called}, which waits,",
        where(shown.f_code, shown.f_lineno or shown.f_code.co_firstlineno),
        _key(frames[0]),
        f"asyncio.create_task(asok_trace.wrap({runs}, outlive=True)(...), "
        f"context=contextvars.Context()), and give it what it needs of the request",
        task=called,
        quietly=place is None,
    )


def _suspended(coroutine: Any) -> Iterator[FrameType]:
    """The frames in which ``coroutine`` is suspended, the innermost last."""
    for _ in range(_DEPTH):
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return
        yield frame
        coroutine = coroutine.cr_await


def _thread(found: Found) -> Holder:
    thread = next((one for one in threading.enumerate() if one.ident == found.thread), None)
    name = "?" if thread is None else text.clean(thread.name, text.NAME_LIMIT)
    frames = [frame for ident, frame in stacks() if ident == found.thread and _is_program(frame)]
    if isinstance(thread, threading.Timer) and not frames:
        return _timer(
            f"the timer {name}",
            work(thread.function, thread.args),
            "threading.Timer(interval, asok_trace.wrap({}, outlive=True)), and give it what it "
            "needs of the request",
            thread=name,
        )
    if not frames:
        return Holder(f"the thread {name}", None, name, _FIXES[""], thread=name, quietly=True)
    inner, outer = frames[0], frames[-1]
    runs = short(outer.f_code.co_qualname)
    return Holder(
        f"the thread {name}, which runs {runs}(),",
        where(inner.f_code, inner.f_lineno or inner.f_code.co_firstlineno),
        _key(outer),
        f"start it with asok_trace.wrap({runs}, outlive=True), and give it what it needs of the "
        f"request; or with asok_trace.detach({runs}) if it serves all requests",
        thread=name,
    )


def _is_program(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    ours = isinstance(name, str) and name.startswith("asok_trace.")
    return not ours and not is_library(frame.f_code.co_filename)


def _key(frame: FrameType) -> str:
    return f"{module(frame)}.{short(frame.f_code.co_qualname)}"


# --- the way from a holder to what it holds -----------------------------------------------------


def _through(path: list[Any]) -> str:
    """What is on the way that says more than where it begins."""
    asyncio, futures = sys.modules.get("asyncio"), sys.modules.get("concurrent.futures")
    queues = (queue.Queue, queue.SimpleQueue, *((asyncio.Queue,) if asyncio else ()))
    promises = tuple(module.Future for module in (asyncio, futures) if module is not None)
    found = set()
    for at, one in enumerate(path[:-1]):
        if issubclass(type(one), queues):
            found.add(_QUEUE)
        elif issubclass(type(one), promises):
            ends = {id(getattr(one, "_result", None)), id(getattr(one, "_exception", None))}
            below = {id(held) for held in path[at + 1 :]}
            found.add(_RESULT if ends & below else _DONE if _is_done(one) else _CALLBACK)
        elif type(one) is Context:
            found.add(_CONTEXT)
    return next((what for what in _FIXES if what in found), "")


def _is_done(future: Any) -> bool:
    """Whether ``future`` is a task that is done: it has no callbacks any more, but its context."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and issubclass(type(future), asyncio.Task) and future.done()


def _steps(path: list[Any]) -> list[str]:
    """Such as ``.RECENT``, ``[...]``. Without keys and indices: these are others for each request,
    and may be somebody's secrets."""
    steps: list[str] = []
    owner: Any = None
    for above, below in pairwise(path):
        if len(steps) == _STEPS or type(above) is Context:
            break
        step = _step(owner, above, below)
        if step and steps[-1:] != [step]:
            steps.append(step)
        owner = above
    return steps


def _step(owner: Any, above: Any, below: Any) -> str:
    """How ``above``, which is of ``owner``, holds ``below``."""
    cls = type(above)
    if cls is dict:
        has_members = owner is None or issubclass(type(owner), type) or _dict_of(owner) is above
        return _name(above, below) if has_members else "[...]"
    if type(owner) is FunctionType and owner.__closure__ is above:
        return _name(dict(zip(owner.__code__.co_freevars, above or (), strict=False)), below)
    if issubclass(cls, (dict, *_CONTAINERS)) and _dict_of(above) is not below:
        return "[...]"
    return _name(_members(above), below)


def _name(members: dict[Any, Any], value: Any) -> str:
    found = next((name for name, one in list(members.items()) if one is value), None)
    return f".{text.clean(found, text.NAME_LIMIT)}" if isinstance(found, str) else ""


def _dict_of(one: Any) -> Any:
    # Not by getattr, which runs the code of a proxy.
    with suppress(Exception):
        return object.__getattribute__(one, "__dict__")
    return None


def _members(one: Any) -> dict[Any, Any]:
    """The attributes of ``one``: in its dict, and in slots."""
    members = _dict_of(one)
    members = dict(members) if type(members) is dict else {}
    for cls in type(one).__mro__:
        for name, member in list(vars(cls).items()):
            if type(member) is MemberDescriptorType and not name.startswith("__"):
                with suppress(AttributeError):
                    members[name] = member.__get__(one)
    return members


def _file(module: str) -> str | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return file if isinstance(file, str) else None


@lru_cache(maxsize=256)
def _assigned(file: str | None, name: str, within: str | None) -> str | None:
    """Where ``name`` first gets a value in ``file``, or in the class ``within`` there."""
    if file is None:
        return None
    line = 1
    with suppress(SyntaxError, ValueError, RecursionError):
        body: list[ast.stmt] = ast.parse("".join(linecache.getlines(file))).body
        for statement in ast.walk(ast.Module(body, [])):
            if isinstance(statement, ast.ClassDef) and statement.name == within:
                body, line = statement.body, statement.lineno
                break
        line = next((found.lineno for found in body if _assigns(found, name)), line)
    return f"{relative(file)}:{line} {f'{within}.' if within else ''}{name}"


def _assigns(statement: ast.stmt, name: str) -> bool:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return statement.name == name
    if isinstance(statement, ast.Assign):
        targets = [node for target in statement.targets for node in ast.walk(target)]
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return False
    return any(isinstance(node, ast.Name) and node.id == name for node in targets)

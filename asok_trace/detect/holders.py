"""Who holds an object: a search through the heap, from the object up to something with a name.

`gc.get_referrers` looks at the whole heap each time it is called, so each level of the search is
asked for in few calls; how much of it in one, is decided by how long the calls before have taken.
"""

import gc
import sys
import threading
import time
from contextlib import suppress
from contextvars import Context
from functools import lru_cache, partial
from inspect import CO_OPTIMIZED
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from asok_trace.core.callsite import is_library

GLOBAL: Final = "global"
CLASS: Final = "class"
APPLICATION: Final = "application"
TASK: Final = "task"
TIMER: Final = "timer"
THREAD: Final = "thread"

SECONDS: Final = 1.0
OBJECTS: Final = 20_000

# Test tools, test clients and debuggers hold things for somebody to look at.
_TOOLS: Final = ("_pytest", "pluggy", "unittest", "doctest", "bdb", "pdb", "IPython")
_TOOLS_WITHIN: Final = (
    "werkzeug.test",
    "werkzeug.debug",
    "flask.testing",
    "quart.testing",
    "asok.testing",
)
# So does a prompt, in globals of these; and what is ours is not the program's to mend.
_NOBODYS: Final = ("sys", "builtins", "gc", "asok_trace")

# Who runs what a request was allowed to leave to be done after it.
_AFTERWARDS: Final = ("asok.background", "asok.mail", "quart.app")

_SEARCHING: Final = ("asok_trace.detect.", "asok_trace.core.findings")

_FIRST: Final = 4
_MOST: Final = 256


class Found(NamedTuple):
    """The holder, and how it holds. Objects, to be put into words at once and let go."""

    kind: str
    path: list[Any]
    """From the holder to what it holds; of a thread, from what its function has in a variable."""
    thread: int | None = None
    """The ident of the thread."""


class NotFound(NamedTuple):
    """There is nobody to name."""

    in_time: bool
    """False if there was more to be searched than time for it."""
    by_caller: bool
    """Whether a function has it in a variable that may."""


def holder(
    held: Any,
    *,
    seconds: float = SECONDS,
    objects: int = OBJECTS,
    app: object = None,
    served_in: int | None = None,
) -> Found | NotFound:
    """Search for what keeps ``held`` alive; return the nearest that has a name.

    Left out is what test tools hold, and work that was meant to go on afterwards. Not seen is what
    was frozen (`gc.freeze`), and what C or an expression that is being evaluated holds.

    Args:
        seconds: of CPU time that the search may take. The collector's one call, which it cannot be
            kept from, takes 0.03 on a heap of a million objects.
        objects: how many may be looked at.
        app: the application: it is a holder, whether it has a name or not.
        served_in: the ident of the thread in which ``held`` was made. Its functions may hold it
            in a variable, as the caller of a test client does.
    """
    search = _Search(app, served_in)
    try:
        return search.run(held, time.thread_time() + seconds, objects)
    finally:
        search.forget()


class _Search:
    """Breadth first. Objects are kept in one dict alone, or the search would meet itself."""

    def __init__(self, app: object, served_in: int | None) -> None:
        self._app = app
        self._objects: dict[int, Any] = {}
        # Of an object that was met, the one below it.
        self._holds: dict[int, int] = {}
        # What is held by something that may: whatever else has it, a future that is waited for,
        # has it for the same reason.
        self._explained: set[int] = set()
        self._modules = {id(vars(m)): name for name, m in list(sys.modules.items()) if _has_vars(m)}
        # What a running function has in a variable: the collector does not look in there.
        self._in_threads: dict[int, int] = {}
        self._callers: set[int] = set()
        for thread, frame in stacks():
            if thread == served_in:
                self._callers.update(_locals(frame))
            else:
                self._in_threads.update(dict.fromkeys(_locals(frame), thread))
        self._own = {id(self), id(vars(self)), id(self._objects)}

    def forget(self) -> None:
        """Let everything go."""
        self._objects.clear()

    def run(self, held: Any, until: float, limit: int) -> Found | NotFound:
        self._objects[id(held)] = held
        found = self._in_thread(id(held))
        if found is not None:
            return found
        level, at_once, spent = [id(held)], _FIRST, 0.0
        while level:
            above: list[int] = []
            while level:
                now = time.thread_time()
                if len(self._objects) > limit or now + spent > until:
                    return self._nobody(in_time=False)
                part, level = level[:at_once], level[at_once:]
                found = self._look_above(part, above)
                if found is not None:
                    return found
                spent = time.thread_time() - now
                rate = len(part) / (spent or 1e-9)
                at_once = max(1, min(_MOST, int(rate * (until - now - spent) / 2)))
            level = [mark for mark in above if self._holds[mark] not in self._explained]
        return self._nobody(in_time=True)

    def _nobody(self, *, in_time: bool) -> NotFound:
        return NotFound(in_time, not self._callers.isdisjoint(self._objects))

    def _look_above(self, part: list[int], above: list[int]) -> Found | None:
        arguments = tuple(map(self._objects.__getitem__, part))
        referrers = gc.get_referrers(*arguments)
        below = {*part}
        while referrers:
            one = referrers.pop()
            mark = id(one)
            if mark in self._objects or mark in self._own or is_tool(type(one)):
                continue
            if one is arguments:  # from Python 3.13 on
                continue
            if type(one) is FrameType and _is_ours(one):
                continue
            kind = self._kind(one)
            held = next((id(held) for held in gc.get_referents(one) if id(held) in below), 0)
            if kind == "":
                self._explained.add(held)
                continue
            self._objects[mark] = one
            self._holds[mark] = held
            if kind == APPLICATION and self._is_callers(held):
                continue
            if kind is not None:
                return Found(kind, self._path(mark), getattr(one, "ident", None))
            found = self._in_thread(mark)
            if found is not None:
                return found
            above.append(mark)
        return None

    def _kind(self, one: Any) -> str | None:
        """The kind of holder that ``one`` is; None if it is held itself, by something that is one;
        empty if it may hold what it likes."""
        # By its type: asking the object itself would run the code of a proxy.
        cls = type(one)
        if one is self._app:
            return APPLICATION
        if cls is dict:
            module = self._modules.get(id(one))
            if module is None:
                # Of one that cannot be imported by its name, such as a page of Asok's.
                return GLOBAL if "__spec__" in one and "__builtins__" in one else None
            return "" if module.partition(".")[0] in _NOBODYS else GLOBAL
        if issubclass(cls, type):
            return CLASS
        if issubclass(cls, threading.Thread):
            if not one.is_alive():
                return None
            return "" if goes_on(one.ident) else THREAD
        asyncio = sys.modules.get("asyncio")
        if asyncio is None:
            return None
        if issubclass(cls, asyncio.Task):
            return None if one.done() else _kind_of_task(one)
        if issubclass(cls, asyncio.Handle):
            # A server's timers and sockets have the context of the request which set them; so do
            # cancelled ones, until their time has come.
            given = work(one._callback, one._args)
            return "" if given is None or is_library(given.code.co_filename) else TIMER
        return None

    def _in_thread(self, mark: int) -> Found | None:
        thread = self._in_threads.get(mark)
        if thread is None:
            return None
        if goes_on(thread):
            self._explained.add(mark)
            return None
        return Found(THREAD, self._path(mark), thread)

    def _is_callers(self, mark: int) -> bool:
        """Whether a caller's variable is on the way: a test's list, to which its view adds."""
        while mark in self._objects:
            if mark in self._callers:
                return True
            mark = self._holds.get(mark, 0)
        return False

    def _path(self, mark: int) -> list[Any]:
        path = []
        while mark in self._objects:
            path.append(self._objects[mark])
            mark = self._holds.get(mark, 0)
        return path


def stacks() -> list[tuple[int, FrameType]]:
    """The functions that run, of each thread the innermost first; but for those that search."""
    tops = sys._current_frames()
    # This one among them: a frame that holds itself would hold what is searched for, until a
    # collection. Found by its frame: for gevent each greenlet has an ident of its own.
    own = sys._getframe()
    [here] = [thread for thread, top in tops.items() if top is own]
    del own
    tops[here] = sys._getframe(1)
    found = []
    for thread, top in tops.items():
        frame: FrameType | None = top
        while frame is not None:
            if not _is_ours(frame):
                found.append((thread, frame))
            frame = frame.f_back
    tops.clear()
    del top
    return found


class Work(NamedTuple):
    """What somebody is to call."""

    code: CodeType
    module: str


def work(function: Any, args: Any = ()) -> Work | None:
    """Return what ``function(*args)`` runs of Python's; of ``context.run``, what that runs."""
    while True:
        if type(function) is partial:
            function, args = function.func, (*function.args, *(args or ()))
        elif type(getattr(function, "__self__", None)) is Context and args:
            function, args = args[0], args[1:]
        else:
            break
    function = getattr(function, "__wrapped__", function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    return Work(code, str(getattr(function, "__module__", "?")))


def goes_on(thread: int | None) -> bool:
    """Whether ``thread`` does what a framework was given to be done after the response."""
    return any(
        one == thread and frame.f_globals.get("__name__") in _AFTERWARDS for one, frame in stacks()
    )


def _kind_of_task(task: Any) -> str:
    frame = getattr(task.get_coro(), "cr_frame", None)
    if frame is None or frame.f_globals.get("__name__") in _AFTERWARDS:
        return ""
    with suppress(RuntimeError):  # no loop runs here
        if task is sys.modules["asyncio"].current_task():
            return ""  # a test, say, that asks for the findings
    return TASK


def _locals(frame: FrameType) -> list[int]:
    """The id() of each local variable of ``frame``; those of a module are its globals."""
    code = frame.f_code
    if not code.co_flags & CO_OPTIMIZED:
        return []
    values = frame.f_locals
    found = [id(value) for value in values.values()]
    # Before Python 3.13 that is a copy, which the frame keeps as long as it runs: it would hold
    # what the function lets go. Unless somebody else has asked for it, too.
    if type(values) is dict and sys.getrefcount(values) <= 3:
        for name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
            values.pop(name, None)
    return found


def _is_ours(frame: FrameType) -> bool:
    """Whether ``frame`` is part of the search, which holds what it searches for."""
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_SEARCHING)


def _has_vars(module: object) -> bool:
    with suppress(TypeError):
        vars(module)
        return True
    return False


@lru_cache(maxsize=4096)
def _is_tools(module: str) -> bool:
    return module.partition(".")[0] in _TOOLS or any(
        module == name or module.startswith(name + ".") for name in _TOOLS_WITHIN
    )


def is_tool(cls: type) -> bool:
    """Whether ``cls``, or what it inherits from, is a test tool's or a debugger's."""
    return any(
        isinstance(module, str) and _is_tools(module)
        for module in (vars(base).get("__module__") for base in cls.__mro__)
    )

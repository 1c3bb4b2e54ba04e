"""What the tests of threads share: an object whose end can be seen, and code of a library."""

import gc
import importlib
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import asok_trace

SECONDS = 30.0
"""How long to wait for what has to come."""


class Held:
    """What a request holds; a weak reference tells when it has been freed."""


HELD: ContextVar[Held | None] = ContextVar("held", default=None)


def hold() -> "weakref.ref[Held]":
    """Put a new object in this context alone."""
    held = Held()
    HELD.set(held)
    return weakref.ref(held)


def freed(held: "weakref.ref[Held]") -> bool:
    """Whether nobody keeps it."""
    gc.collect()
    return held() is None


def current_id() -> str | None:
    """The request id of the open scope, if there is one."""
    scope = asok_trace.current()
    return None if scope is None else scope.request_id


def finish(thread: threading.Thread) -> None:
    """Wait for the end of ``thread``."""
    thread.join(SECONDS)
    assert not thread.is_alive()


def seen_in_thread(make: Callable[[Callable[[], None]], threading.Thread]) -> str | None:
    """The id in the thread that ``make`` makes of a function; it is started here."""
    seen: list[str | None] = []
    thread = make(lambda: seen.append(current_id()))
    thread.start()
    finish(thread)
    [found] = seen
    return found


LIBRARY = """
import threading

def start(target):
    thread = threading.Thread(target=target)
    thread.start()
    return thread

def carry(asok_trace):
    return asok_trace.propagate_threads()
"""


def library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str = LIBRARY
) -> ModuleType:
    """Import ``source`` as the installed module ``name``."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def run_and_wait(start: Callable[..., threading.Thread], target: Callable[[], Any]) -> None:
    """Start ``target`` with a function that returns the thread, and wait for its end."""
    finish(start(target))

"""What every test starts from: nothing configured, nothing active, every piece working."""

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from asok_trace.core import errors, findings, ignoring, settings, telling
from asok_trace.core.scope import ACTIVE, SERVED
from asok_trace.detect import holders, retained
from asok_trace.frameworks import base
from asok_trace.frameworks.base import Entry
from asok_trace.gateway import wsgi
from asok_trace.propagate import threads
from asok_trace.stamp import structlog as stamp_structlog

# Asok refuses to start without one.
os.environ.setdefault("SECRET_KEY", "a-key-for-tests-that-is-long-enough-0123456789")


def missing(path: Path) -> bool:
    """Whether the module's docstring ends in "needs: a, b" and one of these is not installed."""
    docstring = path.read_text(encoding="utf-8").partition('"""\n\n')[0]
    _, _, needed = docstring.partition("needs: ")
    names = needed.partition("\n")[0].rstrip(".").split(", ") if needed else []
    return not all(map(installed, names))


def installed(name: str) -> bool:
    """Whether there is such a module, in a package or not."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


# The core install has no framework, no server and no queue; then only what needs none is collected.
collect_ignore = [
    str(path.relative_to(Path(__file__).parent))
    for path in Path(__file__).parent.rglob("test_*.py")
    if missing(path)
]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed, a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def take_back_shared_hooks() -> None:
    """An application that a test instruments and drops leaves its framework's modules hooked."""
    for framework in base._loaded.values():
        constants = vars(sys.modules[type(framework).__module__]).values()
        entries = [e for found in constants if isinstance(found, tuple) for e in found]
        for owner in {e.owner for e in entries if isinstance(e, Entry) and e.owner is not None}:
            # Not to be imported for it.
            module, _, name = owner.partition(":")
            hooked = sys.modules.get(module)
            hooked = getattr(hooked, name, None) if name else hooked
            for shared in getattr(hooked, "__dict__", {}).get("_asok_trace", {}).values():
                shared.hook.undo()
            if "_asok_trace" in getattr(hooked, "__dict__", ()):
                del hooked._asok_trace


@pytest.fixture(autouse=True)
def time_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heap of a test run is large, and the machine may be slow."""
    monkeypatch.setattr(holders, "holder", functools.partial(holders.holder, seconds=30))
    monkeypatch.setattr(retained, "SECONDS", 60)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Nothing one test leaves behind reaches the next."""
    wsgi._dropped.clear()
    findings.clear()
    retained.forget()
    yield
    ACTIVE.set(None)
    SERVED.set(None)
    take_back_shared_hooks()
    threads._wishes.clear()
    threads._apply()
    settings._wanted.clear()
    settings.set_default(settings.Settings())
    findings.clear()
    ignoring._rules.clear()
    telling._listeners.clear()
    structlog.reset_defaults()
    stamp_structlog._may_be_last, stamp_structlog._plain_chain = False, None
    structlog.contextvars.clear_contextvars()
    for piece in errors.PIECES:
        piece.working = True
    logging.getLogger("asok_trace").handlers.clear()

"""What the pytest plugin does once it is asked to: it watches, and judges each test by its own.

Loaded by `asok_trace.tools.pytest_plugin`, and only then.
"""

import gc
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Generator
from typing import Any, Final

import pytest

from asok_trace import config as configuration
from asok_trace.core import findings, ignoring, names, settings
from asok_trace.core.errors import ConfigError, LeakWarning, OrphanWarning
from asok_trace.core.finding import BLEED, ORPHAN, OUTSIDE, UNCLOSED, Finding
from asok_trace.core.scope import ACTIVE, SERVED
from asok_trace.core.settings import OFF, STRICT
from asok_trace.detect import retained
from asok_trace.frameworks import base
from asok_trace.frameworks.base import Framework
from asok_trace.propagate.threads import watch_threads
from asok_trace.tools import pytest_summary as summary
from asok_trace.tools.pytest_ledger import Ledger, Owner

_GONE: Final = object()
_PAUSE: Final = 0.01
"""Seconds before the second look at what may be about to end; each further pause is twice that."""


class Found:
    """The fixture ``asok_trace_findings``."""

    def __init__(self, watch: "Watch") -> None:
        self._watch = watch

    def __call__(self, *, outside: bool = False) -> list[Finding]:
        """Return what was found in this test so far, in the order in which it was.

        Args:
            outside: with what ran with no request behind it, too.
        """
        findings.findings()  # looks once more
        found = self._watch.test.findings()
        return [finding for finding in found if outside or finding.slug != OUTSIDE]

    def clear(self) -> None:
        """Forget it: it was expected, and does not fail the test."""
        findings.settle()
        self._watch.test.forget()


class Watch:
    """Watches until `stop`; its hooks are called if it is one of pytest's plugins."""

    def __init__(self, config: pytest.Config, mode: str) -> None:
        self._config = config
        self._mode = mode
        self._undos: list[Callable[[], None]] = []
        self._ledger = Ledger(fresh=mode != OFF)
        self.test = self._ledger.between
        self._failed = False
        # What the workers of pytest-xdist have found.
        self._rows: list[summary.Row] = []
        # What the fixtures of several tests have put in place: id() of requests, and variables.
        self._kept_requests: set[int] = set()
        self._kept_variables: dict[str, Any] = {}
        try:
            self._start()
        except BaseException as error:
            self.stop()
            if isinstance(error, ConfigError):
                raise pytest.UsageError(str(error)) from error
            raise

    def _start(self) -> None:
        asked = {"level": STRICT, "grace": self._config.getini("asok_trace_grace")}
        before = settings.default()
        ours = configuration.resolve(asked)
        settings.set_default(ours)
        self._undos.append(
            lambda: settings.set_default(before) if settings.default() is ours else None
        )
        self._undos.append(settings.want(STRICT))
        self._undos.append(watch_threads().undo)
        # For tests that take the process-wide settings back, and for other processes.
        for name, value in asked.items():
            self._set_variable(names.ENVIRONMENT_PREFIX + name.upper(), value)
        for key in self._config.getini("asok_trace_ignore"):
            self._undos.append(ignoring.ignore(key).undo)
        self._undos.append(self._ledger.open())

    def _set_variable(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value

        def undo() -> None:
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before

        self._undos.append(undo)

    def stop(self) -> None:
        """Leave everything as it was."""
        while self._undos:
            self._undos.pop()()

    # Tests, and what they share

    def begin(self, name: str) -> None:
        """From now on it is the test ``name`` that runs."""
        self.test = self._ledger.begin(name)
        self._failed = False
        self._keep()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin a test."""
        self.begin(item.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Judge what it did. What it leaves is judged when its fixtures are gone."""
        try:
            result = yield
        except BaseException:
            self._failed = True
            self._judge(item, "call", failed=True)
            raise
        self._judge(item, "call", failed=False)
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Judge what it leaves, and put that away."""
        try:
            try:
                result = yield
            except BaseException:
                self._judge(item, "teardown", failed=True)
                raise
            self._look_at_what_is_left(item)
            findings.findings()  # looks once more
            if self._failed:  # the traceback holds what it has at hand
                retained.forget()
            else:
                self._wait_for_what_ends()
            self._judge(item, "teardown", failed=False)
            return result
        finally:
            self._put_away()
            self._ledger.turn_to(self._ledger.between)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """What a fixture of several tests does, from its beginning to its end, is none's."""
        if fixturedef.scope == "function":
            return (yield)
        before, owner = self._ledger.current, Owner(f"fixture {fixturedef.argname}", is_test=False)
        self._ledger.turn_to(owner)
        try:
            return (yield)
        finally:
            # The last to be added is the first to be called.
            fixturedef.addfinalizer(lambda: self._ledger.turn_to(owner))
            self._ledger.turn_to(before)
            self._keep()

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Back to the test."""
        if fixturedef.scope != "function" and not self._ledger.current.is_test:
            self._ledger.turn_to(self.test)

    def _keep(self) -> None:
        self._kept_requests = {id(request) for _, request in _requests()}
        self._kept_variables = dict(_variables())

    def _look_at_what_is_left(self, item: pytest.Item) -> None:
        scope = ACTIVE.get()
        known = [one.request_id for one in self.test.findings() if one.slug == UNCLOSED]
        if (
            scope is not None
            and scope._open
            and self._ledger.is_of(scope, self.test)
            and scope._request_id not in known
        ):
            _add(
                item,
                UNCLOSED,
                f"the test left {scope!r} open",
                "open it in a with block; in a fixture, around the yield",
            )
        for framework, request in _requests():
            if id(request) not in self._kept_requests and not framework.preserved(request):
                _add(
                    item,
                    BLEED,
                    "the test left a request current, which the next one sees",
                    "push and pop a context in one with block; in a fixture, around the yield",
                )

    def _wait_for_what_ends(self) -> None:
        """Whatever keeps a request alive may be about to end: it has the time of grace for that,
        from now on."""
        if not retained.pending():
            return
        gc.collect()
        until = time.monotonic() + settings.default().grace
        pause = _PAUSE
        while retained.pending() and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, max(0.0, until - time.monotonic()))
        findings.findings()

    def _put_away(self) -> None:
        """Our own variables, and structlog's: what a framework has pushed is not ours to pop."""
        scope = ACTIVE.get()
        if scope is not None and (not scope._open or self._ledger.is_of(scope, self.test)):
            ACTIVE.set(None)
        SERVED.set(None)
        kept = self._kept_variables
        changed = [key for key, value in _variables().items() if kept.get(key, _GONE) is not value]
        if changed:
            variables = sys.modules["structlog.contextvars"]
            variables.unbind_contextvars(*changed)
            variables.bind_contextvars(**{key: kept[key] for key in changed if key in kept})

    # What comes of it

    def _judge(self, item: pytest.Item, when: str, *, failed: bool) -> None:
        """Warn of what is new, and fail the test for it; one that has failed says it as well."""
        __tracebackhide__ = True
        findings.settle()
        fatal = [finding for finding in self.test.to_judge() if self._fails(finding, item)]
        if not fatal:
            return
        text = "\n\n".join(map(str, fatal))
        if len(fatal) > 1:
            text = f"{summary.counted(len(fatal))}\n\n{text}"
        if failed:
            item.add_report_section(when, "asok_trace", text)
        else:
            pytest.fail(text, pytrace=False)

    def _fails(self, finding: Finding, item: pytest.Item) -> bool:
        """Warn of ``finding``; return whether it fails its test."""
        if finding.slug == OUTSIDE:
            return False
        category = OrphanWarning if finding.kind == ORPHAN else LeakWarning
        place = re.match(r"(.+):(\d+) ", finding.callsite)
        path, line = (place[1], int(place[2])) if place else (str(item.path), 1)

        def warn() -> None:
            module = finding.key.partition(":")[2]
            warnings.warn_explicit(str(finding), category, path, line, module, {})

        try:
            with warnings.catch_warnings(record=True) as shown:
                warn()
        except (OrphanWarning, LeakWarning):
            return True
        if self._mode == STRICT:
            return bool(shown)
        warn()
        return False

    # The end of the run

    def pytest_report_header(self) -> str:
        """Say that it is on."""
        return f"asok_trace: {self._mode}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist has ended, and hands over what it found."""
        self._rows += getattr(node, "workeroutput", {}).get("asok_trace", [])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Put together what was found; what came too late to fail its test fails the run."""
        findings.settle()
        self._rows += self._ledger.rows()
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["asok_trace"] = self._rows
            return
        too_late = any(row["after"] and row["finding"]["slug"] != OUTSIDE for row in self._rows)
        if too_late and self._mode == STRICT and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Sum up."""
        verbose = terminalreporter.verbosity > 0
        rows = [row for row in self._rows if verbose or row["finding"]["slug"] != OUTSIDE]
        summary.write(terminalreporter, rows, strict=self._mode == STRICT)


def _add(item: pytest.Item, slug: str, message: str, fix: str) -> None:
    path, line, name = item.location
    findings.add(
        slug,
        (None, 0),
        known_as=item.nodeid,
        message=message,
        callsite=f"{path}:{(line or 0) + 1} {name}",
        fix=fix,
        key=f"{slug}:{name}",
    )


def _requests() -> list[tuple[Framework, Any]]:
    """What is current now, of each framework that is loaded."""
    found = [(framework, framework.current()) for framework in base.loaded()]
    return [(framework, request) for framework, request in found if request is not None]


def _variables() -> dict[str, Any]:
    """What structlog's context variables hold now."""
    module = sys.modules.get("structlog.contextvars")
    return {} if module is None else module.get_contextvars()

"""Which test a finding belongs to: that in which its request began, whichever runs by now."""

import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from asok_trace.core import findings
from asok_trace.core.errors import Piece, contained
from asok_trace.core.finding import Finding
from asok_trace.core.findings import Site
from asok_trace.core.hooks import Hook
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect.origin import SPAWNED
from asok_trace.tools.pytest_summary import Row, row

noting: Final = Piece("noting which test a request or a finding belongs to")

_REQUESTS: Final = 10_000
"""Request ids that are known by their test; older ones are forgotten."""


class Owner:
    """A test, or a fixture that several share: what was found in it, and how often."""

    def __init__(self, name: str, *, is_test: bool) -> None:
        self.name = name
        self.is_test = is_test
        # Each place, with how often, and the request of the last time.
        self._found: dict[Site, tuple[int, str | None]] = {}
        self._judged: set[Site] = set()
        # Their keys, by which they are known where they show again after the test.
        self._keys: set[str] = set()

    def add(self, site: Site, request_id: str | None) -> None:
        """Note that something was found once more."""
        self._found[site] = (self._found.get(site, (0, None))[0] + 1, request_id)

    def findings(self) -> list[Finding]:
        """All of it."""
        return [self._finding(site) for site in list(self._found)]

    def to_judge(self) -> list[Finding]:
        """What was not returned here before."""
        new = [site for site in list(self._found) if site not in self._judged]
        self._judged.update(new)
        told = [self._finding(site) for site in new]
        self._keys.update(finding.key for finding in told)
        return told

    def forget(self) -> None:
        """Whoever asked has seen it."""
        self.to_judge()
        self._found.clear()

    def rows(self) -> list[Row]:
        """What is to be summed up."""
        return [
            row(one, self.name, after=self.is_test and one.key not in self._keys)
            for one in self.findings()
        ]

    def _finding(self, site: Site) -> Finding:
        count, request_id = self._found[site]
        return replace(site.finding(), count=count, request_id=request_id)


class Ledger:
    """Who runs now, and what was found of whom."""

    def __init__(self, *, fresh: bool) -> None:
        self.between = self.current = Owner("outside any test", is_test=False)
        # Whether each begins with nothing found.
        self._fresh = fresh
        # Those of which anything was found, in that order.
        self._owners: dict[Owner, None] = {}
        # Request id -> those in which a request had it.
        self._begun: dict[str, list[Owner]] = {}
        # Those that ran before the current test began.
        self._older: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def open(self) -> Callable[[], None]:
        """Begin to note; return how to end it."""
        hooks = [Hook(Scope, name, self._noting) for name in ("__init__", "rename")]
        findings.markers.append(self._mark)

        def close() -> None:
            findings.markers.remove(self._mark)
            for hook in hooks:
                hook.undo()

        return close

    def begin(self, name: str) -> Owner:
        """Turn to a new test."""
        here = threading.current_thread()
        self._older = weakref.WeakSet(t for t in threading.enumerate() if t is not here)
        owner = Owner(name, is_test=True)
        self.turn_to(owner)
        return owner

    def turn_to(self, owner: Owner) -> None:
        """From now on it is ``owner`` who runs."""
        findings.settle()
        if self._fresh:
            findings.clear()
        self.current = owner

    def is_of(self, scope: Scope, owner: Owner) -> bool:
        """Whether the request of ``scope`` began in ``owner``."""
        return owner in self._begun.get(scope._request_id, ())

    def rows(self) -> list[Row]:
        """What was found of all of them."""
        return [row for owner in list(self._owners) for row in owner.rows()]

    def _noting(self, hook: Hook) -> Callable[..., None]:
        """A `Scope` is told its request id when it is made, or renamed."""

        def told(scope: Scope, request_id: str, *args: Any, **kwargs: Any) -> None:
            hook.original(scope, request_id, *args, **kwargs)
            contained(noting, self._note, scope, request_id)

        return told

    def _note(self, scope: Scope, request_id: str) -> None:
        owners = self._begun.setdefault(request_id, [])
        # What goes on elsewhere has the id of its request, whenever it does.
        if not owners or (scope._kind == "http" and self.current not in owners):
            owners.append(self.current)
        if len(self._begun) > _REQUESTS:
            self._begun.pop(next(iter(self._begun)), None)

    def _mark(self, site: Site, scope: Scope | None) -> None:
        contained(noting, self._charge, site, scope)

    def _charge(self, site: Site, scope: Scope | None) -> None:
        request_id = site.finding().request_id
        if site.count > 1:  # at a known place, perhaps in another request
            active, came_from = scope or ACTIVE.get(), SPAWNED.get()
            if active is not None:
                request_id = active._request_id
            elif came_from is not None:
                request_id = came_from.request_id
        owner = self._whose(request_id)
        owner.add(site, request_id)
        self._owners[owner] = None

    def _whose(self, request_id: str | None) -> Owner:
        owners = self._begun.get(request_id or "", ())
        if len(owners) == 1:
            return owners[0]
        # Nobody's id, or one that several tests have sent.
        return self.between if threading.current_thread() in self._older else self.current

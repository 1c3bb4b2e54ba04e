"""A finding: what it is, where, why, how often, and what to write instead."""

import time
from dataclasses import dataclass
from typing import Final

ORPHAN: Final = "orphan"
LEAK: Final = "leak"

STARTUP: Final = "startup"
OUTSIDE: Final = "outside"
LOST: Final = "lost"
LATE: Final = "late"
BLEED: Final = "bleed"
FOREIGN: Final = "foreign"
UNCLOSED: Final = "unclosed"
RETAINED: Final = "retained"

KINDS: Final = {
    STARTUP: ORPHAN,
    OUTSIDE: ORPHAN,
    LOST: ORPHAN,
    LATE: LEAK,
    BLEED: LEAK,
    FOREIGN: LEAK,
    UNCLOSED: LEAK,
    RETAINED: LEAK,
}
"""Slug -> kind."""

INFORMATIVE: Final = (STARTUP, OUTSIDE)
"""What need not be a mistake: before the first request, or with no request behind it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One misuse of a request's context, at one place. ``str(finding)`` is what is logged."""

    kind: str
    """``orphan`` or ``leak``."""
    slug: str
    """``outside``, ``lost``, ``late``, ``bleed``, ``foreign``, ``unclosed`` or ``retained``."""
    message: str
    """What happened, in a sentence."""
    callsite: str
    """Where it showed: ``file:line function``; the file relative to the working directory."""
    origin: str | None
    """Where it came from: where the work was started, or what opened the context."""
    thread: str
    task: str | None
    """The asyncio task's name, and what it runs."""
    request_id: str | None
    """Of the request it came from, as far as that is known; so is ``path``."""
    path: str | None
    count: int
    first_seen: float
    """Seconds since the epoch; so is ``last_seen``."""
    last_seen: float
    fix: str
    """What to write instead."""
    key: str
    """What `ignore` knows it by: ``lost:billing.jobs.charge``."""

    def __str__(self) -> str:
        request = " ".join(
            part for part in ("request", self.request_id, self.path) if part is not None
        )
        about = [
            ("at", self.callsite),
            ("from", ", ".join(filter(None, (self.origin, request if self.request_id else None)))),
            ("in", self.thread if self.task is None else f"{self.thread}, {self.task}"),
            ("seen", self._seen()),
            ("fix", self.fix),
            ("ignore", self.key),
        ]
        lines = [f"{self.slug}: {self.message}"]
        lines += [f"  {label:<8} {text}" for label, text in about if text]
        return "\n".join(lines)

    def _seen(self) -> str:
        if self.count == 1:
            return ""
        since = time.strftime("%H:%M:%S", time.localtime(self.first_seen))
        return f"{self.count} times since {since}; shown once"

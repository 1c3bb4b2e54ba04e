"""The settings: values only. `asok_trace.config` reads and validates them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from asok_trace.core import names

OFF: Final = "off"
WATCH: Final = "watch"
CARRY: Final = "carry"
MODES: Final = (OFF, WATCH, CARRY)
"""What may be done about the threads that a request starts."""

BASIC: Final = "basic"
STRICT: Final = "strict"
LEVELS: Final = (OFF, BASIC, STRICT)
"""How much is looked for: nothing; what costs next to nothing; and what tests can afford."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a gateway was told to do. Each gateway holds its own."""

    isolate: bool = True
    """WSGI: run each call in a copied context, so that nothing it leaves reaches the next."""
    user: Callable[[Any], object] | None = None
    """Called with the framework's request; returns the user's primary key, or None."""
    access_log: bool = True
    """Log one canonical line per request."""
    request_id_header: str = names.REQUEST_ID_HEADER
    """The header a request id is read from and written to."""
    trust_incoming: bool = True
    """Use a request id that came in that header."""
    log_events: bool = False
    """Make log lines events of the current span."""
    threads: str | None = None
    """``off``, ``watch`` or ``carry``: see `propagate_threads`. None is ``carry`` for `setup`; for
    `instrument` it is ``off``, and ``watch`` at the level ``strict`` if nothing else is said."""
    cron: bool = True
    """Open a scope for each run of a scheduled function."""
    service: str | None = None
    """The ``service.name`` of the providers that `setup` makes."""
    exclude: tuple[str, ...] = ()
    """Path patterns (``/health``, ``/static/*``) that get no canonical line."""
    level: str = BASIC
    """How much is looked for: ``off``; ``basic``; or ``strict``, for tests and staging, which also
    finds what is left open or kept alive, and tells who opened it."""
    errors: bool | None = None
    """Let a framework's error about there being no request say why, where it is raised. None is
    on at the level ``strict``: it replaces a method of Asok's."""
    ignore: tuple[str, ...] = ()
    """Patterns of the keys of findings that are not reported: ``lost:billing.*``."""
    grace: float = 5.0
    """Seconds after its end in which a request may be kept alive; ``strict`` looks then."""


_default = Settings()


def default() -> Settings:
    """Return the process-wide settings, used where no gateway holds its own."""
    return _default


def set_default(settings: Settings) -> None:
    """Make ``settings`` the process-wide ones."""
    global _default
    _default = settings
    _apply()


# What each gateway asked for; orphans belong to none of them.
_wanted: list[list[str]] = []

level: str = _default.level
"""The level in this process: the most that a gateway asked for; where there is none, the
process-wide settings'."""

watching = True
"""Whether that is not ``off``."""


def want(asked: str) -> Callable[[], None]:
    """Have the process at the level ``asked``, at the least; return how to take it back."""
    mine = [asked]
    _wanted.append(mine)
    _apply()

    def undo() -> None:
        _wanted[:] = [other for other in _wanted if other is not mine]
        _apply()

    return undo


def _apply() -> None:
    global level, watching
    asked = [one for [one] in _wanted] or [_default.level]
    level = max(asked, key=LEVELS.index)
    watching = level != OFF

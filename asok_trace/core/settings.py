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
    """``off``, ``watch`` or ``carry``: see `propagate_threads`. None is ``carry`` for `setup` and
    ``off`` for `instrument`."""
    cron: bool = True
    """Open a scope for each run of a scheduled function."""
    service: str | None = None
    """The ``service.name`` of the providers that `setup` makes."""
    exclude: tuple[str, ...] = ()
    """Path patterns (``/health``, ``/static/*``) that get no canonical line."""


_default = Settings()


def default() -> Settings:
    """Return the process-wide settings, used where no gateway holds its own."""
    return _default


def set_default(settings: Settings) -> None:
    """Make ``settings`` the process-wide ones."""
    global _default
    _default = settings

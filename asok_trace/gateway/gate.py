"""What a gateway needs to know of its application."""

from collections.abc import Callable
from typing import Any, NamedTuple

from asok_trace.core.scope import Live
from asok_trace.core.settings import Settings
from asok_trace.frameworks import live
from asok_trace.frameworks.base import Framework


class Gate(NamedTuple):
    """Decided when it is hooked up."""

    app: Any
    framework: Framework
    settings: Settings
    live: Live
    live_closed: Live
    routes: dict[Any, str | None]
    """What the framework found -> its route: as many as the application has pages."""
    current: Callable[[], Any]
    """Reads the framework's current request."""

    @classmethod
    def of(cls, app: Any, framework: Framework, settings: Settings) -> "Gate":
        """Return the gate of ``app``."""
        return cls(
            app,
            framework,
            settings,
            live.live_owned(framework, settings.user),
            live.live_closed(framework),
            {},
            framework.reader(),
        )

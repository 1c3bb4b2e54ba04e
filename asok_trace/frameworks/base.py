"""What a framework tells us, and how to find the one that is asking.

No framework is imported here or in the adapters: one that is not loaded has no request.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol

from asok_trace.core.errors import ConfigError, Piece
from asok_trace.core.scope import Scope


class Entry(NamedTuple):
    """A place in a framework that `instrument` wraps on the application object."""

    attribute: str
    kind: str
    """``wsgi`` and ``asgi``: an application callable. ``environ``: returns the WSGI environ of
    an ASGI request. ``route``: called with the request, returns what `Framework.route` reads.
    """


class Framework(Protocol):
    """One web framework, as facts. To add one: these members, and a line in `_ADAPTERS`."""

    name: str
    entries: Sequence[Entry]

    def owns(self, app: object) -> bool:
        """Whether ``app`` is an application of this framework, told without importing it."""

    def current(self) -> Any:
        """The framework's current request in this context, or None."""

    def reader(self) -> Callable[[], Any]:
        """A function like `current` for the framework as loaded now: faster, for gateways."""

    def carried(self, request: Any) -> Scope | None:
        """The scope that ``request`` carries, or None."""

    def unowned(self, request: Any) -> Scope:
        """The scope that ``request`` carries; made, kept on it, and given to all who ask."""

    def facts(self, request: Any) -> tuple[str | None, str]:
        """The client's address and the path of ``request``."""

    def peek(self, request: Any) -> object:
        """The user's primary key, None for nobody, UNKNOWN; read without any side effect."""

    def client_ip(self, app: Any, peer: str, forwarded: str | None) -> str | None:
        """The client's address by the framework's own proxy rule; never text that is none."""

    def route(self, app: Any, found: Any) -> str | None:
        """The route pattern, from what the ``route`` entry returned."""

    def activate(self, request: Any) -> AbstractContextManager[Any]:
        """Make ``request`` the framework's current one for a while."""


# A module that is loaded whenever the framework may have a current request -> its adapter.
_ADAPTERS = {"asok.context": "asok_trace.frameworks.asok"}

_loaded: dict[str, Framework] = {}

current_request: Final = Piece("reading the framework's current request")
user: Final = Piece("reading the framework's user")


def adapter(marker: str) -> Framework:
    """Return the adapter of the framework whose ``marker`` module is loaded."""
    found = _loaded.get(marker)
    if found is None:
        found = _loaded[marker] = import_module(_ADAPTERS[marker]).FRAMEWORK
    return found


def of_app(app: object) -> Framework:
    """Return the framework that ``app`` is an application of.

    Raises:
        ConfigError: it is of none we know.
    """
    for framework in loaded():
        if framework.owns(app):
            return framework
    raise ConfigError(
        f"{app!r} cannot be instrumented: it is not an application of a framework that "
        f"asok_trace knows (Asok). Pass the application object itself, before anything wraps it."
    )


def loaded() -> Iterator[Framework]:
    """Yield the adapters of the frameworks that this process has loaded."""
    for marker in _ADAPTERS:
        if marker in sys.modules:
            yield adapter(marker)

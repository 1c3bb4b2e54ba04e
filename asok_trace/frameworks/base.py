"""What a framework tells us, and how to find the one that is asking.

No framework is imported here or in the adapters: one that is not loaded has no request.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol

from asok_trace.core.errors import Piece
from asok_trace.core.scope import Fields, Live, Scope


class Entry(NamedTuple):
    """A place in a framework that `instrument` wraps: on the application object, or on a module
    or class of the framework, which all its applications share."""

    attribute: str
    kind: str
    """``wsgi`` and ``asgi``: an application callable. ``environ``: returns the WSGI environ of
    an ASGI request. ``route``: called with the request, returns what `Framework.route` reads.
    ``dispatch``: called when the framework has found the route, returns when it has a response.
    ``error``: one of its arguments is an exception, of which it makes an error page. ``connect``,
    ``message`` and ``disconnect``: called with what `Framework.connection` reads. ``received``:
    a method of an ASGI WebSocket, returns its next message. ``error_log``: the method of a logger
    that reports the exceptions of messages, scheduled functions and tasks.

    Of work that leaves the request: ``job`` runs a job in this process, retries included,
    ``attempt`` each one of them; ``queued`` returns the dict of a job for another process.
    ``outlive`` is handed to a thread by its attribute. ``task`` takes a function and its arguments,
    to be run in a task after the response. ``awaited`` runs an awaitable in another
    thread. ``cron`` runs a scheduled function, if ``cron_turn`` says that it is its turn. In a
    process of its own, ``consume`` handles one raw job: ``verified`` returns its dict, and
    ``job_failed`` is called where it has failed.

    Of the framework's own tracing: ``span`` starts a span, ``traced`` is a decorator that makes the
    calls of a function spans.

    ``complaint`` raises one of the `Framework.complaints` where there is no current request.
    """
    owner: str | None = None
    """``package.module`` or ``package.module:Name``; None is the application object."""


class Job(NamedTuple):
    """A job from a framework's own queue, as its dict tells."""

    name: str
    id: str
    queue: str
    attempt: int
    """The first is 1."""
    last: bool
    """Whether there is no further attempt if this one fails."""
    carrier: Mapping[str, Any]
    """What the ``queued`` entry put there; empty if it was not hooked up."""


class Connection(NamedTuple):
    """A WebSocket connection, as far as its messages are concerned."""

    key: Any
    """The object that lives as long as the connection."""
    path: str
    route: str | None
    ip: str | None
    user: object
    request: Any
    """What to make the framework's current request meanwhile, made for this event alone; None
    if there is none."""
    incoming_id: str | None
    """The request id that the handshake brought, not validated."""


class Framework(Protocol):
    """One web framework, as facts. To add one: these members, and a line in `_ADAPTERS`."""

    def entries(self, app: object) -> Sequence[Entry]:
        """Where ``app`` is entered; nothing if it is not of this framework. Told by its class,
        without importing anything."""

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

    def synthetic(self, request: Any) -> bool:
        """Whether the framework made ``request`` itself, inside another one: facts that it
        leaves out are those of the one around it."""

    def peek(self, request: Any) -> object:
        """The user's primary key, None for nobody, UNKNOWN; read without any side effect."""

    def handed(self, request: Any) -> Any:
        """What the application knows as the request: what its ``user=`` resolver is called with."""

    def told_by(self, request: Any) -> object:
        """An object that `peek` would have to find changed before it answered otherwise, by
        which `live` tells that nothing changed; UNKNOWN if there is none. No side effect."""

    def live(self, look: Callable[[Scope, Any], Fields]) -> Live:
        """A function that returns a scope's fields as they are while ``scope._own`` is the
        current request and what `told_by` said of it, else ``look(scope, request)``. It is
        called for every line of an instrumented application."""

    def client_ip(self, app: Any, peer: str, forwarded: str | None) -> str | None:
        """The client's address by the framework's own proxy rule; never text that is none."""

    def route(self, app: Any, found: Any) -> str | None:
        """The route pattern, from what the ``route`` entry returned."""

    def connection(self, server: Any, args: tuple[Any, ...], header: str) -> Connection:
        """The connection that a ``connect``, ``message`` or ``disconnect`` entry is called with;
        ``header`` is the name of the request id's."""

    complaints: tuple[str, ...]
    """How the texts of its RuntimeErrors begin where there is no current request."""

    resumes: bool
    """Whether a gateway makes the request current again for each step of a streamed body."""

    websockets: bool
    """Whether its ASGI entry serves WebSockets."""

    lingers: bool
    """Whether its ASGI entry may return long after the last byte of a response, with nothing left
    to do but wait for the client to go."""

    receives: bool
    """Whether their messages reach a handler by the ``received`` entry, in another task than the
    one that gets them from the server."""

    worker: Sequence[Entry]
    """Where jobs enter the framework's own worker process."""

    def job(self, job: dict[str, Any]) -> Job:
        """What the dict of a queued job says. It may come from anywhere: nothing is trusted."""

    def queues_elsewhere(self) -> bool:
        """Whether jobs that are queued now are run by another process."""

    def matched(self, request: Any) -> str | None:
        """What the framework's router found for ``request``, to be read by `route`."""

    def view(self, app: Any, route: str, method: str | None) -> Any:
        """The function that handles ``route``; None if that cannot be told. For findings alone: it
        may look long."""

    def preserved(self, request: Any) -> bool:
        """Whether ``request`` was asked to stay current after its end, as test clients do."""

    def traces(self, app: object) -> bool:
        """Whether ``app`` starts the server span of each request by itself, whatever is around
        it."""

    def variables(self) -> Sequence[ContextVar[Any]]:
        """What holds the current request, or anything of it, in a context."""

    def activate(self, request: Any) -> AbstractContextManager[Any]:
        """Make ``request`` the framework's current one for a while."""


# A module that is loaded whenever the framework may have a current request -> its adapter.
_ADAPTERS = {
    "asok.context": "asok_trace.frameworks.asok",
    # Loads Flask's as well.
    "quart.globals": "asok_trace.frameworks.quart",
    "flask.globals": "asok_trace.frameworks.flask",
}

_loaded: dict[str, Framework] = {}

current_request: Final = Piece(
    "reading the framework's current request", then="lines for which it fails are not stamped"
)
user: Final = Piece(
    "reading the framework's user", then="a request in which it fails keeps what was known"
)


def adapter(marker: str) -> Framework:
    """Return the adapter of the framework whose ``marker`` module is loaded."""
    found = _loaded.get(marker)
    if found is None:
        found = _loaded[marker] = import_module(_ADAPTERS[marker]).FRAMEWORK
    return found


def of_app(app: object) -> tuple[Framework, Sequence[Entry]] | None:
    """Return the framework that ``app`` belongs to, and where it is entered; None if it is of
    none we know."""
    for framework in loaded():
        entries = framework.entries(app)
        if entries:
            return framework, entries
    return None


def complaints() -> tuple[str, ...]:
    """Return how the errors of all frameworks begin that say that there is no current request."""
    return tuple(text for framework in loaded() for text in framework.complaints)


def loaded() -> Iterator[Framework]:
    """Yield the adapters of the frameworks that this process has loaded."""
    for marker in _ADAPTERS:
        if marker in sys.modules:
            yield adapter(marker)

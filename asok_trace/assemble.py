"""Put the parts together: `instrument` an application, `bind` facts, ask for `current`."""

from collections.abc import Callable
from typing import Any

from asok_trace import config
from asok_trace.core.errors import ConfigError, contained
from asok_trace.core.hooks import Handle, Hook
from asok_trace.core.names import CARRIED
from asok_trace.core.scope import ACTIVE
from asok_trace.frameworks import base
from asok_trace.gateway import asgi, exchange, wsgi
from asok_trace.gateway.exchange import Gate

# On the application, not with us: a framework's reloader may throw the application away.
_MARK = "_asok_trace"


def instrument(app: Any, **settings: Any) -> Handle:
    """Open a scope for every request of ``app``, and set its request id on every response.

    Wraps the entries of an Asok application on the object itself; ``app`` stays the object it
    was. Doing it again changes nothing and returns the same handle. Costs some 10 microseconds
    a request.

    Args:
        app: an Asok application.
        settings: ``isolate``, ``user``, ``access_log``, ``request_id_header``,
            ``trust_incoming``, ``exclude``; see `asok_trace.core.settings.Settings`.

    Returns:
        A handle; ``handle.undo()`` gives the application back as it was.

    Raises:
        ConfigError: an unknown application or setting, a bad value, or an application that is
            instrumented already with other settings.
    """
    framework = base.of_app(app)
    resolved = config.resolve(settings)
    marked = vars(app).get(_MARK)
    if marked is not None:
        handle, before = marked
        if settings and before != resolved:
            raise ConfigError(
                f"{app!r} is instrumented already, with {before}. Give all settings in one "
                f"call, or call undo() on the first handle."
            )
        return handle  # type: ignore[no-any-return]
    gate = Gate.of(app, framework, resolved)
    hooks = [Hook(app, entry.attribute, _maker(entry.kind, gate)) for entry in framework.entries]

    def undo() -> None:
        for hook in reversed(hooks):
            hook.undo()
        vars(app).pop(_MARK, None)

    handle = Handle(undo, app)
    vars(app)[_MARK] = (handle, resolved)
    return handle


def _maker(kind: str, gate: Gate) -> Callable[[Hook], Any]:
    make = {"wsgi": wsgi.gateway, "asgi": asgi.gateway, "environ": _environ, "route": _route}[kind]
    return lambda hook: make(hook, gate)


def _environ(hook: Hook, _gate: Gate) -> Callable[..., Any]:
    """The environ that the framework builds of an ASGI request carries its scope as well."""

    def build(*args: Any, **kwargs: Any) -> Any:
        environ = hook.original(*args, **kwargs)
        if hook.active:
            contained(exchange.opening, environ.setdefault, CARRIED, ACTIVE.get())
        return environ

    return build


def _route(hook: Hook, gate: Gate) -> Callable[..., Any]:
    """Note the route as soon as the framework has found it."""

    def resolve(*args: Any, **kwargs: Any) -> Any:
        found = hook.original(*args, **kwargs)
        if hook.active:
            contained(exchange.routing, _note_route, gate, found)
        return found

    return resolve


def _note_route(gate: Gate, found: Any) -> None:
    scope = ACTIVE.get()
    if scope is not None and scope._open:
        scope._route = gate.framework.route(gate.app, found)

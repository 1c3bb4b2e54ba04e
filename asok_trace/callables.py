"""`instrument` for an application of no known framework: the callable, wrapped."""

import inspect
from collections.abc import Callable
from typing import Any

from asok_trace.core.errors import ConfigError
from asok_trace.core.hooks import Handle
from asok_trace.core.settings import Settings
from asok_trace.frameworks import plain
from asok_trace.gateway import asgi, wsgi
from asok_trace.gateway.exchange import Gate

_MARK = "_asok_trace"
_GATEWAYS: dict[str, Callable[[Any, Gate], Any]] = {"wsgi": wsgi.gateway, "asgi": asgi.gateway}


class _Given:
    """Stands for a `Hook` where nothing is replaced."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.active = True


def instrument(app: Any, interface: str | None, settings: Settings) -> Handle:
    """Return a handle whose ``app`` is ``app`` behind a gateway; ``undo`` makes it pass everything
    through.

    Raises:
        ConfigError: ``app`` is no WSGI or ASGI callable, or could be either.
    """
    known = getattr(app, "__dict__", {}).get(_MARK)
    if isinstance(known, Handle):
        return known
    if interface is None:
        interface = _interface(app)
    if interface not in _GATEWAYS or not callable(app):
        raise ConfigError(
            f"instrument({app!r}, interface={interface!r}) cannot be: pass an Asok, Flask or Quart "
            f'application, or a callable with interface="wsgi" or "asgi".'
        )
    given = _Given(app)
    wrapped = _GATEWAYS[interface](given, Gate.of(app, plain.FRAMEWORK, settings))

    def undo() -> None:
        given.active = False

    handle = Handle(undo, wrapped)
    setattr(wrapped, _MARK, handle)
    return handle


def _interface(app: Any) -> str | None:
    """ASGI applications are coroutine functions of three arguments, WSGI ones take two."""
    if not callable(app):
        return None
    call = app if inspect.isroutine(app) else type(app).__call__
    if inspect.iscoroutinefunction(call):
        return "asgi"
    try:
        bound = inspect.signature(app)
        bound.bind(object(), object())
    except (TypeError, ValueError):
        return None
    return "wsgi"

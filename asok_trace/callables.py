"""`instrument` for an application of no known framework: the callable, wrapped."""

import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from asok_trace.core import names
from asok_trace.core.callsite import caller, claim
from asok_trace.core.errors import ConfigError
from asok_trace.core.hooks import Handle
from asok_trace.core.ignoring import ignore
from asok_trace.core.settings import OFF, STRICT, Settings, want
from asok_trace.frameworks import otel, plain
from asok_trace.gateway import asgi, wsgi
from asok_trace.gateway.gate import Gate
from asok_trace.propagate.threads import propagate_threads, watch_threads

_MARK = "_asok_trace"
_GATEWAYS: dict[str, Callable[[Any, Gate], Any]] = {"wsgi": wsgi.gateway, "asgi": asgi.gateway}

_told_strict = False


class _Given:
    """Stands for a `Hook` where nothing is replaced."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.active = True


def instrumented(app: Any) -> tuple[Handle, Settings] | None:
    """Return the handle whose ``app`` is ``app``, and its settings; None if there is none."""
    found = getattr(app, "__dict__", {}).get(_MARK)
    return found if isinstance(found, tuple) else None


def instrument(app: Any, interface: str | None, settings: Settings) -> Handle:
    """Return a handle whose ``app`` is ``app`` behind a gateway; ``undo`` makes it pass everything
    through.

    Raises:
        ConfigError: ``app`` is no WSGI or ASGI callable, or could be either.
    """
    given = _Given(app)
    gateway = _GATEWAYS[_interface(app, interface)]
    wrapped = gateway(given, Gate.of(app, plain.FRAMEWORK, settings))
    process = in_process(settings)

    def undo() -> None:
        given.active = False
        vars(wrapped).pop(_MARK, None)
        process.undo()

    handle = Handle(undo, wrapped)
    setattr(wrapped, _MARK, (handle, settings))
    return handle


def in_process(settings: Settings) -> Handle:
    """Do what a gateway's ``settings`` want of the whole process, until it is undone."""
    frame = caller()
    if frame is not None:
        claim(frame.f_code.co_filename)  # an application may be installed as a package
    rules = [ignore(key) for key in settings.ignore]
    threads = _threads(settings)
    forget = want(settings.level)
    tell_strict(settings)

    def undo() -> None:
        forget()
        for rule in rules:
            rule.undo()
        if threads is not None:
            threads.undo()

    return Handle(undo)


def _threads(settings: Settings) -> Handle | None:
    if settings.threads is None:
        return watch_threads() if settings.level == STRICT else None
    return None if settings.threads == OFF else propagate_threads(settings.threads)


def tell_strict(settings: Settings) -> None:
    """Say once what it takes to look at OpenTelemetry's contexts, where ``settings`` ask for all
    there is: the runtime context is chosen when OpenTelemetry is imported."""
    global _told_strict
    if _told_strict or settings.level != STRICT or not otel.configured() or otel.strict():
        return
    _told_strict = True
    logging.getLogger(names.LOGGER).info(
        'asok_trace: level="strict" does not cover how spans are attached and detached: '
        "OpenTelemetry was imported with another runtime context. Set "
        "%s=%s in the environment before the program starts.",
        names.OTEL_CONTEXT,
        names.STRICT_CONTEXT,
    )


def _interface(app: Any, said: str | None) -> str:
    """The interface of ``app``: what was ``said``, unless it cannot be."""
    if not callable(app):
        raise ConfigError(
            f"{app!r} cannot be instrumented: it is no application. Pass the application object "
            f"of Asok, Flask or Quart, or any WSGI or ASGI callable."
        )
    if said is not None and said not in _GATEWAYS:
        raise ConfigError(f'interface={said!r} is no interface. Use "wsgi" or "asgi".')
    takes = _takes(app)
    if takes == {1}:
        raise ConfigError(
            f"{app!r} cannot be instrumented: it takes one argument, as applications of ASGI 2 "
            f"and factories do. Pass asgiref.compatibility.guarantee_single_callable(app) of the "
            f"one, or what the other returns."
        )
    told = _told(app, takes)
    if said is not None and told is not None and told != said:
        raise ConfigError(
            f'{app!r} cannot be instrumented with interface="{said}": by its arguments it is '
            f'"{told}". Use that, or none.'
        )
    if said is None and told is None:
        raise ConfigError(
            f"{app!r} cannot be instrumented: its arguments do not tell WSGI from ASGI. Say "
            f'interface="wsgi" or interface="asgi"; of a class, pass an instance.'
        )
    return said or told or ""


def _told(app: Any, takes: set[int]) -> str | None:
    """What ``app`` is by its arguments: ``(scope, receive, send)`` or ``(environ,
    start_response)``."""
    if 3 in takes and (2 not in takes or _is_async(app)):
        return "asgi"
    return "wsgi" if takes == {2} and not _is_async(app) else None


def _is_async(app: Any) -> bool:
    while isinstance(app, partial):
        app = app.func
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _takes(app: Any) -> set[int]:
    """With how many arguments, from none to three, ``app`` can be called. Empty if it cannot be
    told."""
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return set()
    return {number for number in range(4) if _binds(signature, number)}


def _binds(signature: inspect.Signature, number: int) -> bool:
    try:
        signature.bind(*range(number))
    except TypeError:
        return False
    return True

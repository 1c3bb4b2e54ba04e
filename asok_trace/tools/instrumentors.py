"""OpenTelemetry's instrumentors: ``opentelemetry-instrument python app.py`` hooks up each
application that the program makes.

Named by the entry point group ``opentelemetry_instrumentor``; for ``pip install
"asok-trace[instrumentor]"``.
"""

import functools
import weakref
from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)

from asok_trace import assemble, providers
from asok_trace.core.errors import Piece, contained
from asok_trace.core.hooks import Handle, Hook
from asok_trace.stamp import stdlib

instrumenting = Piece("hooking up an application for opentelemetry-instrument")


class _Instrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped
    _module = ""
    _class = ""
    _needs: tuple[str, ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """What has to be installed for it to do anything."""
        return self._needs

    def _instrument(self, **_settings: Any) -> None:
        # Given by the program's launcher: tracer_provider and the like are the process's own.
        providers.set_up(None)
        # Not kept alive by us: a program may make many applications.
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._hook = Hook(getattr(import_module(self._module), self._class), "__init__", self._made)
        _logging.enter()

    def _uninstrument(self, **_settings: Any) -> None:
        self._hook.undo()
        for handle in list(self._handles):
            handle.undo()
        _logging.leave()

    def _made(self, hook: Hook) -> Callable[..., None]:
        @functools.wraps(hook.original)
        def made(app: Any, *args: Any, **kwargs: Any) -> None:
            hook.original(app, *args, **kwargs)
            if hook.active:
                contained(instrumenting, self._hook_up, app)

        return made

    def _hook_up(self, app: Any) -> None:
        self._handles.add(assemble.instrument_unasked(app))


class _Logging:
    """The records of the standard library's logging are stamped, until the last instrumentor is
    taken back. A structlog chain is the program's own to make: it names `inject`."""

    def __init__(self) -> None:
        self._users = 0
        self._undo: Callable[[], None] | None = None

    def enter(self) -> None:
        self._users += 1
        if not stdlib.active():
            self._undo = stdlib.stamp_logging().undo

    def leave(self) -> None:
        self._users -= 1
        if not self._users and self._undo is not None:
            self._undo()
            self._undo = None


_logging = _Logging()


class AsokInstrumentor(_Instrumentor):
    """Of each `asok.Asok`."""

    _module, _class, _needs = "asok.core.asok", "Asok", ("asok >= 0.8",)


class FlaskInstrumentor(_Instrumentor):
    """Of each `flask.Flask`."""

    _module, _class, _needs = "flask.app", "Flask", ("flask >= 2.3",)


class QuartInstrumentor(_Instrumentor):
    """Of each `quart.Quart`."""

    _module, _class, _needs = "quart.app", "Quart", ("quart >= 0.19",)

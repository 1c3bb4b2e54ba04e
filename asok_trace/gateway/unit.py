"""`scope()`: a unit of work that no server started."""

import functools
import inspect
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from asok_trace.core import ids, settings, text
from asok_trace.core.callsite import Callsite
from asok_trace.core.errors import ConfigError
from asok_trace.core.scope import ACTIVE, Scope, bindable
from asok_trace.detect import leaks
from asok_trace.frameworks import otel

_Function = TypeVar("_Function", bound=Callable[..., Any])

KINDS = ("job", "cron", "task", "message")


class scope:  # noqa: N801  # reads as a verb: with scope("nightly")
    """Open a unit of work with an id of its own: cron, command line, queue consumer.

    A context manager and a decorator for functions and coroutine functions. Every line logged
    inside carries its ``request_id``, ``task=name`` and ``fields``. Inside a request it stands
    in front of the request until it ends. Costs 2 microseconds.

    Args:
        name: what it is called, in at most 256 characters.
        kind: ``job``, ``cron``, ``task`` or ``message``.
        fields: bound on every line, as `bind` does.

    Raises:
        ConfigError: an unknown kind, or a reserved field name.
        TypeError: a generator function was decorated.
    """

    def __init__(self, name: str, *, kind: str = "job", **fields: object) -> None:
        if kind not in KINDS:
            raise ConfigError(f"kind={kind!r} is not a kind of work. Use one of {KINDS}.")
        self._name = text.clean(name, text.NAME_LIMIT)
        self._kind = kind
        self._bound = bindable(fields)
        self._entered: list[tuple[Scope, Scope | None, Callsite]] = []

    def __enter__(self) -> Scope:
        opened = Scope(
            ids.make(),
            self._kind,
            name=self._name,
            line=otel.line(),
            events=settings.default().log_events,
            bound=self._bound,
        )
        frame = sys._getframe(1)
        self._entered.append((opened, ACTIVE.get(), Callsite(frame.f_code, frame.f_lasti)))
        ACTIVE.set(opened)
        return opened

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, before, site = self._entered.pop()
        if ACTIVE.get() is not opened:
            leaks.foreign(f"scope({self._name!r})", sys._getframe(1), site, opened)
        opened.close(line=leaks.late(opened._line))
        # No token: a reset in another context would raise into the host's code.
        ACTIVE.set(before if before is not None and before._running else None)

    def __call__(self, function: _Function) -> _Function:
        """Return ``function`` so that each call of it is a unit of work of its own."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"scope({self._name!r}) cannot decorate the generator function "
                f"{function.__qualname__}(): its body runs later, whenever somebody iterates "
                f"it. Write `with scope({self._name!r}):` around the loop that does."
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return run_async  # type: ignore[return-value]  # of the signature of function

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return run  # type: ignore[return-value]  # as above

    def _again(self) -> "scope":
        """One of its own per call: threads share the decorator."""
        made = object.__new__(scope)
        made._name, made._kind, made._bound = self._name, self._kind, self._bound
        made._entered = []
        return made

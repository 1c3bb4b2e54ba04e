"""`scope()`: a unit of work that no server started."""

import functools
import inspect
import sys
from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from asok_trace.core import ids, settings, text
from asok_trace.core.callsite import Callsite, module
from asok_trace.core.errors import ConfigError
from asok_trace.core.scope import ACTIVE, Scope, bindable
from asok_trace.detect import explain, leaks
from asok_trace.frameworks import base, otel

_Function = TypeVar("_Function", bound=Callable[..., Any])

KINDS = ("job", "cron", "task", "message")


class _Entered(NamedTuple):
    """One time that a unit was entered."""

    opened: Scope
    before: Scope | None
    token: "Token[Scope | None]"
    site: Callsite
    module: str


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
        self._entered: list[_Entered] = []
        if kind not in KINDS:
            raise ConfigError(f"kind={kind!r} is not a kind of work. Use one of {KINDS}.")
        self._name = text.clean(name, text.NAME_LIMIT)
        self._kind = kind
        self._bound = bindable(fields)

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
        before = ACTIVE.get()
        self._entered.append(
            _Entered(
                opened,
                before,
                ACTIVE.set(opened),
                Callsite(frame.f_code, frame.f_lasti),
                module(frame),
            )
        )
        return opened

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        explain.passing(exc, base.complaints)
        opened, before, token, site, _ = self._entered.pop()
        now = ACTIVE.get()
        try:
            ACTIVE.reset(token)  # the one way to tell whether this is the same context
        except ValueError:
            # Never into the host's code. And one finding is enough: whoever goes on in the context
            # that this was not taken out of is not late as well.
            opened.close(line=opened._line)
            opened._ended = 0.0
            leaks.foreign(
                self._name,
                sys._getframe(1),
                site,
                opened,
                finalized=exc_type is GeneratorExit,
            )
        else:
            opened.close(line=leaks.late(opened._line))
        if now is opened:
            now = before if before is not None and before._running else None
        # Else it is somebody else's: one that was entered later and goes on, or another context's.
        ACTIVE.set(now)

    def __del__(self) -> None:
        for entered in self._entered:
            leaks.never_left(self._name, entered.site, entered.module, entered.opened._request_id)

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

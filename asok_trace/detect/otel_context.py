"""OpenTelemetry's runtime context, strict: who attached what, and was it detached, once, in order,
in the context it was attached in. Switched on by ``OTEL_PYTHON_CONTEXT=asok_trace_strict``.

OpenTelemetry loads this module while it is being imported itself, so nothing here imports it
before a `StrictContext` is made.
"""

import sys
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Self, cast

from asok_trace.core import settings
from asok_trace.core.callsite import Callsite, speaker
from asok_trace.detect import attachments
from asok_trace.detect.attachments import Attached, report, watching

if TYPE_CHECKING:
    from types import FrameType

    from opentelemetry.context.context import Context

_MARK: Final = "_asok_trace_attached"
"""Where a context says who attached it."""


class AttachedToken:
    """Stands for the `contextvars.Token` that nobody can subclass, or see the end of."""

    __slots__ = ("_attached", "_context", "_open", "_token")

    MISSING = Token.MISSING

    def __init__(self, context: "StrictContext", token: Token[Any], attached: Attached) -> None:
        self._context = context
        self._token = token
        self._attached = attached
        self._open = True

    @property  # type: ignore[misc]  # to those who ask isinstance(token, Token), it is one
    def __class__(self) -> type:
        return Token

    @property
    def var(self) -> ContextVar[Any]:
        """As a token has it."""
        return self._token.var

    @property
    def old_value(self) -> Any:
        """As a token has it."""
        return self._token.old_value

    def __enter__(self) -> Self:
        # Tokens can do this from Python 3.14 on.
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._context.detach(cast("Token[Any]", self))

    def __del__(self) -> None:
        # Only noted: this may run anywhere.
        if self._open and not self._attached.own:
            attachments.dropped.append(self._attached)


class StrictContext:
    """OpenTelemetry's runtime context for Python, which reports what is attached and not detached
    as it should be, naming who attached it and who detached it, instead of OpenTelemetry's own
    "Failed to detach context".

    What is current is what the plain runtime context would say, at any time. At the level ``off``
    it does what that one does.

    - ``foreign``: detached in another `contextvars.Context` than it was attached in, because that
      was in another thread or task, or in a generator that somebody else ended; detached after
      what it was attached over; or detached twice.
    - ``unclosed``: the token was thrown away before it was detached. What a library does itself is
      not reported; nor what the gateway of a request reports as ``bleed``, here with the one who
      attached it.

    In another thread or task, but in the same `contextvars.Context`, it is detached as it should
    be. An attach() and its detach() cost 3 to 5 microseconds instead of 0.3.
    """

    def __init__(self) -> None:
        from opentelemetry.context.context import Context, _RuntimeContext

        _RuntimeContext.register(type(self))
        self._nothing = Context()
        # Of the name and value that the plain one has: others read it.
        self._current_context: ContextVar[Context] = ContextVar(
            "current_context", default=self._nothing
        )

    def get_current(self) -> "Context":
        """Return the current context."""
        return self._current_context.get()

    def attached(self) -> Attached | None:
        """Return who attached the current context; None if that is not known."""
        return getattr(self._current_context.get(), _MARK, None)

    def attach(self, context: "Context") -> "Token[Context]":
        """Make ``context`` current; what is returned is for `detach`."""
        token = self._current_context.set(context)
        if not settings.watching or not watching.working:
            return token
        try:
            attached = Attached(context, sys._getframe(1))
            if context is not self._nothing and hasattr(context, "__dict__"):
                setattr(context, _MARK, attached)
            return cast("Token[Context]", AttachedToken(self, token, attached))
        except Exception as error:
            watching.failed(error)
            return token

    def detach(self, token: "Token[Context]") -> None:
        """Make the context current that was before.

        Raises:
            RuntimeError: it was detached before; not if that is reported instead.
            ValueError: it was attached in another context; not if that is reported instead.
        """
        ours: Any = token
        if not isinstance(ours, AttachedToken):
            self._current_context.reset(token)
            return
        attached = ours._attached
        now = self._current_context.get()
        try:
            self._current_context.reset(ours._token)
        except (RuntimeError, ValueError) as error:
            how = attachments.twice if isinstance(error, RuntimeError) else attachments.elsewhere
            if not report(attached, sys._getframe(1), how):
                raise
            return
        ours._open = False
        if id(now) != attached.context_id and watching.working:
            try:
                self._not_current(attached, now, sys._getframe(1))
            except Exception as error:
                watching.failed(error)
        attached.over()
        if attachments.dropped:
            attachments.tell_dropped(sys._getframe(1))

    def _not_current(self, attached: Attached, now: "Context", frame: "FrameType") -> None:
        """Another context than the one of ``attached`` was current when that was detached."""
        top = getattr(now, _MARK, None)
        if now is self._nothing or (top is not None and top.serial < attached.serial):
            report(attached, frame, attachments.too_late)
        elif top is not None:
            # Whoever attached that has still to detach it, unless it is meant to end with this one.
            closer = speaker(frame)
            top.outlived = (attached.callsite, Callsite(closer.f_code, closer.f_lasti))

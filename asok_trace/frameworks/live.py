"""How the fields of a scope are brought up to date: three ways, one for each state of its owner.

What may change while a request runs is its user (login, logout, impersonation) and which
request is current (``request_context(other)`` by hand). Both are asked by identity on every
line, so that nothing is paid as long as they stay.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from asok_trace.core import scope as core_scope
from asok_trace.core import text
from asok_trace.core.errors import Piece
from asok_trace.core.scope import UNCHANGED, UNKNOWN, Fields, Live, Scope
from asok_trace.frameworks.base import Framework, current_request, user

Resolver = Callable[[Any], object]


class _ResolverFailedError(Exception):
    """A custom ``user=`` resolver raised; it has been reported already."""


def live_owned(framework: Framework, resolver: Resolver | None) -> Live:
    """For the open scopes of a gateway.

    The framework's own glance (`Framework.live`) is on the path of every line, and comes here
    whenever it does not find the same request with the same user as before. A custom resolver
    is asked on every line.
    """
    current = framework.reader()
    peek = framework.peek if resolver is None else _guarded(framework, resolver)

    def look(scope: Scope, request: Any) -> Fields:
        try:
            if request is None:
                return scope._fields
            own: Any = scope._own
            if own is None or own[0] is not request:
                carried = framework.carried(request)
                if carried is not scope:
                    if carried is not None and carried._running:
                        # The one around ours: the framework has not named ours yet, or has
                        # put it away.
                        return scope._fields
                    ip, path = framework.facts(request)
                    raw = peek(request)
                    if carried is None and framework.synthetic(request):
                        ip = ip or scope._ip
                        raw = scope._user if raw is UNKNOWN else raw
                    return scope.seen_as(ip, path, raw)
            # First: if the user changes in between, the next line finds another one here.
            told_by = framework.told_by(request)
            raw = peek(request)
            if (
                own is None
                or own[0] is not request
                or own[1] is not told_by
                or raw is not scope._peeked
            ):
                with core_scope._changing:  # the two belong together, and a thread may be here too
                    scope.set_user(raw)
                    scope._own = (request, told_by)
        except _ResolverFailedError:
            scope._live = None  # not asked again by this request
        except Exception as error:
            scope._live = None
            user.failed(error)
        return scope._fields

    if resolver is None:
        return framework.live(look)
    return lambda scope: look(scope, current())


@lru_cache(maxsize=8)
def live_unowned(framework: Framework, resolver: Resolver | None) -> Live:
    """For the scopes that no gateway opened. The request is looked up, never held: a scope
    that is kept on the request would keep it alive in a circle."""
    peek = framework.peek if resolver is None else _guarded(framework, resolver)

    def live(scope: Scope) -> Fields:
        try:
            request = framework.current()
            if request is not None:
                raw = peek(request)
                if raw is not scope._peeked:
                    scope.set_user(raw)
        except _ResolverFailedError:
            scope._live = None
        except Exception as error:
            scope._live = None
            user.failed(error)
        return scope._fields

    return live


def live_closed(framework: Framework) -> Live:
    """For scopes whose request is over: what they said last, unless the framework has gone on
    to a request of an application that has no gateway."""

    def live(scope: Scope) -> Fields:
        try:
            request = framework.current()
            if request is not None and framework.carried(request) is not scope:
                return framework.unowned(request).fresh()
        except Exception as error:
            scope._live = None
            current_request.failed(error)
        return scope._fields

    return live


# True while a resolver runs: a line that it logs, or its database layer, must not ask it again.
_resolving: ContextVar[bool] = ContextVar("asok_trace_resolving", default=False)


def _guarded(framework: Framework, resolver: Resolver) -> Resolver:
    """Return ``resolver`` so that it cannot recurse and its failure is reported once."""
    report = Piece(
        f"the user= resolver {getattr(resolver, '__qualname__', resolver)!r}",
        then="a request in which it fails keeps what was known",
    )

    def peek(request: Any) -> object:
        if _resolving.get():
            return UNCHANGED
        entered = _resolving.set(True)
        try:
            raw = resolver(framework.handed(request))
            if raw is None or isinstance(raw, (str, int)):
                return raw
            return text.clean(raw, text.USER_LIMIT)  # here, for its __str__ may log or raise
        except Exception as error:
            report.failed(error)
            raise _ResolverFailedError from error
        finally:
            _resolving.reset(entered)

    return peek

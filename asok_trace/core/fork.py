"""A child of a scope: the same request, a lifetime of its own."""

from asok_trace.core import text
from asok_trace.core.scope import Live, Scope, bindable


def fork(
    scope: Scope, kind: str, name: str, /, *, line: Live | None = None, **bound: object
) -> Scope:
    """Return an open scope with the request id, ip, user, path and bound facts of ``scope``.

    It holds text only, so that the request can be freed while the fork goes on. Its lines say
    ``task=name`` and ``bound``; ``line`` as for `Scope`.
    """
    scope.fresh()
    made = Scope(
        scope._request_id,
        kind,
        name=text.clean(name, text.NAME_LIMIT),
        method=scope._method,
        path=scope._path,
        ip=scope._ip,
        line=line,
        events=scope._events,
        bound={**scope._bound, **bindable(bound)},
    )
    made._route = scope._route
    made.set_user(scope._user)
    return made

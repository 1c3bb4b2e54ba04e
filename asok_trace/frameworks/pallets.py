"""What Flask and Quart share: a context object per request, in a ContextVar.

The request is, to us, that context: it knows the request and the session, and ``g``. There are two
layouts: a variable for the application's context and one for the request's (Flask to 3.1, Quart to
0.22); or one for both, whose value says ``has_request`` (Flask from 3.2, Quart from 0.23).
"""

import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from asok_trace.core.names import CARRIED
from asok_trace.core.scope import ACTIVE, UNCHANGED, UNKNOWN, Fields, Live, Scope
from asok_trace.frameworks.base import Entry
from asok_trace.frameworks.plain import Plain

# Not the session's own method, which notes that the session was read: that makes the response
# vary by cookie.
_get = dict.get

# The test clients', inside `with client:`, in a WSGI environ and an ASGI scope.
_PRESERVED = ("werkzeug.debug.preserve_context", "_quart._preserve_context")


class Pallets(Plain):
    """Flask or Quart, by the name of the package and of the application's class."""

    def __init__(self, package: str, app: tuple[str, str], entries: Sequence[Entry]) -> None:
        self._package = package + "."
        self._globals = f"{package}.globals"
        self._app = app
        self._entries = entries
        # The module that was read, and its variables that may hold a request.
        self._known: tuple[Any, Sequence[ContextVar[Any]]] = (None, ())
        # Whether the application's variable is the request's as well.
        self._merged = False

    def entries(self, app: object) -> Sequence[Entry]:
        names = [(cls.__module__, cls.__name__) for cls in type(app).__mro__]
        return self._entries if self._app in names else ()

    def variables(self) -> Sequence[ContextVar[Any]]:
        # The application's too: in one layout it holds the request.
        known = vars(sys.modules[self._globals])
        names = ("_cv_app", "_cv_request", "_cv_websocket")
        return tuple(known[name] for name in names if name in known)

    def _holders(self) -> Sequence[ContextVar[Any]]:
        module = sys.modules.get(self._globals)
        if module is None:
            return ()
        if self._known[0] is not module:
            # Not by getattr: the newest layouts warn of names that are gone.
            known = vars(module)
            self._merged = "_cv_request" not in known
            names = ("_cv_app",) if self._merged else ("_cv_request", "_cv_websocket")
            self._known = module, tuple(known[name] for name in names if name in known)
        return self._known[1]

    def current(self) -> Any:
        found = None
        for variable in self._holders():
            context = variable.get(None)
            # Two, if a view talks to a WebSocket of its own: the one we are in.
            if (
                context is not None
                and self._is_request(context)
                and (found is None or self.carried(context) is ACTIVE.get())
            ):
                found = context
        return found

    def _is_request(self, context: Any) -> bool:
        # quart-flask-patch makes Flask's variables Quart's.
        known: Any = _comes_from  # classes are hashable, which type checkers doubt
        return known(type(context), self._package) and request_of(context) is not None

    def store(self, request: Any) -> dict[str, Any]:
        """Where ``request`` carries its scope, and what its server said of it."""
        raise NotImplementedError

    def carried(self, request: Any) -> Scope | None:
        scope = self.store(request).get(CARRIED)
        return scope if isinstance(scope, Scope) else None

    def matched(self, request: Any) -> str | None:
        rule = getattr(request_of(request), "url_rule", None)
        return None if rule is None else str(rule.rule)

    def view(self, app: Any, route: str, method: str | None) -> Any:
        for rule in app.url_map.iter_rules():
            if str(rule.rule) == route and (rule.methods is None or method in rule.methods):
                return app.view_functions.get(rule.endpoint)
        return None

    def preserved(self, request: Any) -> bool:
        store = self.store(request)
        return any(store.get(key) for key in _PRESERVED)

    def cookies(self, request: Any) -> str:
        """The Cookie header of ``request``."""
        raise NotImplementedError

    def handed(self, request: Any) -> Any:
        return request_of(request)

    def peek(self, request: Any) -> object:
        # Never the extensions' `current_user`: its first read is a query, may write the session,
        # and recurses if the loader logs. Nor the session by its proxy.
        state = vars(request)
        app = state["app"]
        session = state.get("_session", state.get("session"))
        known = isinstance(session, dict)
        user = _get(session, "_user_id") if known else None  # flask-login's, set by it alone
        kept = self._kept(request)
        if "_login_user" in kept:
            # What it has made of it, or of a token or a header.
            manager = vars(app).get("login_manager")
            return _logged_in(kept["_login_user"], UNCHANGED if user is None else user, manager)
        for extension in app.extensions.get("QUART_AUTH", ()):
            found = kept.get(extension.attribute_name)
            if found is not None:
                return getattr(found, "__dict__", {}).get("_auth_id", UNCHANGED)
        if user is None and known:
            user = _get(session, "user_id")
        if user is not None:
            return user
        if "login_manager" in vars(app):
            return None if known and not self._may_log_in(app, request) else UNCHANGED
        # Without an extension, who was in the session is so no longer; else it has not been asked
        # in this context, which may be a copy.
        return UNKNOWN if known and "QUART_AUTH" not in app.extensions else UNCHANGED

    def _may_log_in(self, app: Any, request: Any) -> bool:
        """Whether flask-login, once asked, may find somebody who is not in the session."""
        loaders = vars(app.login_manager)
        if loaders.get("_request_callback") or loaders.get("_header_callback"):
            return True
        return app.config.get("REMEMBER_COOKIE_NAME", "remember_token") in self.cookies(request)

    def _kept(self, request: Any) -> dict[str, Any]:
        """What is on the ``g`` of ``request``: in one layout its own context has it, in the other
        the application's that was pushed with it."""
        state = vars(request)
        holder = request
        if "g" not in state:
            tokens = state.get("_cv_tokens")
            holder = tokens[0][1] if tokens else None
            if holder is None:  # there was one already
                holder = vars(sys.modules[self._globals])["_cv_app"].get(None)
        g = getattr(holder, "__dict__", {}).get("g")
        return getattr(g, "__dict__", {})

    def told_by(self, request: Any) -> object:
        """All that `peek` looks at, to be compared with what is there by then."""
        state = vars(request)
        kept = self._kept(request)
        name = "_session" if "_session" in state else "session"
        session = state.get(name)
        values = session if isinstance(session, dict) else _NOTHING
        extensions = state["app"].extensions.get("QUART_AUTH", ())
        auth = next((found.attribute_name for found in extensions), "")
        return (
            (state, name, session, values, kept, auth),
            (_get(values, "_user_id"), _get(values, "user_id")),
            (kept.get("_login_user"), kept.get(auth)),
        )

    def reader(self) -> Callable[[], Any]:
        holders = self._holders()
        requests = holders[0].get
        sockets = holders[1].get if len(holders) > 1 else _none
        known: set[type] = set()

        def read() -> Any:
            request = requests(None)
            if (request is None or type(request) in known) and sockets(None) is None:
                return request
            # One of both, or a new kind.
            request = self.current()
            if request is not None and not self._merged:
                known.add(type(request))
            return request

        return read

    def live(self, look: Callable[[Scope, Any], Fields]) -> Live:
        current = self.reader()

        def live(scope: Scope) -> Fields:
            request = current()
            own: Any = scope._own
            if own is not None and own[0] is request:
                # As peek() has it, but for what cannot have changed since.
                (state, name, session, values, kept, auth), in_session, on_g = own[1]
                if (
                    state.get(name) is session
                    and _get(values, "_user_id") is in_session[0]
                    and _get(values, "user_id") is in_session[1]
                    and kept.get("_login_user") is on_g[0]
                    and kept.get(auth) is on_g[1]
                ):
                    return scope._fields
            return look(scope, request)

        return live


_NOTHING: dict[str, Any] = {}


def _none(_default: None) -> None:
    """A variable that this layout does not have."""


def _logged_in(user: Any, key: object, manager: Any) -> object:
    """The primary key of flask-login's ``user``, as far as it can be read without asking; else
    ``key``. None for its anonymous user."""
    kinds = [(cls.__module__, cls.__name__) for cls in type(user).__mro__]
    if ("flask_login.mixins", "AnonymousUserMixin") in kinds:
        return None
    if type(user) is getattr(manager, "anonymous_user", None):
        return None
    return getattr(user, "__dict__", {}).get("id", key)


@lru_cache(maxsize=64)
def _comes_from(cls: Any, package: str) -> bool:
    """Whether ``cls``, which may be a subclass of the application's own, is of ``package``."""
    return any(base.__module__.startswith(package) for base in cls.__mro__)


def request_of(context: Any) -> Any:
    """The request or websocket of a context, in every layout; None if it has none."""
    state = vars(context)
    for name in ("request", "_request", "request_websocket", "_websocket"):
        found = state.get(name)
        if found is not None:
            return found
    return None

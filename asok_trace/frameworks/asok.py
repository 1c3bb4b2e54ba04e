"""Asok: what its current request says, and where it is entered."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from asok_trace.core import settings, text
from asok_trace.core.scope import UNKNOWN, Scope
from asok_trace.frameworks import environ
from asok_trace.frameworks.base import Entry, Framework
from asok_trace.frameworks.live import live_unowned


class _Asok:
    name: str = "asok"

    # On the instance, where `Asok.__call__` looks them up: a wrapper around the app itself
    # would hide from servers which of WSGI, ASGI2 and ASGI3 it speaks, and middleware misses
    # static files, 404, health and redirects.
    entries: Sequence[Entry] = (
        Entry("_wsgi_call", "wsgi"),
        Entry("_asgi_call", "asgi"),
        Entry("_build_environ_from_asgi", "environ"),
        # Before middleware and error pages, which overwrite what it found.
        Entry("_resolve_request_page", "route"),
    )

    def owns(self, app: object) -> bool:
        return any(
            cls.__module__ == "asok.core.asok" and cls.__name__ == "Asok"
            for cls in type(app).__mro__
        )

    def current(self) -> Any:
        # Through sys.modules each time: `asok dev` throws its modules away and imports anew.
        module = sys.modules.get("asok.context")
        return None if module is None else module.request_var.get()

    def reader(self) -> Callable[[], Any]:
        read: Callable[[], Any] = sys.modules["asok.context"].request_var.get
        return read

    def carried(self, request: Any) -> Scope | None:
        return environ.carried(request.environ)

    def unowned(self, request: Any) -> Scope:
        live = live_unowned(self, settings.default().user)
        return environ.unowned(request.environ, self.facts(request)[0], live)

    def facts(self, request: Any) -> tuple[str | None, str]:
        env = request.environ
        peer, forwarded = env.get("REMOTE_ADDR", ""), env.get("HTTP_X_FORWARDED_FOR")
        return self.client_ip(env.get("asok.app"), peer, forwarded), environ.path(env)

    @staticmethod
    def peek(request: Any) -> object:
        # Never `request.user` or `request.session`: their first read is a query, a session
        # load, sometimes a cookie, and recurses without end under a tampered cookie.
        state = request.__dict__
        if state["_auth_resolved"]:
            user = state["_user_instance"]
            return None if user is None else user.__dict__.get("id", UNKNOWN)
        headers = state["environ"]
        if headers.get("HTTP_AUTHORIZATION", "").startswith("Bearer "):
            return UNKNOWN  # asok asks the token first, and has not yet
        session = state["_session"]
        if session is None:
            return UNKNOWN
        user_id = dict.get(session, "user_id")
        if user_id:
            return user_id
        # An empty session falls back to the login cookie, unless this request just unset it.
        if "asok.session_cookie" in headers or "asok_session" not in state["cookies_dict"]:
            return None
        return UNKNOWN

    def client_ip(self, app: Any, peer: str, forwarded: str | None) -> str | None:
        # asok's own rule (Request.ip), to the letter, and then only what is an address.
        own = text.address(peer)
        if not forwarded:
            return own
        trusted = app.config.get("TRUSTED_PROXIES") if app is not None else None
        if trusted is None or not (trusted == "*" or peer in trusted):
            return own
        return text.address(forwarded.partition(",")[0].strip()) or own

    def route(self, app: Any, found: Any) -> str | None:
        if not isinstance(found, str):
            return None
        for root in app._pages_search_paths:
            if found.startswith(root + os.sep):
                page = os.path.splitext(found[len(root) :])[0].replace(os.sep, "/")
                index = "/" + app.config["INDEX"]
                return page.removesuffix(index) or "/"
        return None

    def activate(self, request: Any) -> AbstractContextManager[Any]:
        managed: AbstractContextManager[Any] = sys.modules["asok.context"].request_context(request)
        return managed


FRAMEWORK: Framework = _Asok()

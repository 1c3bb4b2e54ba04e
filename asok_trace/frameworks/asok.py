"""Asok: what its current request says, and where it is entered."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from asok_trace.core import names, settings, text
from asok_trace.core.scope import UNKNOWN, Fields, Live, Scope
from asok_trace.frameworks import environ
from asok_trace.frameworks.base import Connection, Entry, Framework, Job
from asok_trace.frameworks.live import live_unowned

# On the instance, where `Asok.__call__` looks them up: a wrapper around the app itself would
# hide from servers which of WSGI, ASGI2 and ASGI3 it speaks, and middleware misses static files,
# 404, health and redirects.
_COMPLAINT = Entry("_get_current_object", "complaint", "asok.context:RequestProxy")
# Its own tracing, for which no request is needed.
_TRACING = (
    Entry("start_span", "span", "asok.core.tracing:Tracer"),
    Entry("trace", "traced", "asok.core.tracing"),
    Entry("trace", "traced", "asok"),
)
_APP = (
    Entry("_wsgi_call", "wsgi"),
    Entry("_asgi_call", "asgi"),
    Entry("_build_environ_from_asgi", "environ"),
    # Before middleware and error pages, which overwrite what it found.
    Entry("_resolve_request_page", "route"),
    # All that make a page of an exception; nobody else sees it.
    Entry("_handle_dispatch_exception", "error"),
    Entry("_admin_exception_response", "error"),
    Entry("_send_wsgi_error", "error"),
    Entry("_send_asgi_error", "error"),
    # What leaves the request: looked up on these modules when it does.
    Entry("_run_local_job_with_retries", "job", "asok.background"),
    Entry("_execute_local_attempt", "attempt", "asok.background"),
    Entry("_build_job_dict", "queued", "asok.background"),
    Entry("_do_send", "outlive", "asok.mail:Mail"),
    Entry("error", "error_log", "asok.mail:logger"),
    Entry("async_to_sync", "awaited", "asok.core.asgi"),
    Entry("_execute_task_safe", "cron", "asok.scheduler:ScheduledTask"),
    Entry("_acquire_distributed_lock", "cron_turn", "asok.scheduler:ScheduledTask"),
    Entry("error", "error_log", "asok.scheduler:logger"),
    *_TRACING,
    _COMPLAINT,
)
_WORKER = (
    Entry("_execute_job_in_thread", "consume", "asok.cli.worker"),
    Entry("_parse_and_verify_job", "verified", "asok.cli.worker"),
    Entry("_handle_job_failure", "job_failed", "asok.cli.worker"),
    # A job may queue others.
    Entry("_build_job_dict", "queued", "asok.background"),
    *_TRACING,
)
_WEBSOCKET_SERVER = (
    Entry("_fire_on_connect", "connect"),
    Entry("_dispatch_text_frame", "message"),
    Entry("_fire_on_disconnect", "disconnect"),
    # The server swallows what its handlers raise, here and in live components.
    Entry("error", "error_log", "asok.ws.server:logger"),
    *_TRACING,
    _COMPLAINT,
)
_ENTRIES = {
    ("asok.core.asok", "Asok"): _APP,
    ("asok.ws.server", "WebSocketServer"): _WEBSOCKET_SERVER,
}

# Not the session's own method, which an application may have overridden.
_get = dict.get


class _Asok:
    complaints: tuple[str, ...] = ("Working outside of request context",)
    resumes = True
    websockets = False  # its WebSocketServer is an application of its own
    lingers = False
    receives = False
    worker: Sequence[Entry] = _WORKER

    def entries(self, app: object) -> Sequence[Entry]:
        for cls in type(app).__mro__:
            found = _ENTRIES.get((cls.__module__, cls.__name__))
            if found is not None:
                return found
        return ()

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
        found = self.carried(request)
        if found is not None:
            return found
        live = live_unowned(self, settings.default().user)
        return environ.unowned(request.environ, self.facts(request)[0], live)

    def facts(self, request: Any) -> tuple[str | None, str]:
        env = request.environ
        peer, forwarded = env.get("REMOTE_ADDR") or "", env.get("HTTP_X_FORWARDED_FOR")
        return self.client_ip(env.get("asok.app"), peer, forwarded), environ.path(env)

    @staticmethod
    def synthetic(request: Any) -> bool:
        # Live components and pre-rendered pages get one; a server always says the peer.
        return "REMOTE_ADDR" not in request.environ

    @staticmethod
    def peek(request: Any) -> object:
        # Never `request.user` or `request.session`: their first read is a query, a session
        # load, sometimes a cookie, and recurses without end under a tampered cookie.
        state = request.__dict__
        if state["_auth_resolved"]:
            user = state["_user_instance"]
            if user is None:
                return None
            # A view may log in what it likes: a dict, a name, an object with slots.
            return getattr(user, "__dict__", {}).get("id", UNKNOWN)
        headers = state["environ"]
        if headers.get("HTTP_AUTHORIZATION", "").startswith("Bearer "):
            return UNKNOWN  # asok asks the token first, and has not yet
        session = state["_session"]
        if session is None:
            return UNKNOWN
        user_id = _get(session, "user_id")
        if user_id:
            return user_id
        # An empty session falls back to the login cookie, unless this request just unset it.
        if "asok.session_cookie" in headers or "asok_session" not in state["cookies_dict"]:
            return None
        return UNKNOWN

    @staticmethod
    def handed(request: Any) -> Any:
        return request

    @staticmethod
    def told_by(request: Any) -> object:
        state = request.__dict__
        user = state["_user_instance"] if state["_auth_resolved"] else None
        # A user without a key may get one, by being saved.
        return UNKNOWN if getattr(user, "__dict__", {}).get("id") is None else user

    def live(self, look: Callable[[Scope, Any], Fields]) -> Live:
        current = self.reader()

        def live(scope: Scope) -> Fields:
            # As peek() has it, but for what cannot have changed since. Attributes are faster to
            # read than the __dict__, and these are none that compute: peek() saw them in there.
            own: Any = scope._own
            if own is not None:
                request, user = own
                if request is current():
                    if request._user_instance is user:
                        return scope._fields
                    if request._auth_resolved:
                        if request._user_instance is None and scope._peeked is None:
                            return scope._fields
                    elif (
                        request._session is not None
                        and _get(request._session, "user_id") is scope._peeked
                    ):
                        return scope._fields
            return look(scope, current())

        return live

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
                folder, _, name = page.rpartition("/")
                return (folder or "/") if name in (app.config["INDEX"], "index") else page
        return None

    def connection(self, server: Any, args: tuple[Any, ...], header: str) -> Connection:
        # Called as (route, connection) at both ends, as (connection, payload, handler) between.
        at_an_end = hasattr(args[0], "pattern")
        connection = args[1] if at_an_end else args[0]
        route = args[0] if at_an_end else server._match(connection.path)[0]
        user = connection.user
        headers = connection.headers
        return Connection(
            key=connection,
            path=text.wsgi_path(connection.path),
            route=None if route is None else route.pattern,
            ip=self.client_ip(server.app, connection.addr[0], headers.get("x-forwarded-for")),
            user=None if user is None else getattr(user, "__dict__", {}).get("id", UNKNOWN),
            request=_own_request(connection),
            incoming_id=headers.get(header.lower()),
        )

    def job(self, job: dict[str, Any]) -> Job:
        retries, tried = job.get("retries"), job.get("retry_count")
        # It may be any number that JSON can say.
        tried = tried if isinstance(tried, int) and 0 <= tried < 1_000_000 else 0
        carrier = job.get(names.JOB_CARRIER)
        return Job(
            name=str(job.get("function")),
            id=str(job.get("id")),
            queue=str(job.get("queue") or "default"),
            attempt=tried + 1,
            last=not isinstance(retries, int) or tried >= retries,
            carrier=carrier if isinstance(carrier, dict) else {},
        )

    def queues_elsewhere(self) -> bool:
        # Not by the package's attribute of this name: that is the function.
        return bool(sys.modules["asok.background"]._is_redis_backend())

    @staticmethod
    def view(app: Any, route: str, method: str | None) -> Any:  # noqa: ARG004  # the protocol's
        return None  # a page is a file, which is what was found for the route

    @staticmethod
    def preserved(request: Any) -> bool:  # noqa: ARG004  # the protocol's
        return False

    def traces(self, app: object) -> bool:  # noqa: ARG002  # the protocol's
        return False

    def variables(self) -> Sequence[ContextVar[Any]]:
        return (sys.modules["asok.context"].request_var,)

    @staticmethod
    def matched(request: Any) -> str | None:
        return getattr(request, "_current_page_file", None)

    def activate(self, request: Any) -> AbstractContextManager[Any]:
        managed: AbstractContextManager[Any] = sys.modules["asok.context"].request_context(request)
        return managed


def _own_request(connection: Any) -> Any:
    """A request for one message: a copy of the connection's, with the user that the connection
    has by now. asok too makes live components a new one for each message; a shared one would
    grow (`_asok_sql_log`) as long as the connection lives."""
    request = getattr(connection, "request", None)
    if request is None:
        return None  # asok could make none of this handshake
    made = object.__new__(type(request))
    made.__dict__ = state = dict(vars(request))
    for name, value in state.items():
        if type(value) is dict or type(value) is list:
            state[name] = value.copy()
    made._user_instance = connection.user
    made._auth_resolved = connection.user is not None
    return made


FRAMEWORK: Framework = _Asok()

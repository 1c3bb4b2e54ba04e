"""The scope, and the one ContextVar that holds it.

A `Scope` is one unit of work: an HTTP request, a job, a cron run. A copied context shares the
*reference* to it, so whoever outlives the request sees the same object, closed.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

from asok_trace.core import names, text
from asok_trace.core.errors import ConfigError


class _Unknown:
    """What is not known yet, as against None: known to be nobody."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()

UNCHANGED: Final = object()
"""What a user resolver answers when it was asked by a line of its own: leave the user be."""

Fields = dict[str, str | None]
"""Log field -> text, or None for a user who is known to be nobody."""

# Guards the facts of every scope. One lock for all: they change a few times per request, and
# reading never takes it. Re-entrant, because a collection inside it may run a __del__ that
# logs; made anew after a fork, because another thread may have held it.
_changing = threading.RLock()


def _new_lock() -> None:
    global _changing
    _changing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


_NOTHING: Final[Fields] = {}

Live = Callable[["Scope"], Fields]
"""Returns a scope's fields, after asking the framework what may have changed."""


class Scope:
    """One unit of work: what its log lines say, and whether it is still open.

    Attributes are read-only. Made by `instrument` for each request and by `scope()`; ask
    `current()` for the one you are in.
    """

    __slots__ = (
        "__weakref__",
        "_bound",
        "_ended",
        "_error",
        "_escaped",
        "_events",
        "_fields",
        "_ip",
        "_kind",
        "_line",
        "_live",
        "_method",
        "_name",
        "_open",
        "_own",
        "_path",
        "_peeked",
        "_request_id",
        "_route",
        "_running",
        "_span",
        "_span_ids",
        "_status",
        "_told",
        "_traced",
        "_user",
    )

    def __init__(
        self,
        request_id: str,
        kind: str,
        *,
        name: str | None = None,
        method: str | None = None,
        path: str | None = None,
        ip: str | None = None,
        live: Live | None = None,
        line: Live | None = None,
        events: bool = False,
        bound: Mapping[str, str | None] | None = None,
    ) -> None:
        self._request_id = request_id
        self._kind = kind
        self._name = name
        self._method = method
        self._path = path
        self._ip = ip
        self._route: str | None = None
        self._status: int | None = None
        # What failed, if the framework made an error page of it; for the end of the request.
        self._error: BaseException | None = None
        # For the server's own lines about a request that is over: whether its access line was
        # written, and the id() of what the application let out, for the report of that; and the
        # ids of the request's span, as log fields.
        self._told = False
        self._escaped: int | None = None
        self._span_ids: Fields = _NOTHING
        # That span, as long as this is open.
        self._span: Any = None
        self._user: str | _Unknown | None = UNKNOWN
        # Never changed in place, so that scopes without bound facts can share one.
        self._bound: Fields = dict(bound) if bound else _NOTHING
        self._open = True
        # When it was closed.
        self._ended = 0.0
        # Opened by a gateway or a unit of work, and not ended: a request that begins in its
        # context is one within it.
        self._running = True
        # How to bring `_fields` up to date before it is read; None if nothing can change.
        self._live = live
        # The same for a log line, with the ids of the current span; None if nobody traces.
        self._line = line
        # Whether its log lines become events of the current span.
        self._events = events
        # For `_line` alone: what it put together last, and of what.
        self._traced: tuple[object, Fields, Fields] | None = None
        # For `_live` alone: this scope's own request with what told of its user, and the raw
        # value that `_user` was made of. Comparing by identity makes an unchanged user free.
        self._own: object = None
        self._peeked: object = UNKNOWN
        self._fields = self._own_fields()

    @property
    def request_id(self) -> str:
        """The id on every line of this unit of work, and in the response's header."""
        return self._request_id

    @property
    def kind(self) -> str:
        """``http``, or what `scope()` was given: ``job``, ``cron``, ``task``, ``message``."""
        return self._kind

    @property
    def name(self) -> str | None:
        """What `scope()` was called with; None for an HTTP request."""
        return self._name

    @property
    def method(self) -> str | None:
        """The HTTP method; of a WebSocket: ``connect``, ``message`` or ``disconnect``."""
        return self._method

    @property
    def path(self) -> str | None:
        """The URL path, escaped and bounded, without the query string."""
        return self._path

    @property
    def route(self) -> str | None:
        """The route pattern (``/user/[id]``), None until or unless the framework has one."""
        return self._route

    @property
    def ip(self) -> str | None:
        """The client's address as the framework sees it; None where there is none."""
        return self._ip

    @property
    def user(self) -> str | None:
        """The user's primary key as text; None while unknown and when nobody is logged in."""
        user = self.fields.get(names.USER)
        return user if isinstance(user, str) else None

    @property
    def status(self) -> int | None:
        """The HTTP status, None until the response starts."""
        return self._status

    @property
    def open(self) -> bool:
        """False once the last byte of the response was handed over, or the unit ended."""
        return self._open

    @property
    def fields(self) -> Mapping[str, str | None]:
        """What a line logged now would be stamped with."""
        # Not line(): asking after the end is no late line.
        return MappingProxyType(self.line() if self._open else self.fresh())

    def __repr__(self) -> str:
        what = self._name if self._name is not None else f"{self._method} {self._path}"
        state = "open" if self._open else "closed"
        return f"<Scope {self._kind} {what} {self._request_id} {state}>"

    # A scope is one thing however often its carrier is copied: servers' middlewares deep-copy
    # the ASGI scope it rides in.
    def __copy__(self) -> "Scope":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Scope":
        return self

    def fresh(self) -> Fields:
        """Return the fields, brought up to date. Not to be changed: it is not a copy."""
        live = self._live
        return self._fields if live is None else live(self)

    def line(self) -> Fields:
        """Return what a line logged now is stamped with: `fresh`, and the ids of the current
        span if there is one."""
        line = self._line
        return self.fresh() if line is None else line(self)

    def set_user(self, raw: object) -> None:
        """Take ``raw`` (a primary key, None for nobody, UNKNOWN) as this scope's user."""
        if raw is UNCHANGED:
            return
        user = _user_text(raw)
        if user is UNKNOWN and self._user is not UNKNOWN:
            user = None  # somebody we knew and the framework no longer does: a logout
        with _changing:
            self._peeked = raw
            if user != self._user:
                self._user = user
                self._fields = self._own_fields()

    def bind(self, facts: Mapping[str, object]) -> None:
        """Add ``facts`` to the fields. They win over what the framework says."""
        clean = bindable(facts)
        with _changing:
            self._bound = {**self._bound, **clean}
            self._fields = self._own_fields()

    def seen_as(self, ip: str | None, path: str | None, raw_user: object) -> Fields:
        """Return the fields while another request is current: id and bound facts stay, ip, user
        and path are the other's."""
        return self._made_fields(ip, _user_text(raw_user), path)

    def locate(self, ip: str | None) -> None:
        """Take another address, if there is one: what stands before the application knows it
        better than the server."""
        if ip is not None and ip != self._ip:
            with _changing:
                self._ip = ip
                self._fields = self._own_fields()

    def rename(self, request_id: str) -> None:
        """Take another request id. For the gateway, before anybody has seen the first."""
        self._request_id = request_id
        self._fields = self._own_fields()

    def close(self, live: Live | None = None, line: Live | None = None) -> None:
        """End this unit of work; the framework's request is let go.

        Args:
            live: how the fields are brought up to date from now on.
            line: the same for a line that is logged from now on.
        """
        self._open = False
        self._running = False
        self._ended = time.perf_counter()
        self._live = live
        self._line = line
        self._traced = None
        self._own = None
        self._error = None
        self._span = None

    def _made_fields(self, ip: str | None, user: str | _Unknown | None, path: str | None) -> Fields:
        fields: Fields = {names.REQUEST_ID: self._request_id}
        if ip is not None:
            fields[names.IP] = ip
        if not isinstance(user, _Unknown):
            fields[names.USER] = user
        if path is not None:
            fields[names.PATH] = path
        if self._name is not None:
            fields[names.TASK] = self._name
        fields.update(self._bound)
        return fields

    def _own_fields(self) -> Fields:
        return self._made_fields(self._ip, self._user, self._path)


def _user_text(raw: object) -> str | _Unknown | None:
    if raw is None or isinstance(raw, _Unknown):
        return raw
    return UNKNOWN if raw is UNCHANGED else text.clean(raw, text.USER_LIMIT)


def bindable(facts: Mapping[str, object]) -> Fields:
    """Return ``facts`` as clean text; refuse the names that must not be overridden.

    Raises:
        ConfigError: a name in `names.RESERVED`.
    """
    for key in names.RESERVED & facts.keys():
        raise ConfigError(
            f"{key}={facts[key]!r} cannot be bound: it is the same in the log, the response "
            f"header and the trace. Bind it under another name."
        )
    return {
        key: None
        if value is None
        else text.clean(value, text.USER_LIMIT if key == names.USER else text.VALUE_LIMIT)
        for key, value in facts.items()
    }


ACTIVE: Final[ContextVar[Scope | None]] = ContextVar("asok_trace_scope", default=None)
"""The scope this context works for. Everything else reads it, carries it, or watches it."""

SERVED: Final[ContextVar[Scope | None]] = ContextVar("asok_trace_served", default=None)
"""The scope that the server in this context served last, for the server's own lines about it
(the access line). A context of its own holds `ACTIVE` while the request is served, so that
nothing else that runs on the server's thread afterwards is taken for part of the request."""

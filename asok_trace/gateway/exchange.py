"""One HTTP request from its first byte to its last: what WSGI and ASGI share."""

import time
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from asok_trace.core import ids, text
from asok_trace.core.errors import Piece
from asok_trace.core.scope import Live, Scope
from asok_trace.core.settings import Settings
from asok_trace.frameworks import base, live
from asok_trace.frameworks.base import Framework
from asok_trace.stamp import access

opening: Final = Piece("opening the scope of a request")
routing: Final = Piece("noting the route of a request")
header: Final = Piece("setting the request id header")
closing: Final = Piece("closing the scope of a request")


class Gate(NamedTuple):
    """What a gateway needs to know, decided when it is hooked up."""

    app: Any
    framework: Framework
    settings: Settings
    live: Live
    live_closed: Live

    @classmethod
    def of(cls, app: Any, framework: Framework, settings: Settings) -> "Gate":
        """Return the gate of ``app``."""
        return cls(
            app,
            framework,
            settings,
            live.live_owned(framework, settings.user),
            live.live_closed(framework),
        )


class Exchange:
    """One request and its response, and the scope that is open meanwhile."""

    __slots__ = ("_ended", "_gate", "_started", "request", "scope")

    def __init__(
        self, gate: Gate, *, incoming: str | None, method: str, path: str, ip: str | None
    ) -> None:
        self._gate = gate
        self._started = time.perf_counter()
        self._ended: float | None = None
        # The framework's request, from the start of the response on: a streamed body runs
        # after the framework has put it away.
        self.request: Any = None
        accepted = ids.accept(incoming) if gate.settings.trust_incoming else None
        self.scope = Scope(
            accepted or ids.make(),
            "http",
            method=text.clean(method, text.METHOD_LIMIT),
            path=text.clean(path, text.PATH_LIMIT),
            ip=ip,
            live=gate.live if base.user.working else None,
        )

    def response_started(self, status: int | None) -> None:
        """Take the status, and what the framework knows by now. Never raises."""
        scope = self.scope
        scope._status = status
        scope.fresh()
        try:
            self.request = self._gate.framework.current()
        except Exception as error:
            base.current_request.failed(error)

    def last_byte(self) -> None:
        """Note the time at which the response was handed over whole."""
        self._ended = time.perf_counter()

    def end(self, error: BaseException | None = None) -> None:
        """Close the scope, once, and log the canonical line. Never raises an Exception."""
        scope = self.scope
        if not scope._open:
            return
        try:
            if error is not None and scope._status is None and isinstance(error, Exception):
                scope._status = 500  # what every server answers for us
            fields = scope.fresh()
            scope.close(self._gate.live_closed)
            self.request = None
            if self._gate.settings.access_log and access.line.working:
                self._log(scope, fields, error)
        except Exception as fault:
            scope.close()
            closing.failed(fault)

    def _log(self, scope: Scope, fields: Any, error: BaseException | None) -> None:
        path = scope._path or ""
        if any(fnmatchcase(path, pattern) for pattern in self._gate.settings.exclude):
            return
        seconds = (self._ended or time.perf_counter()) - self._started
        access.log(scope, fields, seconds, error)

"""One HTTP request from its first byte to its last: what WSGI and ASGI share."""

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final
from weakref import ref

from asok_trace.core import findings, ids, text
from asok_trace.core.errors import Piece, attempted, contained
from asok_trace.core.scope import Fields, Scope
from asok_trace.core.settings import STRICT
from asok_trace.detect import explain, leaks, retained
from asok_trace.frameworks import base, otel
from asok_trace.gateway import judge
from asok_trace.gateway.gate import Gate
from asok_trace.stamp import access, tracing

opening: Final = Piece("opening the scope of a request")
routing: Final = Piece("noting the route of a request")
header: Final = Piece("setting the request id header")
closing: Final = Piece("closing the scope of a request", then="the next request is tried again")


class Exchange:
    """One request and its response, and the scope that is open meanwhile."""

    __slots__ = (
        "_ended",
        "_found",
        "_gate",
        "_handed",
        "_made",
        "_measured",
        "_meters",
        "_span",
        "_started",
        "preserved",
        "request",
        "scope",
        "spans",
    )

    def __init__(
        self,
        gate: Gate,
        *,
        incoming: str | None,
        method: str,
        path: str,
        ip: str | None,
        kind: str = "http",
    ) -> None:
        self._gate = gate
        self._started = time.perf_counter()
        findings.serve()
        self._ended: float | None = None
        # The framework's request, from the start of the response on: a streamed body runs
        # after the framework has put it away.
        self.request: Any = None
        # At the level `strict`: what the application knows as the request.
        self._handed: ref[Any] | None = None
        accepted = ids.accept(incoming) if gate.settings.trust_incoming else None
        self._made = accepted is None
        self._span: Any = None
        # What starts and ends spans; None if nobody traces, which costs nothing then.
        self.spans = tracing.spans()
        # As `spans`; and the request as it counts.
        self._meters = tracing.meters()
        self._measured: Any = None
        # Whether a test client goes on in its context when it is over.
        self.preserved = False
        self.scope = Scope(
            accepted or ids.make(),
            kind,
            method=text.clean(method, text.METHOD_LIMIT),
            path=path,
            ip=ip,
            live=gate.live,
            line=None if self.spans is None else otel.line(),
            events=gate.settings.log_events,
        )
        # What was in place before; None once that was compared, or if nothing is looked for.
        self._found = judge.found(gate, traced=self.scope._line is not None)

    @property
    def followed(self) -> bool:
        """Whether somebody traces or measures, so that it has to `begin`."""
        return self.spans is not None or self._meters is not None

    def begin(self, header: Callable[[str], str | None], scheme: str, protocol: str) -> None:
        """Start the server span, and count the request. Never raises an Exception."""
        try:
            if self._gate.framework.traces(self._gate.app):
                # `response_started` finds the application's own span; it measures as well.
                return
            if self.spans is not None:
                self._span = self.spans.start(
                    self.scope,
                    header,
                    scheme,
                    protocol,
                    trust=self._gate.settings.trust_incoming,
                    made=self._made,
                )
        except Exception as error:
            tracing.tracing.failed(error)
        if self._meters is not None:
            self._measured = contained(tracing.measuring, self._counted, scheme, protocol)

    def _counted(self, scheme: str, protocol: str) -> Any:
        """The request as it counts; None if whoever instrumented the application counts it."""
        span = self._span
        theirs = span is not None and span.context is None and span.measured
        if theirs or otel.measures(self._gate.app):
            return None
        return self._meters.begun(self.scope, scheme, protocol)

    def _count_no_more(self) -> None:
        measured, self._measured = self._measured, None
        if measured is not None:
            attempted(tracing.measuring, measured.dropped)

    @property
    def context(self) -> Any:
        """The OpenTelemetry context that has to be current while the request runs, or None."""
        return None if self._span is None else self._span.context

    def attach(self) -> Any:
        """Make that `context` current; what comes back is for `detach`."""
        return attempted(tracing.tracing, self.spans.attach, self.context)

    def detach(self, token: Any) -> None:
        """Undo `attach`."""
        if token is not None:
            attempted(tracing.tracing, self.spans.detach, token)

    def response_started(self, status: object) -> None:
        """Take the status, and what the framework knows by now. Never raises an Exception."""
        self.scope._status = status if isinstance(status, int) else None
        try:
            self.scope.fresh()
            if self._gate.framework.resumes:
                self.request = self._gate.framework.current()
            if self._gate.settings.level == STRICT:
                own: Any = self.scope._own
                self._handed = None if own is None else ref(self._gate.framework.handed(own[0]))
        except Exception as error:
            base.current_request.failed(error)
        if self.spans is not None and self._span is None:
            self._span = contained(tracing.tracing, self._taken)

    def _watch(self) -> None:
        """Have it looked at whether the request goes, now that all is done for it."""
        handed, self._handed = self._handed, None
        if handed is not None and not self.preserved:
            retained.watch(handed, self.scope, self._gate, judge.view)

    def _taken(self) -> Any:
        """The span of another instrumentation, which has started its own within ours."""
        return self.spans.taken(self.scope)

    def judged(self, *, last: bool = True) -> None:
        """Look at what the request leaves in its context, once; before the ``last`` time only if
        the framework is done with it."""
        found = self._found
        if found is not None and (
            self.preserved or judge.left(found, self.scope, self.context, last=last)
        ):
            self._found = None

    def put_away(self) -> None:
        """The application has returned, and its `context` is about to be put away: look at what
        was attached to it."""
        if self._found is not None and self.context is not None and not self.preserved:
            judge.attached(self._found, self.scope, self.context)

    def resume(self) -> None:
        """What is done from now on is still for the request, though its last byte was sent."""
        self.scope._ended = 0.0

    def returned(self) -> None:
        """Nothing more is to be done for the request: whoever goes on is late."""
        scope = self.scope
        # A body that is yet to be closed may have kept the request current.
        if not (scope._open or scope._ended or self.preserved or self._found is not None):
            scope._ended = time.perf_counter()

    def unsent(self) -> None:
        """Forget the status: the application failed before the first piece of its body, with
        which servers send it, so that they answer by themselves."""
        self.scope._status = None

    def last_byte(self) -> None:
        """Note the time at which the response was handed over whole."""
        self._ended = time.perf_counter()

    def end(
        self, error: BaseException | None = None, *, last: bool = True, early: bool = False
    ) -> None:
        """Close the scope, once, and log the canonical line. Never raises an Exception.

        What it leaves is looked at before, as `judged` does; unless that is ``early``. Whoever goes
        on is late; but if this was not the ``last`` or is ``early``, not before it has `returned`.
        """
        scope = self.scope
        if not scope._open:
            self._watch()  # it had ended early
            return
        explain.passing(error, base.complaints)
        try:
            if error is not None and scope._status is None and isinstance(error, Exception):
                scope._status = 500  # what every server answers for us
            scope.fresh()
            if not early:
                self.judged(last=last)
            if error is None:
                error = self._shown(scope)
            else:
                scope._escaped = id(error)
                error = _raised(error, scope._error)
            seconds = (self._ended or time.perf_counter()) - self._started
            fields = scope._fields
            self._measure(seconds, error)
            if self._span is not None:
                fields = self._end_span(scope, error) | fields
            line = scope._line
            scope.close()  # its own line speaks for this request alone, whichever is current
            self.request = None
            if self._gate.settings.access_log:
                self._log(scope, fields, seconds, error)
            scope.close(self._gate.live_closed, leaks.late(line))
            if early or self.preserved or not last:
                self.resume()
        except Exception as fault:
            scope.close()
            closing.failed(fault)
            self._count_no_more()
        if not early:
            self._watch()

    def _shown(self, scope: Scope) -> BaseException | None:
        """The exception that the framework made an error page of, or a WebSocket's end."""
        if scope._status == 101:  # no page can tell any more
            code = getattr(scope._error, "code", None)
            return None if isinstance(code, int) and code < 500 else scope._error
        return scope._error if scope._status is not None and scope._status >= 500 else None

    def _measure(self, seconds: float, error: BaseException | None) -> None:
        """Count that it has ended, once."""
        measured, self._measured = self._measured, None
        if measured is not None:
            attempted(tracing.measuring, measured.ended, seconds, error, self.context)

    def _end_span(self, scope: Scope, error: BaseException | None) -> Fields:
        """End the server span at the last byte; return its ids."""
        try:
            at = None
            if self._ended is not None:
                at = self.spans.now() - int((time.perf_counter() - self._ended) * 1e9)
            self._span.end(scope, error, at)
            ids: Fields = self._span.ids()
            scope._span_ids = ids
        except Exception as fault:
            tracing.tracing.failed(fault)
            return {}
        return ids

    def _log(
        self, scope: Scope, fields: Fields, seconds: float, error: BaseException | None
    ) -> None:
        path = scope._path or ""
        if any(fnmatchcase(path, pattern) for pattern in self._gate.settings.exclude):
            return
        access.log(scope, fields, seconds, error)


def _raised(error: BaseException, noted: BaseException | None) -> BaseException:
    """What was raised, where a framework's own task group, which nobody raised, wraps it:
    ``noted``, if the framework has handled it before; else the only one of the group."""
    if isinstance(error, ExceptionGroup) and noted is not None:
        return noted
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error

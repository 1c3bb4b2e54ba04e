"""The WSGI gateway: a scope per call, open until the body is exhausted, closed or failed."""

import atexit
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from asok_trace.core import findings
from asok_trace.core.errors import Piece, attempted
from asok_trace.core.hooks import Hook
from asok_trace.core.names import CARRIED
from asok_trace.core.scope import ACTIVE, SERVED
from asok_trace.frameworks import environ as environs
from asok_trace.gateway import judge
from asok_trace.gateway.exchange import Exchange, closing, header, opening
from asok_trace.gateway.gate import Gate

Environ = dict[str, Any]

# Flask's test client inside `with client:`, and werkzeug's debugger, go on in the request's context
# when the call is over. What is entered in a copied context cannot be left in theirs.
_PRESERVED: Final = "werkzeug.debug.preserve_context"

resuming: Final = Piece("making the request current while its body is streamed")


def gateway(hook: Hook, gate: Gate) -> Callable[..., Any]:
    """Return the WSGI callable that replaces ``hook.original``."""

    def wsgi(environ: Environ, start_response: Callable[..., Any]) -> Any:
        exchange = None
        if _dropped:
            _end_dropped()
        if hook.active and opening.working:
            try:
                exchange = _open(gate, environ)
            except Exception as error:
                opening.failed(error)
        if exchange is None:
            return hook.original(environ, start_response)
        isolate = gate.settings.isolate and _PRESERVED not in environ
        exchange.preserved = _PRESERVED in environ
        return _Call(exchange, gate, start_response, isolate).run(hook.original, environ)

    return wsgi


def _open(gate: Gate, environ: Environ) -> Exchange | None:
    found = environs.carried(environ)
    if found is not None and found is ACTIVE.get() and found._open:
        return None  # the same request, handed on within the application: one scope
    settings = gate.settings
    exchange = Exchange(
        gate,
        incoming=environs.header(environ, settings.request_id_header),
        method=environ.get("REQUEST_METHOD", "GET"),
        path=environs.path(environ),
        ip=gate.framework.client_ip(
            gate.app, environ.get("REMOTE_ADDR") or "", environ.get("HTTP_X_FORWARDED_FOR")
        ),
    )
    environ[CARRIED] = exchange.scope
    if exchange.followed:
        exchange.begin(
            partial(environs.header, environ),
            environ.get("wsgi.url_scheme", "http"),
            environ.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2],
        )
    return exchange


class _Call:
    """One call of the application: where it runs, and what of it we see."""

    __slots__ = ("_exchange", "_gate", "_isolated", "_start_response")

    def __init__(
        self,
        exchange: Exchange,
        gate: Gate,
        start_response: Callable[..., Any],
        isolate: bool,
    ) -> None:
        self._exchange = exchange
        self._gate = gate
        self._start_response = start_response
        # What a view leaves in its context must not meet the next request on this thread.
        self._isolated = copy_context().run if isolate else None

    @property
    def is_served(self) -> bool:
        """Whether whoever called closes what it gets: werkzeug's test client leaves that, and what
        it has not read, to the test."""
        return getattr(self._start_response, "__module__", None) != "werkzeug.test"

    def run(self, application: Callable[..., Any], environ: Environ) -> Any:
        before = ACTIVE.get()
        if before is None or not before._running:
            # Not for a nested call: the server's line is about the request it serves.
            SERVED.set(self._exchange.scope)
        return self.enter(self._dispatch, application, environ)

    def enter(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function`` in this call's context, with its scope active."""
        if self._isolated is not None:
            return self._isolated(_activated, self._exchange, function, args)
        before = ACTIVE.get()
        try:
            return _activated(self._exchange, function, args)
        finally:
            # Only an outer call that is still dispatching gets its place back.
            ACTIVE.set(before if before is not None and before._running else None)

    def _dispatch(self, application: Callable[..., Any], environ: Environ) -> Any:
        try:
            body = application(environ, self._respond)
        except BaseException as error:
            self._exchange.unsent()
            self._exchange.end(error)
            raise
        if self._gate.framework.resumes:
            self._exchange.judged()  # later it is we who make its request current
        else:
            self._exchange.put_away()
        if type(body) is list or type(body) is tuple:
            self._exchange.end()
            return body
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper) and self._ends_with(body):
            return body
        return _Body(body, self, self._exchange, self._gate)

    def _ends_with(self, body: Any) -> bool:
        """End the request when the server closes ``body``, which it may send by itself (sendfile)
        if it is the very object that it knows. False if that cannot be seen."""
        close = getattr(body, "close", None)

        def closed() -> None:
            try:
                if close is not None:
                    close()
            except BaseException as error:
                self._exchange.end(error)
                raise
            self._exchange.end()

        try:
            body.close = lambda: self.enter(closed)
        except AttributeError:
            return False
        return True

    def _respond(self, status: str, headers: Any, *exc_info: Any) -> Any:
        exchange = self._exchange
        if header.working:
            try:
                headers = _with_id(
                    headers, self._gate.settings.request_id_header, exchange.scope._request_id
                )
            except Exception as error:
                header.failed(error)
        # Passed on as it came: asok's test client takes two arguments only.
        write = self._start_response(status, headers, *exc_info)
        exchange.response_started(_code(status))
        return write


def _code(status: Any) -> int | None:
    """The number that a status line starts with; an application may pass anything."""
    code = status[:3] if isinstance(status, str) else ""
    return int(code) if code.isdecimal() else None


def _activated(exchange: Exchange, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    ACTIVE.set(exchange.scope)
    if exchange.context is None:
        return function(*args)
    # Per step of the body, too: a span's context is never held across a yield.
    token = exchange.attach()
    try:
        return function(*args)
    finally:
        exchange.detach(token)


def _with_id(headers: Any, name: str, request_id: str) -> list[tuple[str, str]]:
    length, lower = len(name), name.lower()
    kept = [pair for pair in headers if len(pair[0]) != length or pair[0].lower() != lower]
    kept.append((name, request_id))
    return kept


class _Body:
    """A response body whose every step runs in the context of its call."""

    __slots__ = ("_body", "_call", "_entered", "_exchange", "_gate", "_iterator", "_sent")

    def __init__(self, body: Any, call: _Call, exchange: Exchange, gate: Gate) -> None:
        self._body = body
        self._call = call
        self._exchange = exchange
        self._gate = gate
        self._iterator: Iterator[Any] | None = None
        self._entered = False
        self._sent = False

    def __iter__(self) -> "_Body":
        return self

    def __next__(self) -> Any:
        return self._step(self._advance)

    def close(self) -> None:
        self._step(self._finish)

    def __del__(self) -> None:
        # Thrown away half-way, without the close() that PEP 3333 asks for. Not ended here: a
        # collection may run while somebody holds the lock of a log handler, and our line would
        # wait for it for ever.
        if self._exchange.scope._open:
            _dropped.append(self)

    def _step(self, function: Callable[[], Any]) -> Any:
        if self._entered:  # closed from within its own step: the context is entered already
            return function()
        self._entered = True
        try:
            return self._call.enter(self._with_request, function)
        finally:
            self._entered = False
            self._exchange.returned()

    def _with_request(self, function: Callable[[], Any]) -> Any:
        request = self._exchange.request
        if request is None or not resuming.working:
            return function()
        try:
            managed = self._gate.framework.activate(request)
            managed.__enter__()
        except Exception as error:
            resuming.failed(error)
            return function()
        try:
            return function()
        finally:
            try:
                managed.__exit__(None, None, None)
            except Exception as error:
                resuming.failed(error)

    def _advance(self) -> Any:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            piece = next(self._iterator)
        except StopIteration:
            self._exchange.end(last=False)  # it may put away more when it is closed
            raise
        except BaseException as error:
            if not self._sent:
                self._exchange.unsent()
            self._exchange.end(error, last=False)
            raise
        self._sent = True
        return piece

    def _finish(self) -> None:
        if self._iterator is not self._body:
            self._iterator = iter(())  # what the body made to iterate over itself ends before it
        exchange = self._exchange
        exchange.resume()
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            exchange.end(error)
            raise
        else:
            exchange.end()
        finally:
            exchange.judged()

    def abandon(self) -> None:
        """End what a server has dropped."""
        self._step(self._abandon)

    def _abandon(self) -> None:
        exchange = self._exchange
        if self._sent and exchange.scope._open and self._call.is_served:
            judge.abandoned(self._gate, exchange.scope)
        self._iterator = self._body = None  # what they do at their end is still this request's
        exchange.end(early=True)
        exchange.judged(last=False)  # what somebody else still holds may put away more
        exchange.end()


# Bodies that were thrown away half-way; ended by the next request, or at exit.
_dropped: "deque[_Body]" = deque()


def _end_dropped() -> None:
    while _dropped:
        try:
            body = _dropped.popleft()
        except IndexError:  # another thread was faster
            return
        attempted(closing, body.abandon)


atexit.register(_end_dropped)
findings._lookers.append(_end_dropped)

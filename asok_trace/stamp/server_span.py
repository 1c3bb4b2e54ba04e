"""The server span of a request, as OpenTelemetry's HTTP conventions (stable) describe it.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
    user_agent_attributes,
)
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

import asok_trace
from asok_trace.core import names, text
from asok_trace.core.scope import ACTIVE, Fields, Scope

# How the tracers of OpenTelemetry's own instrumentations are called.
_INSTRUMENTATIONS: Final = "opentelemetry.instrumentation."

_FLUSH_MILLIS: Final = 5000

Header = Callable[[str], str | None]


class _HeaderGetter(Getter[Header]):
    """Reads propagation headers. A doubled header arrives joined by a comma, which makes a
    traceparent invalid and a tracestate longer, as the W3C recommendation wants."""

    def get(self, carrier: Header, key: str) -> list[str] | None:
        value = carrier(key)
        return None if value is None else [value]

    def keys(self, carrier: Header) -> list[str]:  # noqa: ARG002  # the interface
        return []


_getter: Final = _HeaderGetter()

_tracer_of: tuple[Any, Any] = (None, None)
_fields_of: tuple[Any, tuple[str, ...]] = (None, ())


def _tracer() -> Any:
    global _tracer_of
    provider = trace.get_tracer_provider()
    if _tracer_of[0] is not provider:
        tracer = provider.get_tracer(
            names.TRACER, asok_trace.__version__, schema_url=Schemas.V1_27_0.value
        )
        _tracer_of = (provider, tracer)
    return _tracer_of[1]


class ServerSpan:
    """A request's span: ours, or that of the instrumentation around us.

    ``context`` is what has to be current while the request runs; None if it is already.
    """

    __slots__ = ("_name", "_ours", "context", "span")

    def __init__(self, span: Span, context: Context | None, name: str) -> None:
        self.span = span
        self.context = context
        self._ours = context is not None
        self._name = name

    @property
    def measured(self) -> bool:
        """Whether the instrumentation whose span it is measures requests as well."""
        scope = getattr(self.span, "instrumentation_scope", None)
        return str(getattr(scope, "name", "")).startswith(_INSTRUMENTATIONS)

    def ids(self) -> Fields:
        """The log fields of this span."""
        found = self.span.get_span_context()
        if not found.is_valid:
            return {}
        return {
            names.TRACE_ID: trace.format_trace_id(found.trace_id),
            names.SPAN_ID: trace.format_span_id(found.span_id),
        }

    def end(self, scope: Scope, error: BaseException | None, at: int | None) -> None:
        """Put what the response told on the span, and end it at ``at`` (nanoseconds since the
        epoch; now, if None) if it is ours."""
        span = self.span
        if span.is_recording():
            user = scope._fields.get(names.USER)
            if user is not None:
                span.set_attribute(names.ATTRIBUTE_USER, user)
            if self._ours:
                self._describe(scope, error)
        if self._ours:
            span.end(at)

    def end_message(self, scope: Scope, error: BaseException | None) -> None:
        """End the span of a WebSocket message. Unlike a request's, it has failed whatever was
        raised: there is no client that could have gone, and nobody but asok to catch it."""
        span = self.span
        if span.is_recording():
            user = scope._fields.get(names.USER)
            if user is not None:
                span.set_attribute(names.ATTRIBUTE_USER, user)
            if error is not None:
                _failed(span, error)
        span.end()

    def _describe(self, scope: Scope, error: BaseException | None) -> None:
        span, status = self.span, scope._status
        attributes: dict[str, Any] = {}
        if scope._route is not None:
            span.update_name(f"{self._name} {scope._route}")
            attributes[http_attributes.HTTP_ROUTE] = scope._route
        if status is not None:
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = status
        span.set_attributes(attributes)
        # 4xx is the client's error: the status of a server span stays unset.
        if status is not None and status >= 500 and error is None:
            span.set_attribute(error_attributes.ERROR_TYPE, str(status))
            span.set_status(Status(StatusCode.ERROR))
        elif error is not None and (isinstance(error, Exception) or (status or 0) >= 500):
            _failed(span, error)


def _failed(span: Span, error: BaseException) -> None:
    kind = type(error).__qualname__
    span.set_attribute(error_attributes.ERROR_TYPE, kind)
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, kind))


def start(
    scope: Scope, header: Header, scheme: str, protocol: str, *, trust: bool, made: bool
) -> ServerSpan:
    """Start the server span of ``scope``, or take the one that is there.

    Args:
        scope: the request's scope, not yet active.
        header: reads a request header by its name.
        scheme: ``http`` or ``https``.
        protocol: the version alone, ``1.1`` or ``2``.
        trust: continue a trace from outside.
        made: the request id was made by us; if the span is a root, it becomes the trace id.
    """
    base = _base()
    if base is None:
        span = trace.get_current_span()
        _stamp(span, scope)
        scope._span = span
        return ServerSpan(span, None, "")
    if trust:
        base = _extracted(base, header)
    parent = trace.get_current_span(base).get_span_context()
    root = made and not parent.is_valid
    method = scope._method if scope._method in names.METHODS else "HTTP"
    attributes = _attributes(scope, header, root) | {
        url_attributes.URL_SCHEME: scheme,
        network_attributes.NETWORK_PROTOCOL_VERSION: protocol,
    }
    span = _tracer().start_span(method or "HTTP", base, SpanKind.SERVER, attributes)
    if root:
        _share_id(scope, span)
    scope._span = span
    return ServerSpan(span, trace.set_span_in_context(span, base), method or "HTTP")


def taken(scope: Scope) -> ServerSpan | None:
    """Take the current span for that of ``scope``, if it is a server span that is running."""
    span = trace.get_current_span()
    if getattr(span, "kind", None) is not SpanKind.SERVER or not span.is_recording():
        return None
    _stamp(span, scope)
    scope._span = span
    return ServerSpan(span, None, "")


def start_message(scope: Scope, *, nested: bool) -> ServerSpan:
    """Start the span of a WebSocket message, or of one of the connection's two ends.

    A root: what its thread has as current was left there by whoever started it. Unless it is
    ``nested``, handled inside another scope that is running.

    A message is consumed, as from a queue; the ends are what the server does of itself.
    """
    event, route = scope._method, scope._route
    base = otel_context.get_current() if nested else Context()
    attributes: dict[str, Any] = {
        network_attributes.NETWORK_PROTOCOL_NAME: "websocket",
        url_attributes.URL_PATH: scope._path,
        names.ATTRIBUTE_REQUEST_ID: scope._request_id,
    }
    for field in (names.CONNECTION_ID, names.IP, names.USER):
        value = scope._fields.get(field)
        if value is not None:
            attributes[names.ATTRIBUTES[field]] = value
    name = f"websocket {event}" if route is None else f"websocket {event} {route}"
    kind = SpanKind.CONSUMER if event == "message" else SpanKind.SERVER
    span = _tracer().start_span(name, base, kind, attributes)
    if not trace.get_current_span(base).get_span_context().is_valid:
        _share_id(scope, span)
    scope._span = span
    return ServerSpan(span, trace.set_span_in_context(span, base), name)


def _share_id(scope: Scope, span: Span) -> None:
    """One id for the log, the error page and the trace's search box."""
    found = span.get_span_context()
    if found.is_valid:
        scope.rename(trace.format_trace_id(found.trace_id))
    if span.is_recording():
        span.set_attribute(names.ATTRIBUTE_REQUEST_ID, scope._request_id)


def _stamp(span: Span, scope: Scope) -> None:
    """Put on somebody else's server span what it has not of these facts."""
    present = getattr(span, "attributes", None) or {}
    for field, value in scope._fields.items():
        attribute = names.ATTRIBUTES.get(field, field)
        if value is not None and attribute not in present:
            span.set_attribute(attribute, value)


def _base() -> Context | None:
    """The OpenTelemetry context to start from; None if the current span is the server span of
    another instrumentation."""
    current = otel_context.get_current()
    around = ACTIVE.get()
    if around is not None:
        # A request within a request goes on from it; a context that a server kept from an
        # earlier request is no parent.
        return current if around._running else Context()
    span = trace.get_current_span(current)
    found = span.get_span_context()
    if not found.is_valid or found.is_remote:
        return current
    if getattr(span, "end_time", None) is not None:
        return Context()  # somebody left it behind
    return None if getattr(span, "kind", SpanKind.SERVER) is SpanKind.SERVER else current


def _extracted(base: Context, header: Header) -> Context:
    global _fields_of
    propagator = propagate.get_global_textmap()
    if _fields_of[0] is not propagator:
        _fields_of = (propagator, tuple(propagator.fields))
    if any(header(field) is not None for field in _fields_of[1]):
        return propagator.extract(header, base, _getter)
    return base


def _attributes(scope: Scope, header: Header, root: bool) -> dict[str, Any]:
    method = scope._method or ""
    known = method in names.METHODS
    attributes: dict[str, Any] = {
        http_attributes.HTTP_REQUEST_METHOD: method if known else "_OTHER",
        url_attributes.URL_PATH: scope._path,
    }
    if not root:
        attributes[names.ATTRIBUTE_REQUEST_ID] = scope._request_id
    if not known:
        attributes[http_attributes.HTTP_REQUEST_METHOD_ORIGINAL] = method
    if scope._ip is not None:
        attributes[names.ATTRIBUTES[names.IP]] = scope._ip
    agent = header("User-Agent")
    if agent:
        attributes[user_agent_attributes.USER_AGENT_ORIGINAL] = text.clean(agent, text.VALUE_LIMIT)
    host = header("Host")
    if host:
        name, port = _address(text.clean(host, text.NAME_LIMIT))
        attributes[server_attributes.SERVER_ADDRESS] = name
        if port is not None:
            attributes[server_attributes.SERVER_PORT] = port
    return attributes


def _address(host: str) -> tuple[str, int | None]:
    """Split a Host header, brackets of an IPv6 address included."""
    name, colon, port = host.rpartition(":")
    if colon and port.isascii() and port.isdecimal() and len(port) < 6 and not name.endswith(":"):
        return name.strip("[]"), int(port)
    return host.strip("[]"), None


def flush() -> None:
    """Export what has ended, and what was logged, in five seconds each at the most."""
    provider: Any = trace.get_tracer_provider()
    force_flush = getattr(provider, "force_flush", None)
    if force_flush is not None:
        force_flush(_FLUSH_MILLIS)
    logs = sys.modules.get("asok_trace.stamp.logs")
    if logs is not None:
        logs.flush()


def attach(context: Context) -> Any:
    """Make ``context`` current; the result is for `detach`."""
    return otel_context.attach(context)


def detach(token: Any) -> None:
    """Undo `attach`, in the same context."""
    otel_context.detach(token)


def now() -> int:
    """Nanoseconds since the epoch, as spans count."""
    return time.time_ns()

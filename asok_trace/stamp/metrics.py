"""What is measured: requests, jobs, and what was found.

Requests as OpenTelemetry's HTTP conventions (stable) have it:
https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
Nothing here is labelled by path, ip, user or request id, of which there is no end.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    url_attributes,
)
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION
from opentelemetry.semconv.schemas import Schemas

import asok_trace
from asok_trace.core import finding, findings, names
from asok_trace.core.errors import Piece, contained
from asok_trace.core.scope import Scope
from asok_trace.stamp import exporting

# Seconds; those that the conventions recommend.
_BOUNDARIES: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10
)  # fmt: skip


# Their handshakes are requests, too.
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

# What some servers pass on as the client wrote it.
_VERSIONS: Final = frozenset({"1.0", "1.1", "2", "2.0", "3"})

_FLUSH_MILLIS: Final = 5000

collecting: Final = Piece("telling what was counted")

at_first: Final[list[Callable[[], None]]] = []
"""What is called when a process begins to measure; never raises an Exception."""

_begun: Final[dict[int, object]] = {}

# The method and the scheme.
_Kind = tuple[str, str]


def _begin() -> None:
    mine = object()
    # Without a lock, which a forked child might find taken for ever: one of two threads is first.
    if _begun.setdefault(os.getpid(), mine) is mine:
        for call in at_first:
            call()


class Instruments:
    """The instruments of one meter provider."""

    def __init__(self, provider: metrics.MeterProvider) -> None:
        self._provider = provider
        meter = provider.get_meter(
            names.TRACER, asok_trace.__version__, schema_url=Schemas.V1_27_0.value
        )
        self._durations = meter.create_histogram(
            HTTP_SERVER_REQUEST_DURATION,
            "s",
            "Duration of HTTP requests, from their first byte to the last of their response",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        # By the object that counts one: its process, and what it is. Kept by us, since the SDK's
        # counter takes as long as all the rest.
        self._serving: dict[int, tuple[int, _Kind]] = {}
        self._served: dict[_Kind, None] = {}
        meter.create_observable_up_down_counter(
            names.METRIC_ACTIVE_REQUESTS,
            [_collected(self._observed_active)],
            "{request}",
            "HTTP requests that are being served",
        )
        self._jobs = meter.create_histogram(
            names.METRIC_JOB_DURATION,
            "s",
            "Duration of tasks, jobs and scheduled runs",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        meter.create_observable_counter(
            names.METRIC_FINDINGS,
            [_collected(_observed_findings)],
            "{finding}",
            "How often a context was lost, leaked or missing",
        )
        meter.create_observable_counter(
            names.METRIC_LATE_LINES,
            [_collected(_observed_late)],
            "{line}",
            "Lines and spans after the end of their request",
        )
        meter.create_observable_counter(
            names.METRIC_EXPORT_DROPPED,
            [_collected(_observed_dropped)],
            "{item}",
            "Spans and log lines that were lost on their way to the collector",
        )

    def begun(self, scope: Scope, scheme: str, protocol: str) -> "Measured":
        """Count a request that has begun."""
        process = os.getpid()
        if process not in _begun:
            _begin()
        method = scope._method if scope._method in names.METHODS else "_OTHER"
        kind = (method or "", _SCHEMES.get(scheme, "_OTHER"))
        measured = Measured(self._serving, self._durations, scope, kind, protocol)
        # A WebSocket is no request that is being served; its handshake is one if it is refused.
        if scope._kind != "websocket":
            self._served[kind] = None
            self._serving[id(measured)] = (process, kind)
        return measured

    def worked(
        self, scope: Scope, seconds: float, error: BaseException | None, named: bool
    ) -> None:
        """Count a task, job or scheduled run that has ended, in its span's context; by its name if
        it is ``named`` like a function, of which there is an end."""
        if os.getpid() not in _begun:
            _begin()
        attributes: dict[str, Any] = {names.ATTRIBUTE_WORK_KIND: scope._kind}
        if named and scope._name is not None:
            attributes[names.ATTRIBUTES[names.TASK]] = scope._name
        if error is not None:
            attributes[error_attributes.ERROR_TYPE] = type(error).__qualname__
        self._jobs.record(seconds, attributes)

    def _observed_active(self, _options: CallbackOptions) -> Iterable[Observation]:
        # A forked child does not serve what its parent does.
        here = os.getpid()
        serving = Counter(kind for process, kind in list(self._serving.values()) if process == here)
        return [Observation(serving[kind], _request(kind)) for kind in list(self._served)]

    def flush(self) -> None:
        """Export what was counted, in five seconds at the most."""
        force_flush = getattr(self._provider, "force_flush", None)
        if force_flush is not None:
            force_flush(_FLUSH_MILLIS)


class Measured:
    """A request that is being counted."""

    __slots__ = ("_durations", "_kind", "_protocol", "_scope", "_serving")

    def __init__(
        self,
        serving: dict[int, tuple[int, _Kind]],
        durations: metrics.Histogram,
        scope: Scope,
        kind: _Kind,
        protocol: str,
    ) -> None:
        self._serving = serving
        self._durations = durations
        self._scope = scope
        self._kind = kind
        self._protocol = protocol

    def dropped(self) -> None:
        """Count it no more: it was not seen to end."""
        self._serving.pop(id(self), None)

    def ended(self, seconds: float, error: BaseException | None, context: Context | None) -> None:
        """Count that it has ended; ``context`` has its span, for an exemplar."""
        self.dropped()
        scope = self._scope
        status = scope._status
        if scope._kind == "websocket" and status in (None, 101):
            return
        attributes = _request(self._kind)
        if self._protocol in _VERSIONS:
            attributes[network_attributes.NETWORK_PROTOCOL_VERSION] = self._protocol
        if status is not None:
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = status
        if scope._route is not None:
            attributes[http_attributes.HTTP_ROUTE] = scope._route
        if error is not None:
            attributes[error_attributes.ERROR_TYPE] = type(error).__qualname__
        elif status is not None and status >= 500:
            attributes[error_attributes.ERROR_TYPE] = str(status)
        self._durations.record(seconds, attributes, context)


def _collected(observe: Callable[[CallbackOptions], Iterable[Observation]]) -> Any:
    # The SDK would log a fault each time.
    return lambda options: contained(collecting, observe, options) or ()


def _request(kind: _Kind) -> dict[str, Any]:
    method, scheme = kind
    return {http_attributes.HTTP_REQUEST_METHOD: method, url_attributes.URL_SCHEME: scheme}


def _observed_findings(_options: CallbackOptions) -> Iterable[Observation]:
    # Those never found as well: the first of a counter that was not there before is no increase.
    times = findings.counts()
    return [
        Observation(
            times.get(slug, 0),
            {names.ATTRIBUTE_FINDING: slug, names.ATTRIBUTE_FINDING_KIND: kind},
        )
        for slug, kind in finding.KINDS.items()
    ]


def _observed_late(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(findings.counts().get(finding.LATE, 0))]


def _observed_dropped(_options: CallbackOptions) -> Iterable[Observation]:
    return [
        Observation(number, {names.ATTRIBUTE_SIGNAL: signal, error_attributes.ERROR_TYPE: reason})
        for (signal, reason), number in exporting.dropped().items()
    ]


_made: tuple[Any, Instruments] | None = None


def instruments() -> Instruments:
    """Return the instruments of the process's meter provider."""
    global _made
    provider = metrics.get_meter_provider()
    if _made is None or _made[0] is not provider:
        _made = (provider, Instruments(provider))
    return _made[1]

"""OpenTelemetry's tracer, meter and logger providers, with the exporters that ``OTEL_*`` names.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import atexit
import os
import uuid
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider

from asok_trace.core.errors import ConfigError, Piece, contained
from asok_trace.keep.ring import ring
from asok_trace.stamp.metric_push import MetricPush
from asok_trace.stamp.span_queue import SpanQueue
from asok_trace.stamp.spans import SpanStamper, StampingSampler

renewing: Final = Piece("telling a forked process from its parent", then="their metrics mix")

_HTTP: Final = "otlp_proto_http"
# OTEL_EXPORTER_OTLP_PROTOCOL -> entry points of the exporters' packages, and how to get them.
_PROTOCOLS: Final = {"http/protobuf": _HTTP, "grpc": "otlp_proto_grpc"}
_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
_INSTALL: Final = {
    _HTTP: "asok-trace[otlp]",
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "prometheus": "asok-trace[prometheus]",
}


def set_up(service: str | None) -> Callable[[], None]:
    """Make a tracer and a meter provider for the process, and a logger provider that gets its log
    lines, as far as it has none.

    The spans of a tracer provider that is there are stamped. Does nothing under
    ``OTEL_SDK_DISABLED=true``.

    Returns:
        How to have no more lines exported.

    Raises:
        ConfigError: an exporter that is not installed, or cannot be made.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return _nothing
    existing = trace.get_tracer_provider()
    traced = not isinstance(existing, trace.ProxyTracerProvider)
    measured = _is_meant(metrics.get_meter_provider())
    logged = _is_meant(_logs.get_logger_provider())
    # All of them before any provider is set: nobody can take one back.
    span_exporters = None if traced else _exporters("traces")
    metric_exporters = None if measured else _exporters("metrics")
    log_exporters = None if logged else _exporters("logs")
    logs = _line_exporting() if log_exporters else None
    # Resource.create() reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
    resource = Resource.create({SERVICE_NAME: service} if service else {})
    if SERVICE_INSTANCE_ID not in resource.attributes:
        resource = resource.merge(_instance())
    if traced:
        _stamp_spans(existing)
    else:
        trace.set_tracer_provider(_tracer_provider(span_exporters, resource))
    if metric_exporters:
        readers = [exporter.reader() for exporter in metric_exporters]
        provider = MeterProvider(readers, resource)
        metrics.set_meter_provider(provider)
        # Newer SDKs do it themselves.
        if hasattr(os, "register_at_fork") and not hasattr(provider, "_handle_fork"):
            os.register_at_fork(after_in_child=partial(contained, renewing, _renew, provider))
    if logs is not None:
        _make_logger_provider(logs, log_exporters, resource)
    return _nothing if _lines is None else _lines()


# How to have lines exported, once there is a logger provider of ours.
_lines: Callable[[], Callable[[], None]] | None = None


def _nothing() -> None:
    """Undo nothing."""


def _line_exporting() -> Any:
    try:
        return import_module("asok_trace.stamp.logs")
    except ImportError as error:  # in older SDKs the API for logs was another
        raise ConfigError(
            f"The OTEL_* variables ask for the export of log lines, for which opentelemetry-sdk "
            f"{version('opentelemetry-sdk')} is too old: {error}. Install opentelemetry-sdk>=1.39, "
            f"or set OTEL_LOGS_EXPORTER=none."
        ) from error


def _make_logger_provider(
    logs: Any, exporters: "list[_Exporter] | None", resource: Resource
) -> None:
    global _lines
    provider = logs.provider(exporters, resource)
    _logs.set_logger_provider(provider)
    _lines = partial(logs.export_to, provider)
    atexit.register(logs.end)


def _instance() -> Resource:
    """What tells the metrics of this process from another's, which would overwrite them."""
    return Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4())})


def _renew(provider: MeterProvider) -> None:
    """A forked child is another instance. There is no public way."""
    config = provider._sdk_config
    config.resource = config.resource.merge(_instance())


def named() -> bool:
    """Whether the environment names an exporter."""
    return any(os.environ.get(f"OTEL_{s}_EXPORTER") or _otlp(s, "ENDPOINT") for s in _SIGNALS)


def _tracer_provider(exporters: "list[_Exporter] | None", resource: Resource) -> TracerProvider:
    provider = TracerProvider(resource=resource)
    # Wrapped after the fact: the provider reads OTEL_TRACES_SAMPLER itself.
    provider.sampler = StampingSampler(provider.sampler)
    if exporters is None:
        provider.add_span_processor(ring())
    for exporter in exporters or ():
        provider.add_span_processor(SpanQueue(exporter))
    return provider


def _stamp_spans(provider: trace.TracerProvider) -> None:
    """Stamp the spans of somebody's provider, if it is the SDK's and does not do it yet."""
    if not isinstance(provider, TracerProvider) or isinstance(provider.sampler, StampingSampler):
        return
    processors = getattr(provider._active_span_processor, "_span_processors", ())
    if not any(isinstance(processor, SpanStamper) for processor in processors):
        provider.add_span_processor(SpanStamper())


def _is_meant(provider: metrics.MeterProvider | _logs.LoggerProvider) -> bool:
    """Whether somebody has set ``provider``. The API's own stand-in, whose class has no public
    name, is what there is before; its other one, the no-op, says that none is wanted."""
    api = ("opentelemetry.metrics", "opentelemetry._logs")
    no_op = (metrics.NoOpMeterProvider, _logs.NoOpLoggerProvider)
    return not type(provider).__module__.startswith(api) or isinstance(provider, no_op)


class _Exporter:
    """An exporter that a forked child makes anew.

    Its parent's holds connections, which two processes must not talk on, and locks, which a
    thread that is not in the child may have held.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made = make()
        self._process = os.getpid()

    # Everything that the SDK asks of an exporter, public or not.
    def __getattr__(self, name: str) -> Any:
        if self._process != os.getpid():
            self._made = self._make()
            self._process = os.getpid()
        return getattr(self._made, name)

    def reader(self) -> MetricReader:
        """A reader that exports to it; some exporters (Prometheus) are readers themselves."""
        if isinstance(self._made, MetricReader):
            return self._made
        return MetricPush(self)


def _exporters(signal: str) -> list[_Exporter] | None:
    """The exporters for ``signal``; None if the environment asks for none in particular.

    Raises:
        ConfigError: one that is not installed, or cannot be made.
    """
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    value = os.environ.get(variable, "").strip()
    if value:
        named = dict.fromkeys(name.strip() for name in value.split(","))
        return [
            _exporter(signal, name, f'{variable}="{value}"')
            for name in named
            if name and name != "none"
        ]
    endpoint = _otlp(signal, "ENDPOINT")
    return None if endpoint is None else [_exporter(signal, "otlp", '{}="{}"'.format(*endpoint))]


def _exporter(signal: str, name: str, given: str) -> _Exporter:
    entry = _otlp_entry(signal) if name == "otlp" else name
    found = entry_points(group=f"opentelemetry_{signal}_exporter", name=entry)
    for exporter in found:
        try:
            make = exporter.load()
            if (signal, entry) == ("metrics", "prometheus"):
                # The official one serves one process alone, from where it is made.
                make = import_module("asok_trace.stamp.scrape").Endpoint
            return _Exporter(make)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f'{given}: the {signal} exporter "{entry}" cannot be made: {error!r}. Correct '
                f"the OTEL_EXPORTER_* variables that it reads, or unset this one."
            ) from error
    package = _INSTALL.get(entry, f'the package of the exporter "{entry}"')
    raise ConfigError(
        f'{given} asks for the {signal} exporter "{entry}", which is not installed. '
        f"Install {package}, or unset the variable."
    )


def _otlp(signal: str, what: str) -> tuple[str, str] | None:
    """The variable of the OTLP exporter that holds for ``signal``, and its value."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}"):
        value = os.environ.get(variable, "").strip()
        if value:
            return variable, value
    return None


def _otlp_entry(signal: str) -> str:
    variable, protocol = _otlp(signal, "PROTOCOL") or ("", "http/protobuf")
    if protocol not in _PROTOCOLS:
        raise ConfigError(
            f'{variable}="{protocol}" is not a protocol that is known here. '
            f'Use "http/protobuf" or "grpc".'
        )
    variable, endpoint = _otlp(signal, "ENDPOINT") or ("", "http://localhost:4318")
    if protocol == "http/protobuf" and not endpoint.startswith(("http://", "https://")):
        # It would be logged by the exporter every few seconds, and nowhere else.
        raise ConfigError(
            f'{variable}="{endpoint}" has no scheme, without which nothing can be sent by HTTP. '
            f'Use "http://{endpoint}".'
        )
    return _PROTOCOLS[protocol]

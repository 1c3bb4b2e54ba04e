"""`setup()` sets up everything there is to set up, keeps what is there already, and explains
what it cannot do. Without a framework: `test_setup_asok` goes on with an application."""

import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.util._once import Once

import asok_trace
from asok_trace import providers
from asok_trace.core import settings
from asok_trace.stamp import stdlib
from asok_trace.stamp.structlog import put_in_chain
from tests.programs import run


@pytest.fixture
def pristine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nobody has set a provider, and whose environment says nothing."""
    for variable in os.environ:
        if variable.startswith("OTEL_"):
            monkeypatch.delenv(variable)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER_SET_ONCE", Once())
    yield
    for provider in (trace._TRACER_PROVIDER, metrics_internal._METER_PROVIDER):
        if isinstance(provider, (TracerProvider, MeterProvider)):
            provider.shutdown()


def processors(provider: Any) -> list[str]:
    """The class names of the span processors."""
    return [type(one).__name__ for one in provider._active_span_processor._span_processors]


# One call, nothing else.


def test_one_call_does_it_all() -> None:
    """Lines of structlog are printed, stamped, with the ids of their span; records of the
    standard library are stamped; and report() shows the spans as a tree with durations."""
    out = run(
        """
import logging, structlog, asok_trace
from opentelemetry import trace

asok_trace.setup(service="shop")
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
records = []
handler.emit = records.append
tracer = trace.get_tracer("shop")
with asok_trace.scope("nightly") as scope, tracer.start_as_current_span("outer") as span:
    with tracer.start_as_current_span("inner"):
        structlog.get_logger().info("hello")
    logging.warning("record")
[record] = records
ids = span.get_span_context()
assert record.request_id == scope.request_id
assert record.trace_id == trace.format_trace_id(ids.trace_id)
assert record.span_id == trace.format_span_id(ids.span_id)
print(scope.request_id, record.trace_id, span.resource.attributes["service.name"])
print(asok_trace.report())
"""
    )
    line, ids, *tree = out.splitlines()
    request_id, trace_id, service = ids.split()
    said = json.loads(line)
    assert (said["event"], said["request_id"]) == ("hello", request_id)
    assert said["trace_id"] == trace_id
    assert re.fullmatch(r"[0-9a-f]{16}", said["span_id"])
    assert service == "shop"
    [outer, inner] = tree
    milliseconds = r"[0-9]+\.[0-9] ms"
    expected = rf"outer  {milliseconds}  request.id={request_id}  trace {trace_id}"
    assert re.fullmatch(expected, outer)
    assert re.fullmatch(rf"└─ inner  {milliseconds}", inner)


def test_the_last_moments_are_exported_at_exit() -> None:
    """What has ended right before the process does is exported."""
    out = run(
        """
import asok_trace
from opentelemetry import trace

asok_trace.setup()
with asok_trace.scope("nightly"):
    trace.get_tracer("shop").start_span("last").end()
""",
        OTEL_TRACES_EXPORTER="console",
    )
    assert json.loads(out)["name"] == "last"


def test_disabled() -> None:
    """Under OTEL_SDK_DISABLED=true no provider is made and no exporter looked for; lines are
    stamped all the same."""
    out = run(
        """
import sys, structlog, asok_trace

asok_trace.setup()
with asok_trace.scope("nightly"):
    structlog.get_logger().info("hello")
from opentelemetry import metrics, trace
assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
assert not hasattr(metrics.get_meter_provider(), "_sdk_config")
""",
        OTEL_SDK_DISABLED="True",
        OTEL_TRACES_EXPORTER="unknown",
    )
    line = json.loads(out)
    assert "request_id" in line
    assert "trace_id" not in line


# Lines: structlog and the standard library.


def test_an_unconfigured_structlog_gets_the_one_liner(pristine: None) -> None:
    """And is unconfigured again after undo(), unless somebody has configured it since."""
    with asok_trace.setup():
        assert structlog.get_config()["processors"] == [asok_trace.inject]
    assert not structlog.is_configured()
    with asok_trace.setup():
        structlog.configure(processors=[structlog.processors.JSONRenderer()])
    assert structlog.is_configured()


@pytest.mark.parametrize("kind", [list, tuple])
def test_inject_is_put_in_front_of_the_last_processor(kind: type) -> None:
    """Of whatever kind of sequence; the rest of the chain, and of the configuration, stays. It
    is taken out again."""
    chain = [structlog.processors.add_log_level, structlog.processors.JSONRenderer()]
    structlog.configure(processors=kind(chain), context_class=dict, cache_logger_on_first_use=True)
    undo = put_in_chain()
    assert list(structlog.get_config()["processors"]) == [chain[0], asok_trace.inject, chain[1]]
    assert structlog.get_config()["cache_logger_on_first_use"]
    undo()
    undo()
    assert list(structlog.get_config()["processors"]) == chain


def test_inject_is_not_put_in_twice() -> None:
    """A chain that has it is left alone, also by undo()."""
    chain = [asok_trace.inject, structlog.processors.JSONRenderer()]
    structlog.configure(processors=chain)
    put_in_chain()()
    assert structlog.get_config()["processors"] is chain
    assert chain.count(asok_trace.inject) == 1


def test_an_empty_chain() -> None:
    """It gets what an unconfigured structlog does."""
    structlog.configure(processors=[])
    put_in_chain()
    assert structlog.get_config()["processors"] == [asok_trace.inject]


def test_loggers_that_were_bound_before_are_stamped(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger that was cached or bound before setup() has the same chain."""
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], cache_logger_on_first_use=True
    )
    cached, bound = structlog.get_logger(), structlog.get_logger().bind(a=1)
    cached.info("starting")
    undo = put_in_chain()
    with asok_trace.scope("nightly") as scope:
        cached.info("cached")
        bound.info("bound")
    undo()
    _, *lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["request_id"] for line in lines] == [scope.request_id] * 2


def test_the_logging_set_up_is_kept(pristine: None) -> None:
    """No handler, level or filter of the standard library is touched."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, list(root.filters))
    with asok_trace.setup():
        assert (root.handlers, root.level, root.filters) == before


# Tracer and meter providers.


def test_without_an_exporter_spans_are_kept_in_memory(pristine: None) -> None:
    """In the bounded ring, and nowhere else; no metrics are collected for nobody."""
    with asok_trace.setup():
        assert processors(trace.get_tracer_provider()) == ["Ring"]
        assert not isinstance(metrics.get_meter_provider(), MeterProvider)


@pytest.mark.parametrize(
    ("exporters", "expected"),
    [
        ("none", []),
        ("console", ["SpanQueue"]),
        (" console , console,", ["SpanQueue"]),
    ],
)
def test_the_exporters_that_are_named(
    pristine: None, monkeypatch: pytest.MonkeyPatch, exporters: str, expected: list[str]
) -> None:
    """OTEL_TRACES_EXPORTER says where spans go, each once; ``none`` is nowhere, while log lines
    still get the ids."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporters)
    with asok_trace.setup():
        provider = trace.get_tracer_provider()
        assert processors(provider) == expected
        assert provider.get_tracer("test").start_span("x").get_span_context().is_valid


def test_an_existing_tracer_provider_is_kept(pristine: None) -> None:
    """Its spans are stamped, once, however often setup() is called."""
    provider = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)
    with asok_trace.setup(), asok_trace.setup():
        assert trace.get_tracer_provider() is provider
        assert processors(provider) == ["SpanStamper"]


@pytest.mark.parametrize("by", ["sampler", "processor"])
def test_spans_that_are_stamped_are_not_stamped_again(pristine: None, by: str) -> None:
    """Somebody's StampingSampler or SpanStamper is enough."""
    if by == "sampler":
        sampler = asok_trace.StampingSampler(ALWAYS_ON)
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    else:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(asok_trace.SpanStamper())
    before = processors(provider)
    trace.set_tracer_provider(provider)
    with asok_trace.setup():
        assert processors(provider) == before


def test_our_own_provider_is_not_stamped_twice(pristine: None) -> None:
    """setup() again finds the provider that it has made."""
    with asok_trace.setup():
        provider = trace.get_tracer_provider()
        with asok_trace.setup():
            assert trace.get_tracer_provider() is provider
            assert processors(provider) == ["Ring"]


@pytest.mark.parametrize("provider", [trace.NoOpTracerProvider(), object()])
def test_a_provider_of_another_kind_is_kept(pristine: None, provider: Any) -> None:
    """One that is not the SDK's has no spans to stamp."""
    trace.set_tracer_provider(provider)
    with asok_trace.setup():
        assert trace.get_tracer_provider() is provider


def test_a_meter_provider_is_made_where_an_exporter_is_named(
    pristine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the resource of the spans."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    with asok_trace.setup(service="shop"):
        made = metrics.get_meter_provider()
        assert isinstance(made, MeterProvider)
        assert made._sdk_config.resource.attributes["service.name"] == "shop"


@pytest.mark.parametrize("provider", [metrics.NoOpMeterProvider(), MeterProvider()])
def test_an_existing_meter_provider_is_kept(
    pristine: None, monkeypatch: pytest.MonkeyPatch, provider: Any
) -> None:
    """Also the one that says that no metrics are wanted."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    metrics.set_meter_provider(provider)
    with asok_trace.setup():
        assert metrics.get_meter_provider() is provider


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ({}, {}, "unknown_service"),
        ({}, {"OTEL_SERVICE_NAME": "otel"}, "otel"),
        ({}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=attributes"}, "attributes"),
        ({}, {"OTEL_SERVICE_NAME": "otel", "ASOK_TRACE_SERVICE": "ours"}, "ours"),
        ({"service": "argument"}, {"ASOK_TRACE_SERVICE": "ours"}, "argument"),
        ({"service": "argument"}, {"OTEL_SERVICE_NAME": "otel"}, "argument"),
    ],
)
def test_the_service_name(
    pristine: None,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    environment: dict[str, str],
    expected: str,
) -> None:
    """The argument is stronger than ASOK_TRACE_SERVICE, that than OTEL_SERVICE_NAME, that than
    OTEL_RESOURCE_ATTRIBUTES; the other attributes of that variable stay."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"{attributes},team=blue".strip(","))
    with asok_trace.setup(**arguments):
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        assert str(provider.resource.attributes["service.name"]).startswith(expected)
        assert provider.resource.attributes["team"] == "blue"


@pytest.mark.parametrize(("sampler", "kept"), [("always_off", 0), ("always_on", 1)])
def test_the_sampler_is_the_environments(
    pristine: None, monkeypatch: pytest.MonkeyPatch, sampler: str, kept: int
) -> None:
    """OTEL_TRACES_SAMPLER decides which spans there are; those are stamped."""
    providers.ring()._start()  # empty
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    with asok_trace.setup(), asok_trace.scope("nightly") as scope:
        trace.get_tracer_provider().get_tracer("test").start_span("x").end()
    assert asok_trace.report().count(f"request.id={scope.request_id}") == kept


# What it cannot do.


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            'OTEL_TRACES_EXPORTER="zipkin" asks for the traces exporter "zipkin", which is not '
            'installed. Install the package of the exporter "zipkin", or unset the variable.',
        ),
        (
            {"OTEL_METRICS_EXPORTER": "carbon"},
            'OTEL_METRICS_EXPORTER="carbon" asks for the metrics exporter "carbon", which is not '
            'installed. Install the package of the exporter "carbon", or unset',
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:1",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://localhost:1" asks for the traces '
            'exporter "otlp_proto_grpc", which is not installed. '
            "Install opentelemetry-exporter-otlp-proto-grpc, or unset",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"},
            'OTEL_EXPORTER_OTLP_ENDPOINT="http://localhost:1" asks for the traces exporter '
            '"otlp_proto_http", which is not installed. Install asok-trace[otlp], or unset',
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/xml"},
            'OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/xml" is not a protocol that is known here. '
            'Use "http/protobuf" or "grpc".',
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"},
            'OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318" has no scheme, without which nothing '
            'can be sent by HTTP. Use "http://localhost:4318".',
        ),
    ],
)
def test_what_is_named_and_cannot_be_used_is_explained(
    pristine: None, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], text: str
) -> None:
    """The error says the variable with its value, the reason and the remedy; and nothing is set
    up, so that the call can be made again."""
    monkeypatch.setattr(providers, "entry_points", lambda **_: ())
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(asok_trace.ConfigError) as raised:
        asok_trace.setup(service="shop")
    assert text in str(raised.value)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert not structlog.is_configured()
    assert not stdlib.active()
    assert settings.default() == settings.Settings()


def test_an_exporter_that_cannot_be_made_is_explained(
    pristine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the exporter's own constructor says."""

    class Entry:
        @staticmethod
        def load() -> Any:
            return lambda: int("ten")

    monkeypatch.setattr(providers, "entry_points", lambda **_: [Entry])
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "own")
    with pytest.raises(asok_trace.ConfigError, match=r'="own": the traces .* ValueError.*Correct'):
        asok_trace.setup()


@pytest.mark.parametrize("app", ["shop", object(), 7])
def test_what_is_no_application_is_explained(pristine: None, app: object) -> None:
    """Before anything is set up."""
    with pytest.raises(asok_trace.ConfigError, match="cannot be instrumented"):
        asok_trace.setup(app)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


# Twice, and back.


def test_undo_takes_back_what_the_call_has_set_up(pristine: None) -> None:
    """And nothing that was there before it: not what stamp_logging or setup() did earlier."""
    with asok_trace.stamp_logging():
        asok_trace.setup().undo()
        assert stdlib.active()
    first = asok_trace.setup(log_events=True)
    second = asok_trace.setup()
    second.undo()
    assert stdlib.active()
    assert structlog.is_configured()
    assert settings.default().log_events
    first.undo()
    first.undo()
    assert not stdlib.active()
    assert not structlog.is_configured()
    assert settings.default() == settings.Settings()


def test_later_settings_outlive_the_undo_of_earlier_ones(pristine: None) -> None:
    """An undo() takes back its own settings, not somebody's since."""
    first = asok_trace.setup(log_events=True)
    second = asok_trace.setup(service="shop")
    first.undo()
    assert settings.default().service == "shop"
    second.undo()


def test_the_settings_last() -> None:
    """Touching another public name afterwards does not bring the environment's back."""
    run(
        """
import asok_trace
from asok_trace.core import settings

asok_trace.setup(log_events=True)
asok_trace.scope, asok_trace.bind, asok_trace.report
assert settings.default().log_events
assert settings.default().service == "ours"
""",
        ASOK_TRACE_SERVICE="ours",
    )

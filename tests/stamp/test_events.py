"""`log_events`: a log line is an event of the span it was logged in, once, and bounded."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from structlog.stdlib import ProcessorFormatter

import asok_trace
from asok_trace.core import settings
from asok_trace.stamp import events

Event = dict[str, Any]


class Lines:
    """The events of a span."""

    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def events(self) -> list[Event]:
        """Each as its name and its attributes."""
        return [{"name": e.name, **dict(e.attributes)} for e in self._span.events]

    @property
    def names(self) -> list[str]:
        """The names of the events, in order."""
        return [event["name"] for event in self.events]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """A tracer provider of this test's own, as far as anybody can tell."""
    made = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made)
    return made


@pytest.fixture
def span(provider: TracerProvider) -> Iterator[Lines]:
    """A unit of work with a span in it, whose log lines become events."""
    settings.set_default(settings.Settings(log_events=True))
    with (
        asok_trace.scope("nightly"),
        provider.get_tracer("test").start_as_current_span("work") as current,
    ):
        yield Lines(current)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger with nothing above it."""
    made = logging.getLogger("shop.events")
    made.setLevel(logging.INFO)
    made.propagate = False
    yield made
    made.handlers.clear()
    made.setLevel(logging.NOTSET)
    made.propagate = True


@pytest.fixture(params=[True, False], ids=["stamp_logging", "filters"])
def stamped(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every record is stamped; or those only that a filter sees."""
    if request.param:
        with asok_trace.stamp_logging():
            yield
    else:
        yield


def handlers(logger: logging.Logger, formatter: logging.Formatter | None = None) -> None:
    """Two handlers, each with a filter of ours."""
    for _ in range(2):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(formatter)
        handler.addFilter(asok_trace.RequestFilter())
        logger.addHandler(handler)


def on_stdlib(*last: Any) -> None:
    """structlog on top of the standard library, its chain ending in ``last``."""
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, asok_trace.inject, *last],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


SAID = {"name": "sold", "level": "info", "item": "hat", "price": 7}


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param([asok_trace.inject], id="one-liner"),
        pytest.param([asok_trace.inject, structlog.processors.JSONRenderer()], id="json"),
        pytest.param([asok_trace.inject, structlog.dev.ConsoleRenderer()], id="console"),
    ],
)
def test_structlog_alone(span: Lines, stamped: None, chain: list[Any]) -> None:
    """A line that structlog prints is one event, with its own fields; what the span says of the
    request anyway is not repeated."""
    structlog.configure(processors=chain)
    log = structlog.get_logger()
    log.info("sold", item="hat", price=7)
    log.bind(user="9").warning("again")
    assert span.events == [SAID, {"name": "again", "level": "warning"}]


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(structlog.stdlib.render_to_log_kwargs, id="render_to_log_kwargs"),
        pytest.param(ProcessorFormatter.wrap_for_formatter, id="wrap_for_formatter"),
        pytest.param(structlog.processors.JSONRenderer(), id="json"),
        pytest.param(structlog.dev.ConsoleRenderer(), id="console"),
    ],
)
def test_structlog_on_the_standard_library(
    span: Lines, stamped: None, logger: logging.Logger, last: Any
) -> None:
    """The line that goes on to a logger is one event, as structlog knew it, however it is handed
    on and however many of us see it. Lines that the logger itself is told are their own."""
    on_stdlib(last)
    formatter = None
    if last is ProcessorFormatter.wrap_for_formatter:
        formatter = ProcessorFormatter(
            processors=[
                asok_trace.inject,
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[asok_trace.inject],
        )
    handlers(logger, formatter)
    log = structlog.get_logger(logger.name)
    log.info("sold", item="hat", price=7)
    logger.info("plain %s", "line")
    log.debug("not logged: the logger is at INFO")
    logger.info("plain %s", "line")
    log.info("sold", item="hat", price=7)
    plain = {"name": "plain line", "level": "info", "logger": logger.name}
    assert span.events == [SAID, plain, plain, SAID]


def test_the_one_liner_on_the_standard_library(
    span: Lines, stamped: None, logger: logging.Logger
) -> None:
    """`inject` renders the line, and it is one event."""
    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.stdlib.LoggerFactory()
    )
    handlers(logger)
    structlog.get_logger(logger.name).info("sold", item="hat", price=7)
    assert span.events == [SAID]


def test_a_formatter_alone(span: Lines, logger: logging.Logger) -> None:
    """``foreign_pre_chain=[inject]`` may be all there is of us: then a record is added there, by
    whichever handler comes first."""
    formatter = ProcessorFormatter(
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
        foreign_pre_chain=[asok_trace.inject],
    )
    handlers(logger, formatter)
    for handler in logger.handlers:
        handler.filters.clear()
    logger.info("plain")
    assert span.names == ["plain"]


def test_a_chain_without_inject(span: Lines, stamped: None, logger: logging.Logger) -> None:
    """What structlog hands to the standard library unseen is added there, with its fields."""
    handlers(logger, logging.Formatter("%(message)s"))
    log = structlog.wrap_logger(
        logger, processors=[ProcessorFormatter.wrap_for_formatter], wrapper_class=None
    )
    log.info("sold", item="hat", price=7)
    assert span.events == [SAID]


@pytest.mark.parametrize("level", ["info", "warning", "error", "exception", "critical"])
def test_the_standard_library(
    span: Lines, stamped: None, logger: logging.Logger, level: str
) -> None:
    """A record is one event, however many handlers see it."""
    handlers(logger)
    getattr(logger, level)("said %d", 1, exc_info=None)
    said = {"name": "said 1", "logger": logger.name}
    assert span.events == [{**said, "level": "error" if level == "exception" else level}]


def test_a_line_within_a_line(span: Lines, stamped: None, logger: logging.Logger) -> None:
    """A handler and a processor that log, to the same logger, while they work on a line: every
    line is its own event, once."""
    handlers(logger)

    class Chatty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("{"):
                logging.getLogger("shop.other").warning("handling")

    other = logging.getLogger("shop.other")
    other.addFilter(asok_trace.RequestFilter())
    logger.handlers.insert(1, Chatty())

    def chatty(_logger: Any, _name: str, event: Any) -> Any:
        logger.info("processing")
        return event

    on_stdlib(chatty, structlog.processors.JSONRenderer())
    structlog.get_logger(logger.name).info("sold")
    other.filters.clear()
    assert sorted(span.names) == ["handling", "processing", "sold"]


def test_a_line_that_a_later_processor_drops(
    span: Lines, stamped: None, logger: logging.Logger
) -> None:
    """The next record of that logger is not mistaken for it."""

    def drop(_logger: Any, _name: str, _event: Any) -> Any:
        raise structlog.DropEvent

    handlers(logger)
    on_stdlib(drop)
    structlog.get_logger(logger.name).info("dropped")
    logger.info("kept")
    assert span.names[-1] == "kept"


def test_the_current_span_gets_it(span: Lines, provider: TracerProvider) -> None:
    """A line inside an inner span is an event of that one."""
    structlog.configure(processors=[asok_trace.inject])
    log = structlog.get_logger()
    with provider.get_tracer("test").start_as_current_span("inner") as inner:
        log.info("inside")
    log.info("outside")
    assert Lines(inner).names == ["inside"]
    assert span.names == ["outside"]


def test_off_unless_asked_for(provider: TracerProvider, logger: logging.Logger) -> None:
    """By default no line is an event."""
    handlers(logger)
    structlog.configure(processors=[asok_trace.inject])
    tracer = provider.get_tracer("test")
    with asok_trace.scope("nightly"), tracer.start_as_current_span("work") as current:
        structlog.get_logger().info("one")
        logger.info("two")
    assert Lines(current).names == []


def test_events_are_bounded(span: Lines) -> None:
    """So many attributes, each so long, of a name so long; on one line, without control
    characters. Numbers are numbers, as far as the wire has room for them."""
    structlog.configure(processors=[asok_trace.inject])
    log = structlog.get_logger()
    log.info("x" * 1000, **{f"key{number}": number for number in range(50)})
    log.info("a\nb", text="y" * 5000, big=2**63, small=-(2**63), half=0.5, yes=True)
    many, long = span.events
    assert len(many) == 1 + events.ATTRIBUTES
    assert len(many["name"]) == events.NAME_LIMIT
    assert len(long.pop("text")) == 1024
    assert long == {
        "name": "a\\nb",
        "level": "info",
        "big": str(2**63),
        "small": -(2**63),
        "half": 0.5,
        "yes": True,
    }


def test_how_many_events_a_span_has_is_bounded(span: Lines) -> None:
    """By the SDK's own limit, OTEL_SPAN_EVENT_COUNT_LIMIT."""
    structlog.configure(
        processors=[asok_trace.inject, structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    for _ in range(500):
        structlog.get_logger().info("again")
    assert len(span.events) == 128


def test_a_value_that_has_no_text(span: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """An object of the host whose __str__ or __repr__ raises costs its own text alone."""

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no words")

        __repr__ = __str__

    structlog.configure(
        processors=[asok_trace.inject, lambda *_: "line"],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    structlog.get_logger().info(Mute(), it=Mute(), number=10**5000)
    assert span.events == [{"name": "<Mute>", "level": "info", "it": "<Mute>", "number": "<int>"}]
    assert caplog.text == ""


def test_without_opentelemetry_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The setting alone needs no SDK: lines are stamped, nothing is reported."""
    monkeypatch.delitem(events.sys.modules, "opentelemetry.trace")
    settings.set_default(settings.Settings(log_events=True))
    structlog.configure(
        processors=[asok_trace.inject, structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    with asok_trace.scope("nightly") as scope, asok_trace.stamp_logging():
        logging.getLogger("shop").warning("one")
        line = structlog.get_logger().info("two")
    assert json.loads(line)["request_id"] == scope.request_id
    assert [record.name for record in caplog.records] == ["shop"]


def test_a_fault_costs_the_events_alone(
    span: Lines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines are logged and stamped all the same; the fault is reported once."""
    monkeypatch.setattr(events, "_add", lambda *_: 1 / 0)
    reports: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = reports.append  # type: ignore[method-assign]
    logging.getLogger("asok_trace").addHandler(handler)
    structlog.configure(processors=[asok_trace.inject])
    with asok_trace.stamp_logging():
        structlog.get_logger().info("one")
        logging.getLogger("shop").warning("two")
        structlog.get_logger().info("three")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["one", "three"]
    assert all("request_id" in line for line in lines)
    [report] = reports
    assert "making log lines events of spans failed" in report.getMessage()

"""Log lines as OpenTelemetry's records: each once, with its own keys, bounded, and nothing of the
request kept."""

import gc
import io
import json
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from pythonjsonlogger.json import JsonFormatter
from structlog.stdlib import ProcessorFormatter

import asok_trace
from asok_trace.core import finding, findings, records
from asok_trace.stamp import events, logs, tail


class Said(NamedTuple):
    """What was exported of a line."""

    logger: str
    message: str
    level: str | None
    number: int
    attributes: dict[str, Any]
    trace_id: int
    span_id: int


class Lines:
    """What was exported so far."""

    def __init__(self, exporter: InMemoryLogRecordExporter) -> None:
        self._exporter = exporter

    @property
    def all(self) -> list[Said]:
        """Each line."""
        return [
            Said(
                found.instrumentation_scope.name,
                found.log_record.body,
                found.log_record.severity_text,
                found.log_record.severity_number.value,
                dict(found.log_record.attributes),
                found.log_record.trace_id,
                found.log_record.span_id,
            )
            for found in self._exporter.get_finished_logs()
        ]

    @property
    def messages(self) -> list[str]:
        """What each line says."""
        return [line.message for line in self.all]

    @property
    def one(self) -> Said:
        """The only line."""
        [line] = self.all
        return line


@pytest.fixture
def provider() -> LoggerProvider:
    """A provider that exports at once."""
    return LoggerProvider(Resource({"service.name": "shop"}), shutdown_on_exit=False)


@pytest.fixture
def exported(provider: LoggerProvider) -> Iterator[Lines]:
    """Every line of this process is exported."""
    exporter = InMemoryLogRecordExporter()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    undo = logs.export_to(provider)
    yield Lines(exporter)
    undo()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger with nothing above it, at INFO."""
    made = logging.getLogger("shop.logs")
    made.setLevel(logging.INFO)
    made.propagate = False
    made.addHandler(logging.StreamHandler(io.StringIO()))
    yield made
    made.handlers.clear()
    made.filters.clear()
    made.setLevel(logging.NOTSET)
    made.propagate = True


def on_stdlib(*last: Any, **more: Any) -> None:
    """structlog on top of the standard library, its chain ending in ``last``."""
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, asok_trace.inject, *last],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        **more,
    )


# Each line once.


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param([asok_trace.inject], id="one-liner"),
        pytest.param([asok_trace.inject, structlog.processors.JSONRenderer()], id="json"),
        pytest.param((asok_trace.inject, structlog.processors.JSONRenderer()), id="tuple"),
        pytest.param([asok_trace.inject, structlog.dev.ConsoleRenderer()], id="console"),
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["configured before", "configured after"])
def test_structlog_alone(
    provider: LoggerProvider, request: pytest.FixtureRequest, chain: Any, before: bool
) -> None:
    """A line that structlog prints is exported, the first one included, whenever the chain is
    configured: what it says, its keys by their own names, its level."""
    chain = type(chain)(chain)
    if before:
        structlog.configure(processors=chain)
    exported: Lines = request.getfixturevalue("exported")
    if not before:
        structlog.configure(processors=chain)
    log = structlog.get_logger()
    if isinstance(chain, tuple) and not before:
        log.info("a chain that cannot be changed is seen from its second line on")
    with asok_trace.scope("nightly") as scope:
        log.info("sold", item="hat", price=7, nothing=None)
    stamp = {"request_id": scope.request_id, "task": "nightly"}
    sold = {**stamp, "item": "hat", "price": 7}
    assert exported.all == [Said("structlog", "sold", "INFO", 9, sold, 0, 0)]
    log.bind(user="9").warning("again")
    assert exported.all[1:] == [Said("structlog", "again", "WARN", 13, {"user": "9"}, 0, 0)]


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(structlog.stdlib.render_to_log_kwargs, id="render_to_log_kwargs"),
        pytest.param(ProcessorFormatter.wrap_for_formatter, id="wrap_for_formatter"),
        pytest.param(structlog.processors.JSONRenderer(), id="json"),
        pytest.param(structlog.dev.ConsoleRenderer(), id="console"),
    ],
)
@pytest.mark.parametrize("stamped", [True, False], ids=["stamp_logging", "not stamped"])
def test_structlog_on_the_standard_library(
    exported: Lines, logger: logging.Logger, last: Any, stamped: bool
) -> None:
    """The line that goes on to a logger is exported as structlog knew it, however it is handed on;
    unless the logger stops it. Lines that the logger itself is told are their own."""
    on_stdlib(last)
    if last is ProcessorFormatter.wrap_for_formatter:
        logger.handlers[0].setFormatter(
            ProcessorFormatter(processors=[structlog.processors.JSONRenderer(default=repr)])
        )
    undo = asok_trace.stamp_logging().undo if stamped else lambda: None
    logger.addFilter(lambda record: "stopped" not in record.getMessage())
    log = structlog.get_logger(logger.name)
    log.info("sold", item="hat", price=7)
    logger.info("plain %s", "line")
    log.debug("not logged: the logger is at INFO")
    log.info("stopped by a filter", item="scarf")
    logger.info("plain %s", "line")
    log.info("sold", item="hat", price=7)
    undo()
    sold = Said(logger.name, "sold", "INFO", 9, {"item": "hat", "price": 7}, 0, 0)
    plain = Said(logger.name, "plain line", "INFO", 9, {}, 0, 0)
    assert exported.all == [sold, plain, plain, sold]


def test_the_one_liner_on_the_standard_library(exported: Lines, logger: logging.Logger) -> None:
    """`inject` renders the line, and it is exported once."""
    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.stdlib.LoggerFactory()
    )
    structlog.get_logger(logger.name).info("sold", item="hat")
    assert exported.one == Said(logger.name, "sold", "INFO", 9, {"item": "hat"}, 0, 0)


def test_a_chain_without_inject(exported: Lines, logger: logging.Logger) -> None:
    """What structlog hands to the standard library is exported there, with its keys."""
    log = structlog.wrap_logger(
        logger, processors=[ProcessorFormatter.wrap_for_formatter], wrapper_class=None
    )
    log.info("sold", item="hat")
    assert exported.one == Said(logger.name, "sold", "INFO", 9, {"item": "hat"}, 0, 0)


@pytest.mark.parametrize(
    ("level", "expected", "number"),
    [
        *((10, "DEBUG", 5), (20, "INFO", 9), (25, "Level 25", 12), (30, "WARN", 13)),
        *((40, "ERROR", 17), (50, "FATAL", 21), (6, "Level 6", 4), (99, "Level 99", 24)),
    ],
)
def test_the_standard_library(
    exported: Lines, logger: logging.Logger, level: int, expected: str, number: int
) -> None:
    """A record is exported with its severity and what was given to it, however many handlers and
    loggers see it."""
    logger.setLevel(1)
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.getChild("page").log(level, "said %d", 1, extra={"item": "hat"})
    assert exported.one == Said(
        f"{logger.name}.page", "said 1", expected, number, {"item": "hat"}, 0, 0
    )


def test_a_line_within_a_line(exported: Lines, logger: logging.Logger) -> None:
    """A handler and a processor that log, to the same logger, while they work on a line: every
    line is exported once."""

    class Chatty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("{"):
                structlog.get_logger("shop.other").warning("handling", by="handler")

    def chatty(_logger: Any, _name: str, event: Any) -> Any:
        if event["event"] == "sold":
            logger.info("processing")
        return event

    logger.handlers.insert(0, Chatty())
    on_stdlib(chatty, structlog.processors.JSONRenderer())
    structlog.get_logger(logger.name).info("sold", item="hat")
    assert sorted(exported.messages) == ["handling", "processing", "sold"]
    by_message = {line.message: line.attributes for line in exported.all}
    assert by_message == {"sold": {"item": "hat"}, "handling": {"by": "handler"}, "processing": {}}


def test_a_line_that_is_dropped(exported: Lines, logger: logging.Logger) -> None:
    """By a processor behind `inject`: it is not exported, nor is the next one taken for it."""

    def drop(_logger: Any, _name: str, _event: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[asok_trace.inject, drop, structlog.processors.JSONRenderer()])
    structlog.get_logger().info("dropped")
    on_stdlib(drop, structlog.processors.JSONRenderer())
    structlog.get_logger(logger.name).info("dropped")
    logger.info("kept")
    assert exported.messages == ["kept"]


def test_undone(exported: Lines, provider: LoggerProvider, logger: logging.Logger) -> None:
    """Exporting twice is exporting once; when it is undone the chain is as it was."""
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(processors=[asok_trace.inject, renderer])
    structlog.get_logger().info("one")
    logs.export_to(provider)()
    structlog.get_logger().info("two")
    logs._stop()
    assert structlog.get_config()["processors"] == [asok_trace.inject, renderer]
    assert tail.take is None
    structlog.get_logger().info("three")
    logger.info("four")
    assert exported.messages == ["one", "two"]


# What is in it.


def test_the_span_of_a_line(exported: Lines, logger: logging.Logger) -> None:
    """Each line has the ids of the span it was logged in, where a collector looks for them, and
    not once more as attributes."""
    structlog.configure(processors=[asok_trace.inject])
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with asok_trace.stamp_logging(), asok_trace.scope("nightly"):
        for name in ("outer", "inner"):
            with tracer.start_as_current_span(name) as span:
                structlog.get_logger().info(name)
                logger.info(name)
                ids = span.get_span_context()
            for line in exported.all[-2:]:
                assert (line.trace_id, line.span_id) == (ids.trace_id, ids.span_id)
    assert {key for line in exported.all for key in line.attributes} == {"request_id", "task"}


def test_a_servers_line_about_a_request_that_is_over(
    exported: Lines, logger: logging.Logger
) -> None:
    """It is in no span any more, but says of which trace it is. What is no id is none."""
    ids = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}
    logger.info("served", extra=ids)
    for wrong in ({"trace_id": "mine"}, {**ids, "trace_id": "f" * 40}, {**ids, "span_id": 7}):
        logger.info("wrong", extra=wrong)
    first, *others = exported.all
    assert f"{first.trace_id:032x}" == ids["trace_id"]
    assert f"{first.span_id:016x}" == ids["span_id"]
    assert [(line.trace_id, line.attributes) for line in others] == [(0, {})] * 3


def test_an_error(exported: Lines, logger: logging.Logger) -> None:
    """Its class, text and traceback are attributes, as OpenTelemetry calls them; of the end of a
    long traceback, where the error is."""
    rendered = [asok_trace.inject, structlog.processors.format_exc_info]
    try:
        raise LookupError("x" * 20_000 + "the end")
    except LookupError:
        logger.exception("one")
        for chain in ([asok_trace.inject], [*rendered, structlog.processors.JSONRenderer()]):
            structlog.configure(processors=chain)
            structlog.get_logger().exception("two")
    for line in exported.all:
        assert (line.level, line.number) == ("ERROR", 17)
        assert line.attributes["exception.stacktrace"].rstrip().endswith("the end")
        assert len(line.attributes["exception.stacktrace"]) <= logs.LONG_LIMIT
    for line in exported.all[:2]:
        assert line.attributes["exception.type"] == "LookupError"
        assert len(line.attributes["exception.message"]) == 1024


def test_lines_are_bounded(exported: Lines, logger: logging.Logger) -> None:
    """So many attributes, each so long, of a message so long; but never without the stamp. Line
    breaks of a message stay, other control characters do not."""
    logger.info("x" * 10_000, extra={f"key{n}": n for n in range(100)} | {"request_id": "r"})
    logger.info("a\n\x1b[31mb", extra={"text": "y" * 5000 + "\n", "big": 2**80, "lone": "\ud800"})
    many, long = exported.all
    assert len(many.attributes) == logs.ATTRIBUTES
    assert many.attributes["request_id"] == "r"
    assert len(many.message) == logs.LONG_LIMIT
    assert long.message == "a\n\\x1b[31mb"
    assert len(long.attributes.pop("text")) == 1024
    assert long.attributes == {"big": str(2**80), "lone": "\\ud800"}


class Address:
    """As database libraries have it: its text is for connecting, its repr for people."""

    def __str__(self) -> str:
        return "db://shop:hunter2@db"

    def __repr__(self) -> str:
        return "db://shop:***@db"


def test_objects(exported: Lines, logger: logging.Logger) -> None:
    """structlog's are shown as its JSON shows them. Those that were given to a record, which
    nobody may ever have printed, are not asked for their text."""
    structlog.configure(processors=[asok_trace.inject])
    structlog.get_logger().info("one", db=Address(), both=[1, "a"])
    logger.info("two", extra={"db": Address(), "_private": 1})
    assert [line.attributes for line in exported.all] == [
        {"db": "db://shop:***@db", "both": "[1, 'a']"},
        {"db": "<Address>"},
    ]


def test_what_was_blotted_out_stays_so(exported: Lines, logger: logging.Logger) -> None:
    """By a processor anywhere in the chain, also behind `inject`; by a filter of a handler."""

    def blot(_logger: Any, _name: str, event: Any) -> Any:
        return {key: "***" if key == "password" else value for key, value in event.items()}

    structlog.configure(
        processors=[asok_trace.inject, blot, structlog.processors.KeyValueRenderer()]
    )
    structlog.get_logger().info("one", password="hunter2")

    def blot_record(record: logging.LogRecord) -> bool:
        record.msg, record.password = "blotted", "***"
        return True

    logger.handlers[0].addFilter(blot_record)
    logger.info("hunter2", extra={"password": "hunter2"})
    assert [line.message for line in exported.all] == ["one", "blotted"]
    assert [line.attributes for line in exported.all] == [{"password": "***"}] * 2


def test_nothing_is_kept(exported: Lines, logger: logging.Logger) -> None:
    """Neither what a line was given nor the error it tells outlives the line."""
    logger.handlers[:] = [logging.StreamHandler(io.StringIO())]  # pytest's keeps records
    structlog.configure(processors=[asok_trace.inject])
    on_its_way: list[Callable[[], Any]] = []

    class Request:
        pass

    class Refused(Exception):
        pass

    def log() -> None:
        request, error = Request(), Refused("no")
        on_its_way.extend((weakref.ref(request), weakref.ref(error)))
        structlog.get_logger().info("one", request=request, exc_info=error)
        logger.info("two", extra={"request": request}, exc_info=error)
        on_stdlib(structlog.stdlib.render_to_log_kwargs)
        structlog.get_logger(logger.name).info("three", request=request, exc_info=error)

    log()
    gc.collect()
    assert [kept() for kept in on_its_way] == [None, None]
    assert exported.messages == ["one", "two", "three"]


# It is no trouble to anybody.


def test_a_record_that_does_not_fit_its_arguments(exported: Lines, logger: logging.Logger) -> None:
    """It is the host's mistake, which its handlers tell; exporting goes on."""
    logger.handlers[:] = [logging.NullHandler()]
    logger.info("%d items", "many")
    logger.info("next")
    assert exported.messages == ["%d items", "next"]


def test_objects_without_text(exported: Lines, logger: logging.Logger) -> None:
    """One whose __str__ and __repr__ raise costs its own text alone."""

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no words")

        __repr__ = __str__

    def last(_logger: Any, _name: str, _event: Any) -> str:
        return "line"

    structlog.configure(
        processors=[asok_trace.inject, last], logger_factory=structlog.ReturnLoggerFactory()
    )
    structlog.get_logger().info(Mute(), it=Mute())
    logger.handlers[:] = [logging.NullHandler()]
    logger.info(Mute())
    assert [line.message for line in exported.all] == ["<Mute>", "<Mute>"]
    assert exported.all[0].attributes == {"it": "<Mute>"}


def test_the_exporter_exports_nothing_of_its_own(exported: Lines, logger: logging.Logger) -> None:
    """Neither what is logged in its threads nor what OpenTelemetry says of itself."""
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        logger.warning("retrying")
    finally:
        detach(token)
    logging.getLogger("opentelemetry.sdk").warning("queue full")
    logger.info("mine")
    assert exported.messages == ["mine"]


def test_an_exporter_that_logs(
    exported: Lines, provider: LoggerProvider, logger: logging.Logger
) -> None:
    """A processor that logs while it gets a line does not get that one, for ever."""

    class Chatty(SimpleLogRecordProcessor):
        def on_emit(self, log_record: Any) -> None:
            logger.info("got one")

    provider.add_log_record_processor(Chatty(InMemoryLogRecordExporter()))
    logger.info("mine")
    assert exported.messages == ["mine"]


def test_a_fault_costs_the_export_alone(
    exported: Lines, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are logged all the same; the fault is reported once."""
    monkeypatch.setattr(logs, "_attributes", lambda *_: 1 / 0)
    reports: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = reports.append  # type: ignore[method-assign]
    logging.getLogger("asok_trace").addHandler(handler)
    structlog.configure(
        processors=[asok_trace.inject, structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    logger.addHandler(handler)
    logger.info("one")
    assert json.loads(structlog.get_logger().info("two")) == {"event": "two"}
    one, report = sorted(reports, key=lambda record: record.name, reverse=True)
    assert one.getMessage() == "one"
    assert "exporting log lines failed" in report.getMessage()
    assert exported.all == []


# Findings, and JSON without a collector.


def found(**more: Any) -> None:
    """Something that is found for the first time."""
    findings.add(
        finding.LOST,
        (None, 0),
        message="line 'charged' logged outside any request",
        callsite="shop.py:14 charge",
        fix="hand over asok_trace.wrap(charge)",
        key="lost:shop.charge",
        **more,
    )


def test_a_finding(exported: Lines) -> None:
    """Its line says which it is, so that lines can be counted by kind and by place; it is found by
    the request that it came from."""
    found(request_id="the-request")
    line = exported.one
    assert line.logger == "asok_trace"
    assert line.level == "WARN"
    assert line.message.startswith("lost: line 'charged' logged outside any request\n  at ")
    assert line.attributes == {
        "request_id": "the-request",
        "finding": "lost",
        "finding_key": "lost:shop.charge",
        "finding_callsite": "shop.py:14 charge",
    }


def test_a_finding_within_a_request(exported: Lines) -> None:
    """Its line is that request's, whichever it came from."""
    with asok_trace.stamp_logging(), asok_trace.scope("other") as scope:
        found(request_id="the-request")
    assert exported.one.attributes["request_id"] == scope.request_id


def test_a_finding_under_a_record_factory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host whose records have these names already keeps them, and gets the line."""
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.finding = "mine"
        return record

    logging.setLogRecordFactory(factory)
    try:
        found()
    finally:
        logging.setLogRecordFactory(before)
    [record] = caplog.records
    assert record.finding == "mine"  # type: ignore[attr-defined]
    assert record.finding_key == "lost:shop.charge"  # type: ignore[attr-defined]


def test_a_level_that_is_off() -> None:
    """Nothing is made of a line that nobody wants."""
    made: list[logging.LogRecord] = []
    quiet = logging.getLogger("shop.quiet")
    quiet.setLevel(logging.ERROR)
    quiet.addFilter(lambda record: bool(made.append(record)))
    records.log(quiet.name, logging.INFO, "%s", ("one",), {})
    records.log(quiet.name, logging.ERROR, "%s", ("two",), {})
    quiet.filters.clear()
    assert [record.getMessage() for record in made] == ["two"]


def test_json_of_the_standard_library(logger: logging.Logger) -> None:
    """python-json-logger's lines carry the ids as they come, with nothing named in its format."""
    out = io.StringIO()
    logger.handlers[:] = [logging.StreamHandler(out)]
    logger.handlers[0].setFormatter(JsonFormatter())
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with (
        asok_trace.stamp_logging(),
        asok_trace.scope("nightly") as scope,
        tracer.start_as_current_span("work") as span,
    ):
        logger.info("selling %s", "hats")
    ids = span.get_span_context()
    line = json.loads(out.getvalue())
    assert line["message"] == "selling hats"
    assert line["request_id"] == scope.request_id
    assert (line.get("trace_id"), line.get("span_id")) in (
        (None, None),  # no provider is set: nobody traces this process
        (trace.format_trace_id(ids.trace_id), trace.format_span_id(ids.span_id)),
    )


def test_the_limits_are_those_of_events() -> None:
    """A value is made fit for the wire in one place."""
    assert logs._attributes({"big": 2**63, "small": -(2**63)}) == {
        "big": events.plain(2**63),
        "small": -(2**63),
    }

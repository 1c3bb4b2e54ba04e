"""`inject` adds keys in every chain, and renders only where nobody comes after it."""

import collections
import io
import json
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger

import asok_trace
from asok_trace.stamp import structlog as stamp_structlog
from asok_trace.stamp import tail


@pytest.fixture
def unit() -> Iterator[asok_trace.Scope]:
    """A unit of work to log in."""
    with asok_trace.scope("nightly") as scope:
        yield scope


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_the_one_liner_prints_one_rendered_line(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nothing else configured the line is JSON away from a terminal, stamped and complete."""
    structlog.configure(processors=[asok_trace.inject])
    structlog.get_logger().info("hello", a=1)
    [line] = lines(capsys.readouterr().out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "request_id": unit.request_id,
        "task": "nightly",
        "a": 1,
        "event": "hello",
        "level": "info",
    }


def test_the_one_liner_prints_outside_any_request_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A line with no request behind it is rendered the same, with nothing added."""
    structlog.configure(processors=[asok_trace.inject])
    structlog.get_logger().warning("hello %s", "you")
    [line] = lines(capsys.readouterr().out)
    del line["timestamp"]
    assert line == {"event": "hello you", "level": "warning"}


def test_the_one_liner_prints_tracebacks(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    """log.exception carries the traceback inside its one line."""
    structlog.configure(processors=[asok_trace.inject])
    try:
        raise LookupError("lost")
    except LookupError:
        structlog.get_logger().exception("failed")
    [line] = lines(capsys.readouterr().out)
    assert line["exception"].endswith("LookupError: lost")
    assert line["request_id"] == unit.request_id


def test_the_one_liner_is_for_people_on_a_terminal(unit: asok_trace.Scope) -> None:
    """On a terminal structlog's console renderer prints it, traceback included."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.PrintLoggerFactory(terminal)
    )
    try:
        raise LookupError("lost")
    except LookupError:
        structlog.get_logger().exception("failed")
    out = terminal.getvalue()
    assert unit.request_id in out
    assert "LookupError" in out
    assert not out.startswith("{")


def test_structlog_s_context_variables_are_kept_by_the_one_liner(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the caller bound there is printed, and wins over the stamp."""
    structlog.configure(processors=[asok_trace.inject])
    structlog.contextvars.bind_contextvars(cart=5, task="mine")
    structlog.get_logger().info("hello")
    [line] = lines(capsys.readouterr().out)
    assert (line["cart"], line["task"]) == (5, "mine")


def test_positional_arguments_are_filled_in_by_the_one_liner(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    """structlog's stdlib wrapper leaves the arguments of "%s" to a processor."""
    structlog.configure(processors=[asok_trace.inject], wrapper_class=structlog.stdlib.BoundLogger)
    structlog.get_logger().info("hello %s", "you")
    [line] = lines(capsys.readouterr().out)
    assert line["event"] == "hello you"
    assert "positional_args" not in line


@pytest.mark.parametrize("kind", ["write", "bytes", "stdlib"])
def test_every_logger_that_takes_text_gets_text(unit: asok_trace.Scope, kind: str) -> None:
    """WriteLogger, BytesLogger and standard library loggers each get what they print."""
    out: io.StringIO | io.BytesIO = io.BytesIO() if kind == "bytes" else io.StringIO()
    factory: Any
    if kind == "write":
        factory = structlog.WriteLoggerFactory(out)  # type: ignore[arg-type]
    elif kind == "bytes":
        factory = structlog.BytesLoggerFactory(out)  # type: ignore[arg-type]
    else:
        logger = logging.Logger("alone")
        logger.addHandler(logging.StreamHandler(out))  # type: ignore[type-var]
        factory = lambda *args: logger  # noqa: E731
    structlog.configure(processors=[asok_trace.inject], logger_factory=factory)
    structlog.get_logger().info("hello")
    value = out.getvalue()
    [line] = lines(value.decode() if isinstance(value, bytes) else value)
    assert line["request_id"] == unit.request_id


def test_a_logger_that_takes_an_event_dict_gets_one(unit: asok_trace.Scope) -> None:
    """Loggers made for keyword arguments are not given text."""
    logger = CapturingLogger()
    structlog.configure(processors=[asok_trace.inject], logger_factory=lambda *args: logger)
    structlog.get_logger().info("hello")
    [call] = logger.calls
    assert call.kwargs == {"event": "hello", "request_id": unit.request_id, "task": "nightly"}


@pytest.mark.parametrize(
    "renderer",
    [
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
        structlog.processors.LogfmtRenderer(),
        structlog.dev.ConsoleRenderer(colors=False),
    ],
)
def test_any_renderer_after_inject_renders_once(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str], renderer: Any
) -> None:
    """inject adds keys, and the line is what that renderer makes of them."""
    structlog.configure(processors=[asok_trace.inject, renderer])
    structlog.get_logger().info("hello")
    out = capsys.readouterr().out
    assert out.count(unit.request_id) == 1
    assert out.count("hello") == 1
    assert "level" not in out  # our own tail did not run


def test_a_chain_of_its_own_is_only_added_to(unit: asok_trace.Scope) -> None:
    """wrap_logger(processors=[...]) with a renderer prints that renderer's line, also after the
    one-liner was configured globally."""
    out = io.StringIO()
    structlog.configure(processors=[asok_trace.inject])
    log = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[asok_trace.inject, structlog.processors.KeyValueRenderer(sort_keys=True)],
    )
    log.info("hello")
    assert out.getvalue() == f"event='hello' request_id='{unit.request_id}' task='nightly'\n"


def test_inject_within_another_processor_only_adds(unit: asok_trace.Scope) -> None:
    """A processor that calls inject goes on with the event dict itself."""
    out = io.StringIO()
    structlog.configure(processors=[asok_trace.inject])

    def mine(logger: Any, method: str, event: Any) -> Any:
        return json.dumps({"id": asok_trace.inject(logger, method, event)["request_id"]})  # type: ignore[call-overload,index]

    structlog.wrap_logger(structlog.PrintLogger(out), processors=[mine]).info("hello")
    assert lines(out.getvalue()) == [{"id": unit.request_id}]


def test_inject_twice_renders_once(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two times in a chain is as good as once."""
    structlog.configure(processors=[asok_trace.inject, asok_trace.inject])
    structlog.get_logger().info("hello")
    [line] = lines(capsys.readouterr().out)
    assert line["request_id"] == unit.request_id


def test_capture_logs_captures_event_dicts(unit: asok_trace.Scope) -> None:
    """structlog's own test helper sees events, not rendered text."""
    structlog.configure(processors=[asok_trace.inject])
    with structlog.testing.capture_logs() as captured:
        structlog.get_logger().info("hello")
    assert captured == [{"event": "hello", "log_level": "info"}]
    with structlog.testing.capture_logs(processors=[asok_trace.inject]) as captured:
        structlog.get_logger().info("hello")
    assert captured[0]["request_id"] == unit.request_id


def test_loggers_bound_earlier_keep_their_chain(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bound under the one-liner still renders after a reconfiguration; one bound before it
    prints what it printed; a new one follows the new chain."""
    before = structlog.get_logger().bind(when="before")
    structlog.configure(processors=[asok_trace.inject])
    under = structlog.get_logger().bind(when="under")
    structlog.configure(processors=[asok_trace.inject, structlog.processors.KeyValueRenderer()])
    under.info("hello")
    assert lines(capsys.readouterr().out)[0]["request_id"] == unit.request_id
    before.info("hello")
    assert unit.request_id not in capsys.readouterr().out
    structlog.get_logger().info("hello")
    assert capsys.readouterr().out.startswith("request_id='")


def test_reconfiguration_to_the_one_liner_is_seen(
    unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    """inject has run in a chain with a renderer first; as the last one it renders."""
    structlog.configure(processors=[asok_trace.inject, structlog.processors.KeyValueRenderer()])
    structlog.get_logger().info("hello")
    structlog.configure(processors=[asok_trace.inject])
    structlog.get_logger().info("hello")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("request_id=")
    assert json.loads(second)["request_id"] == unit.request_id


def test_cached_loggers(unit: asok_trace.Scope, capsys: pytest.CaptureFixture[str]) -> None:
    """cache_logger_on_first_use keeps the first chain, stamped and rendered as it was."""
    structlog.configure(processors=[asok_trace.inject], cache_logger_on_first_use=True)
    log = structlog.get_logger()
    log.info("one")
    structlog.configure(processors=[asok_trace.inject, structlog.processors.KeyValueRenderer()])
    log.info("two")
    assert [line["event"] for line in lines(capsys.readouterr().out)] == ["one", "two"]


def test_processor_formatter_and_its_pre_chain(unit: asok_trace.Scope) -> None:
    """structlog's formatter gets dicts from inject, for its own lines and for foreign ones."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[asok_trace.inject],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logger = logging.Logger("mixed")
    logger.addHandler(handler)
    structlog.configure(processors=[asok_trace.inject])  # so that rendering is possible at all
    logger.info("foreign")
    structlog.wrap_logger(
        logger,
        processors=[asok_trace.inject, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    ).info("own")
    foreign, own = lines(out.getvalue())
    assert foreign == {"event": "foreign", "request_id": unit.request_id, "task": "nightly"}
    assert own == {"event": "own", "request_id": unit.request_id, "task": "nightly"}


def test_keys_of_the_caller_win(unit: asok_trace.Scope) -> None:
    """Bound or given with the event, the caller's request_id is the caller's."""
    with structlog.testing.capture_logs(processors=[asok_trace.inject]) as captured:
        structlog.get_logger().bind(request_id="mine").info("hello", task="other")
    assert captured[0]["request_id"] == "mine"
    assert captured[0]["task"] == "other"


def test_a_context_class_of_its_own_stays(unit: asok_trace.Scope) -> None:
    """An event dict that is more than a dict comes out as what it is."""
    event = collections.OrderedDict(event="hello", task="mine")
    stamped = asok_trace.inject(None, "info", event)
    assert stamped is event
    assert event == {"event": "hello", "task": "mine", "request_id": unit.request_id}


def test_the_event_dict_itself_is_not_changed(unit: asok_trace.Scope) -> None:
    """A plain event dict is merged into a new one: other handlers may hold the old."""
    event: dict[str, Any] = {"event": "hello"}
    stamped = asok_trace.inject(None, "info", event)
    assert event == {"event": "hello"}
    assert isinstance(stamped, dict)
    assert stamped["request_id"] == unit.request_id


def test_a_queue_of_records_keeps_the_stamp(unit: asok_trace.Scope) -> None:
    """A line is stamped when it is logged, not when a listener's thread handles it."""
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    logger = logging.Logger("queued")
    logger.addHandler(logging.handlers.QueueHandler(records))
    structlog.wrap_logger(
        logger, processors=[asok_trace.inject, structlog.stdlib.render_to_log_kwargs]
    ).info("hello")
    assert records.get_nowait().__dict__["request_id"] == unit.request_id


@pytest.mark.parametrize("chain_ends_in_inject", [False, True])
def test_a_fault_in_stamping_costs_the_stamp_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    chain_ends_in_inject: bool,
) -> None:
    """The line is printed without it, and the fault is reported once."""

    class Broken:
        _live = property(lambda self: 1 / 0)

    broken = lambda: Broken()  # noqa: E731
    monkeypatch.setattr(stamp_structlog, "_active", broken)
    monkeypatch.setattr(stamp_structlog.lookup, "here", lambda: 1 / 0)
    chain: list[Any] = [asok_trace.inject]
    if not chain_ends_in_inject:
        # The process may have seen the one-liner before: look at the plain path as well.
        monkeypatch.setattr(stamp_structlog, "_may_be_last", False)
        chain.append(structlog.processors.JSONRenderer())
    structlog.configure(processors=chain)
    structlog.get_logger().info("one")
    structlog.get_logger().info("two")
    assert [line["event"] for line in lines(capsys.readouterr().out)] == ["one", "two"]
    assert [r.name for r in caplog.records] == ["asok_trace"]


@pytest.mark.parametrize("factory", [structlog.PrintLoggerFactory, structlog.BytesLoggerFactory])
def test_a_line_that_cannot_be_rendered_is_printed_plainly(
    unit: asok_trace.Scope, caplog: pytest.LogCaptureFixture, factory: Any
) -> None:
    """A value whose repr raises costs its own text; the line is there, and so is the next."""

    class Shy:
        def __repr__(self) -> str:
            raise LookupError

    out: Any = io.BytesIO() if factory is structlog.BytesLoggerFactory else io.StringIO()
    structlog.configure(processors=[asok_trace.inject], logger_factory=factory(out))
    for number in (1, 2):
        structlog.get_logger().info("hello", shy=Shy(), number=number)
    structlog.get_logger().info("well")
    text = out.getvalue()
    one, two, well = lines(text.decode() if isinstance(text, bytes) else text)
    assert one == {
        "event": "hello",
        "shy": "<Shy>",
        "number": "1",
        "request_id": unit.request_id,
        "task": "nightly",
    }
    assert two["number"] == "2"
    assert well["level"] == "info"
    assert caplog.text.count("rendering a structlog line") == 1


def test_a_stream_without_a_terminal_question(unit: asok_trace.Scope) -> None:
    """A file object that has no isatty(), or is closed, is no terminal."""
    closed = io.StringIO()
    closed.close()
    for file in (object(), closed):
        assert not tail._on_terminal(type("L", (), {"_file": file}))
    assert tail._on_terminal(None) is sys.stderr.isatty()


def test_control_characters_stay_within_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever was bound, one line stays one line."""
    with asok_trace.scope("x\r\ny", tenant="a\u2028b\x1b[0m"):
        structlog.configure(processors=[asok_trace.inject])
        structlog.get_logger().info("hello")
    [line] = lines(capsys.readouterr().out)
    assert line["task"] == r"x\r\ny"
    assert line["tenant"] == r"a\u2028b\x1b[0m"

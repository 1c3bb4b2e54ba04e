"""The standard library's records are stamped, and nobody's own attributes are touched."""

import io
import json
import logging
import logging.config
import logging.handlers
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pythonjsonlogger.json import JsonFormatter

import asok_trace
from asok_trace.core.scope import SERVED, Scope
from asok_trace.stamp import stdlib


@pytest.fixture
def unit() -> Iterator[asok_trace.Scope]:
    """A unit of work to log in."""
    with asok_trace.scope("nightly", ip="1.2.3.4", path="/p", user=7) as scope:
        yield scope


@pytest.fixture
def stamped() -> Iterator[asok_trace.Handle]:
    """Every record of the process is stamped."""
    with asok_trace.stamp_logging() as handle:
        yield handle


class Kept(logging.Handler):
    """Keeps its records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """A handler on the root logger."""
    handler = Kept()
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


def test_every_record_is_stamped(
    unit: asok_trace.Scope, stamped: asok_trace.Handle, kept: Kept
) -> None:
    """Whatever logger it comes from, without any set-up of handlers."""
    logging.getLogger("some.child").warning("hello")
    record = kept.records[0].__dict__
    assert record["request_id"] == unit.request_id
    assert (record["ip"], record["user"], record["path"]) == ("1.2.3.4", "7", "/p")


def test_nothing_is_added_outside_a_request(stamped: asok_trace.Handle, kept: Kept) -> None:
    """A line with no request behind it has no attributes of ours."""
    logging.getLogger("x").warning("hello")
    assert not {"request_id", "ip", "user", "path"} & kept.records[0].__dict__.keys()


def test_attributes_from_extra_are_kept(
    unit: asok_trace.Scope, stamped: asok_trace.Handle, kept: Kept
) -> None:
    """extra={"ip": ..., "path": ...} keeps working, and wins."""
    logging.getLogger("x").warning("hello", extra={"ip": "mine", "path": "mine"})
    record = kept.records[0].__dict__
    assert (record["ip"], record["path"], record["user"]) == ("mine", "mine", "7")


def test_logger_subclasses_and_record_factories_keep_working(
    unit: asok_trace.Scope, stamped: asok_trace.Handle
) -> None:
    """A subclass that makes its own records, and one that handles them, are stamped too."""

    class Mine(logging.Logger):
        def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
            record = super().makeRecord(*args, **kwargs)
            record.path = "made"
            return record

        def handle(self, record: logging.LogRecord) -> None:
            record.handled = True
            super().handle(record)

    logger, handler = Mine("mine"), Kept()
    logger.addHandler(handler)
    logger.warning("hello", extra={"ip": "mine"})
    record = handler.records[0].__dict__
    assert (record["path"], record["ip"], record["handled"]) == ("made", "mine", True)
    assert record["request_id"] == unit.request_id


def test_stamp_logging_is_idempotent_and_undone() -> None:
    """Twice is once; undo() gives logging.Logger its own handle back, and it can start anew."""
    original = logging.Logger.handle
    handle = asok_trace.stamp_logging()
    assert asok_trace.stamp_logging() is handle
    assert logging.Logger.handle is not original
    handle.undo()
    assert logging.Logger.handle is original
    again = asok_trace.stamp_logging()
    assert again is not handle
    again.undo()
    assert logging.Logger.handle is original


def test_undo_under_a_later_patch_passes_through(unit: asok_trace.Scope, kept: Kept) -> None:
    """Somebody patched after us: their patch stays, ours stamps nothing any more."""
    original = logging.Logger.handle
    handle = asok_trace.stamp_logging()
    ours = logging.Logger.handle
    logging.Logger.handle = lambda self, record: ours(self, record)  # type: ignore[method-assign]
    handle.undo()
    logging.getLogger("x").warning("hello")
    logging.Logger.handle = original  # type: ignore[method-assign]
    assert "request_id" not in kept.records[0].__dict__


def test_the_filter_in_dict_config(unit: asok_trace.Scope) -> None:
    """The documented configuration stamps what its handler prints, child loggers included."""
    out = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request": {"()": "asok_trace.RequestFilter", "missing": "-"}},
            "formatters": {"line": {"format": "%(request_id)s %(user)s %(path)s %(message)s"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": out,
                    "filters": ["request"],
                    "formatter": "line",
                }
            },
            "loggers": {"shop": {"handlers": ["out"], "level": "INFO"}},
        }
    )
    logging.getLogger("shop.cart").info("hello")
    assert out.getvalue() == f"{unit.request_id} 7 /p hello\n"


def test_missing_fills_what_is_not_known() -> None:
    """A format string may name the fields outside a request, with the filter and globally."""
    record = logging.makeLogRecord({"msg": "hello", "ip": "mine"})
    assert asok_trace.RequestFilter(missing="-").filter(record)
    assert (record.__dict__["request_id"], record.__dict__["ip"]) == ("-", "mine")
    assert asok_trace.RequestFilter().filter(logging.makeLogRecord({}))


def test_json_formatters_print_the_fields(
    unit: asok_trace.Scope, stamped: asok_trace.Handle
) -> None:
    """A formatter that prints a record's own attributes needs to know nothing of us."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("json")
    logger.addHandler(handler)
    logger.warning("hello")
    logger.removeHandler(handler)
    line = json.loads(out.getvalue())
    assert (line["message"], line["request_id"], line["user"]) == ("hello", unit.request_id, "7")


def test_a_record_is_stamped_where_it_is_logged(
    unit: asok_trace.Scope, stamped: asok_trace.Handle
) -> None:
    """A QueueListener's thread knows no request; the record brought its own along."""
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = Kept()
    logger = logging.getLogger("queued")
    sender = logging.handlers.QueueHandler(records)
    logger.addHandler(sender)
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    logger.warning("hello")
    listener.stop()
    logger.removeHandler(sender)
    assert handler.records[0].__dict__["request_id"] == unit.request_id


def test_threads_have_their_own_request(stamped: asok_trace.Handle, kept: Kept) -> None:
    """Two units of work at once never mix."""
    barrier = threading.Barrier(2)
    ids: dict[str, str] = {}

    def work(name: str) -> None:
        with asok_trace.scope(name) as scope:
            ids[name] = scope.request_id
            barrier.wait()
            logging.getLogger(name).warning("hello")
            barrier.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r.name: r.__dict__["request_id"] for r in kept.records} == ids


@pytest.mark.parametrize(
    ("name", "exc_info", "about"),
    [
        ("gunicorn.access", None, True),
        ("hypercorn.access", None, True),
        ("uvicorn.access", None, True),
        ("werkzeug", None, True),
        ("gunicorn.error", (None, None, None), True),
        ("waitress", (None, None, None), True),
        ("gunicorn.error", None, False),
        ("myapp", None, False),
        ("myapp.access", (None, None, None), False),
    ],
)
def test_a_server_s_line_about_a_request_is_stamped(
    stamped: asok_trace.Handle, kept: Kept, name: str, exc_info: Any, about: bool
) -> None:
    """The access line, and the report of an exception the application let out, are about the
    request that this context served last; a worker's other lines, and the host's, are not."""
    served = Scope("served", "http", method="GET", path="/p")
    served.close()
    SERVED.set(served)
    record = logging.makeLogRecord({"name": name, "exc_info": exc_info, "levelno": 30})
    logging.getLogger(name).handle(record)
    assert ("request_id" in record.__dict__) is about


def test_a_fault_in_stamping_costs_the_stamp_alone(
    stamped: asok_trace.Handle,
    unit: asok_trace.Scope,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record is handled without it; the fault is reported once."""
    monkeypatch.setattr(stdlib.lookup, "here", lambda: 1 / 0)
    logging.getLogger("x").warning("one")
    logging.getLogger("x").warning("two")
    assert [r.name for r in kept.records] == ["asok_trace", "x", "x"]
    assert "request_id" not in kept.records[-1].__dict__

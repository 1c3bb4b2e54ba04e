"""The canonical line goes where the program's lines go, and never breaks."""

import json
import logging
from typing import Any

import pytest
import structlog

from asok_trace.core.scope import Scope
from asok_trace.stamp import access


def closed(status: int | None = 200, route: str | None = "/user/[id]") -> Scope:
    scope = Scope("id1", "http", method="GET", path="/user/7", ip="1.2.3.4")
    scope._status, scope._route = status, route
    scope.close()
    return scope


def log(scope: Scope, error: BaseException | None = None) -> None:
    access.log(scope, scope.fresh(), 0.0123456, error)


EXPECTED = {
    "request_id": "id1",
    "ip": "1.2.3.4",
    "path": "/user/7",
    "method": "GET",
    "route": "/user/[id]",
    "status": 200,
    "duration_ms": 12.346,
}


def test_through_structlog_if_it_is_configured() -> None:
    """The event is ``request``, with all fields as keys."""
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    with structlog.testing.capture_logs() as captured:
        log(closed())
    assert captured == [{"event": "request", "log_level": "info", **EXPECTED}]


def test_through_an_asynchronous_structlog(capsys: pytest.CaptureFixture[str]) -> None:
    """An AsyncBoundLogger would only return a coroutine; its synchronous one is used."""
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.AsyncBoundLogger,
    )
    log(closed())
    assert json.loads(capsys.readouterr().out) == {"event": "request", **EXPECTED}


def test_through_the_standard_library_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    """Logger ``asok_trace.request``: a line to read, and the fields as attributes."""
    caplog.set_level(logging.INFO)
    log(closed())
    [record] = caplog.records
    assert record.name == "asok_trace.request"
    assert record.getMessage() == "request GET /user/7 200 12.346 ms"
    assert {key: record.__dict__[key] for key in EXPECTED} == EXPECTED


def test_a_level_that_is_off_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """No record is made that nobody would see."""
    caplog.set_level(logging.WARNING, logger="asok_trace.request")
    log(closed())
    assert not caplog.records


@pytest.mark.parametrize(
    ("status", "error", "level"),
    [
        (200, None, logging.INFO),
        (404, None, logging.INFO),
        (500, None, logging.ERROR),
        (503, None, logging.ERROR),
        (200, LookupError(), logging.ERROR),
        (None, SystemExit(), logging.INFO),
        (None, None, logging.INFO),
    ],
)
def test_levels(
    caplog: pytest.LogCaptureFixture, status: int | None, error: BaseException, level: int
) -> None:
    """Error for 5xx and for an exception that escaped, else info; an absent status is absent."""
    caplog.set_level(logging.INFO)
    log(closed(status, route=None), error)
    [record] = caplog.records
    assert record.levelno == level
    assert record.__dict__.get("status") == status
    assert not hasattr(record, "route")
    assert record.__dict__.get("error") == (type(error).__name__ if error else None)


def test_a_record_factory_with_the_same_names_is_no_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """extra= would raise KeyError there; what the factory sets is kept."""
    caplog.set_level(logging.INFO)
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.path = "theirs"
        return record

    logging.setLogRecordFactory(factory)
    try:
        log(closed())
    finally:
        logging.setLogRecordFactory(before)
    [record] = caplog.records
    assert (record.__dict__["path"], record.__dict__["ip"]) == ("theirs", "1.2.3.4")


def test_a_chain_that_raises_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The program's own processor fails on our line: we say so once, and try again."""

    def broken(*args: Any) -> Any:
        raise LookupError("theirs")

    structlog.configure(processors=[broken])
    log(closed())
    log(closed())
    [record] = caplog.records
    assert "the canonical line of a request failed" in record.getMessage()
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    with structlog.testing.capture_logs() as captured:
        log(closed())
    assert captured

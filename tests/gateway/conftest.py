"""A small Asok site, its lines, and the faults that we report of ourselves."""

import importlib.util
import itertools
import logging
import secrets
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

import asok_trace

if importlib.util.find_spec("asok"):
    from tests.gateway import sites

if TYPE_CHECKING:
    from tests.gateway.sites import Line, Reply, Site


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], "Site"]]:
    """Makes sites that share one folder of pages."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    logging.getLogger("asok").setLevel(logging.DEBUG)
    yield lambda: sites.Site(tmp_path)
    for handler in list(logging.getLogger("asok").handlers):
        logging.getLogger("asok").removeHandler(handler)


@pytest.fixture
def site(make_site: Callable[[], "Site"]) -> "Site":
    """A site that is not instrumented yet."""
    return make_site()


@pytest.fixture(params=["wsgi", "asgi"])
def call(request: pytest.FixtureRequest) -> Callable[..., "Reply"]:
    """A client: the test runs once over WSGI and once over ASGI."""
    return sites.CLIENTS[request.param]


@pytest.fixture
def lines() -> list["Line"]:
    """Every structlog line from now on, as `inject` has stamped it."""
    captured: list[Line] = []

    def capture(_logger: Any, _name: str, event: Any) -> Any:
        captured.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            asok_trace.inject,
            capture,
        ],
        cache_logger_on_first_use=False,
    )
    return captured


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of the users 1 and 2, in a database of this test's own."""
    from asok.orm import MODELS_REGISTRY, close_all_db_connections

    monkeypatch.setitem(MODELS_REGISTRY, "User", None)
    yield sites.make_users(tmp_path)
    close_all_db_connections()


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every SQL statement that sqlite runs from now on, on connections opened from now on."""
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return statements


class _Faults(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "asok_trace" and record.levelno >= logging.ERROR:
            self.records.append(record)


@pytest.fixture
def faults() -> Iterator[list[logging.LogRecord]]:
    """What the logger ``asok_trace`` was told: the faults that we report of ourselves."""
    handler = _Faults()
    logger = logging.getLogger("asok_trace")
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to make Asok draw the same tokens again, so that whole replies compare equal."""
    numbers = itertools.count()

    def again() -> None:
        nonlocal numbers
        numbers = itertools.count()

    def draw(length: int | None = None) -> bytes:
        return next(numbers).to_bytes(4, "big") * ((length or 32) // 4 + 1)

    monkeypatch.setattr(secrets, "token_bytes", draw)
    monkeypatch.setattr(secrets, "token_hex", lambda n=None: draw(n).hex())
    monkeypatch.setattr(secrets, "token_urlsafe", lambda n=None: draw(n).hex())
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers)))
    return again

"""undo() gives the application back as it was.

needs: asok, flask, flask_login, quart, quart_auth
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from asok import Asok
from asok.testing import TestClient
from flask import Flask
from quart import Quart
from quart.wrappers import Websocket

import asok_trace

HEADER = "X-Request-ID"


class Made(NamedTuple):
    """An application of one page."""

    app: Any
    entry: str
    """The attribute through which it is entered."""
    get: Callable[[], Mapping[str, str]]
    """Asks for its page, which it must give; returns the headers."""


@contextmanager
def asok(root: Path) -> Iterator[Made]:
    """Asok's; what asok does to the process is taken back."""
    page = root / "src" / "pages" / "page.py"
    page.parent.mkdir(parents=True)
    page.write_text('def render(request):\n    return "<h1>Home</h1>"\n')
    logger = logging.getLogger("asok")
    before = logger.level, logger.handlers[:], sys.path[:]
    app = Asok(str(root))

    def get() -> Mapping[str, str]:
        response = TestClient(app).get("/")
        assert response.status_code == 200
        headers: Mapping[str, str] = response.headers
        return headers

    yield Made(app, "_wsgi_call", get)
    level, logger.handlers[:], sys.path[:] = before
    logger.setLevel(level)


@contextmanager
def flask(_root: Path) -> Iterator[Made]:
    """Flask's."""
    app = Flask("shop")
    app.get("/")(lambda: "<h1>Home</h1>")

    def get() -> Mapping[str, str]:
        response = app.test_client().get("/")
        assert response.status_code == 200
        return response.headers

    yield Made(app, "wsgi_app", get)


@contextmanager
def quart(_root: Path) -> Iterator[Made]:
    """Quart's."""
    app = Quart("shop")

    @app.get("/")
    async def home() -> str:
        return "<h1>Home</h1>"

    def get() -> Mapping[str, str]:
        response = asyncio.run(app.test_client().get("/"))
        assert response.status_code == 200
        return response.headers

    yield Made(app, "asgi_app", get)


Make = Callable[[Path], AbstractContextManager[Made]]


@pytest.fixture(params=[asok, flask, quart], ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    """An application of each framework."""
    make: Make = request.param
    with make(tmp_path) as made:
        yield made


def test_undo_leaves_no_trace(made: Made) -> None:
    """No attribute of the object is left, and responses have no header; while it lasted they
    had. Twice changes nothing."""
    assert HEADER not in made.get()
    before = dict(vars(made.app))
    with asok_trace.instrument(made.app) as handle:
        assert HEADER in made.get()
    assert vars(made.app) == before
    handle.undo()
    assert vars(made.app) == before
    assert HEADER not in made.get()


def test_undo_under_somebody_elses_wrapper(made: Made) -> None:
    """What cannot be taken out any more lets everything pass."""
    handle = asok_trace.instrument(made.app)
    ours = getattr(made.app, made.entry)
    setattr(made.app, made.entry, lambda *args: ours(*args))
    handle.undo()
    assert HEADER not in made.get()


def test_instrumenting_again_after_undo(made: Made) -> None:
    """Works, once: one header, from one layer."""
    asok_trace.instrument(made.app).undo()
    with asok_trace.instrument(made.app):
        first, second = (made.get()[HEADER] for _ in range(2))
    assert first != second
    assert HEADER not in made.get()


def test_undo_leaves_no_trace_on_what_applications_share() -> None:
    """Quart's class of WebSockets is as it was when the last application is undone, not before."""
    before = dict(vars(Websocket))
    first, second = (asok_trace.instrument(Quart(name)) for name in ("shop", "office"))
    first.undo()
    assert vars(Websocket) != before
    second.undo()
    assert vars(Websocket) == before

"""undo() gives the application back as it was.

needs: asok
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from asok import Asok
from asok.testing import TestClient

import asok_trace

HEADER = "X-Request-ID"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Asok]:
    """An application of one page; what asok does to the process is taken back."""
    page = tmp_path / "src" / "pages" / "page.py"
    page.parent.mkdir(parents=True)
    page.write_text('def render(request):\n    return "<h1>Home</h1>"\n')
    logger = logging.getLogger("asok")
    before = logger.level, logger.handlers[:], sys.path[:]
    yield Asok(str(tmp_path))
    level, logger.handlers[:], sys.path[:] = before
    logger.setLevel(level)


def test_undo_leaves_no_trace(app: Asok) -> None:
    """No attribute of the object is left, and responses have no header; while it lasted they
    had. Twice changes nothing."""
    assert HEADER not in TestClient(app).get("/").headers
    before = dict(vars(app))
    with asok_trace.instrument(app) as handle:
        assert HEADER in TestClient(app).get("/").headers
    assert vars(app) == before
    handle.undo()
    assert vars(app) == before
    assert HEADER not in TestClient(app).get("/").headers


def test_undo_under_somebody_elses_wrapper(app: Asok) -> None:
    """What cannot be taken out any more lets everything pass."""
    handle = asok_trace.instrument(app)
    ours = app._wsgi_call
    app._wsgi_call = lambda environ, start_response: ours(environ, start_response)
    handle.undo()
    response = TestClient(app).get("/")
    assert response.status_code == 200
    assert HEADER not in response.headers


def test_instrumenting_again_after_undo(app: Asok) -> None:
    """Works, once: one header, from one layer."""
    asok_trace.instrument(app).undo()
    with asok_trace.instrument(app):
        first, second = (TestClient(app).get("/").headers[HEADER] for _ in range(2))
    assert first != second
    assert HEADER not in TestClient(app).get("/").headers

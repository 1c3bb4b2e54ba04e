"""Requests that are kept in a variable around a view, as of a function that makes applications.

needs: flask
"""

import time

import flask

import asok_trace
from asok_trace.core import findings
from asok_trace.core.callsite import relative
from asok_trace.detect import retained


def make() -> flask.Flask:
    app = flask.Flask("shop")
    recent: dict[str, object] = {}

    @app.get("/cart")
    def cart() -> str:
        recent["last"] = flask.request._get_current_object()  # type: ignore[attr-defined]
        return "cart"

    @app.get("/")
    def index() -> str:
        return "index"

    return app


def test_the_variable_is_named() -> None:
    """And by it the finding is ignored: not all that the application's views keep."""
    app = make()
    handle = asok_trace.instrument(app, level="strict", threads="off")
    for path in ("/cart", "/"):
        app.test_client().get(path).close()
    retained.look(time.monotonic() + 6)
    [found] = findings.findings()
    handle.undo()
    assert "the variable recent[...] of cart() holds it" in found.message
    assert found.key == f"retained:{__name__}.cart.recent"
    assert found.callsite == f"{relative(__file__)}:{make.__code__.co_firstlineno + 4} cart"

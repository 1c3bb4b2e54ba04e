"""Flask's and Quart's own `stream_with_context` keep working, inside and around `wrap_stream`.

needs: flask, quart
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import flask
import pytest
import quart

from asok_trace import current, scope, wrap_stream
from tests.propagate.lines import Line, ids, say


def body() -> Iterator[str]:
    """A body that asks for the request in each step."""
    try:
        for _ in range(3):
            say("step", at=flask.request.path)
            yield flask.request.args["name"]
    finally:
        say("closed", at=flask.request.path)


async def body_async() -> AsyncIterator[str]:
    try:
        for _ in range(3):
            await asyncio.sleep(0)
            say("step", at=quart.request.path)
            yield quart.request.args["name"]
    finally:
        say("closed", at=quart.request.path)


SYNC: dict[str, Callable[[], Any]] = {
    "around": lambda: wrap_stream(flask.stream_with_context(body())),
    "around, as a decorator": lambda: wrap_stream(flask.stream_with_context(body)()),  # type: ignore[arg-type]
    "inside": lambda: flask.stream_with_context(wrap_stream(body())),
    "both": lambda: wrap_stream(flask.stream_with_context(wrap_stream(body()))),
    "alone": lambda: wrap_stream(body()),
}


def _inside(stream: Any) -> Any:
    return quart.stream_with_context(lambda: stream)()


ASYNC: dict[str, Callable[[], Any]] = {
    "around": lambda: wrap_stream(quart.stream_with_context(body_async)()),
    "inside": lambda: _inside(wrap_stream(body_async())),
    "both": lambda: wrap_stream(_inside(wrap_stream(body_async()))),
    "alone": lambda: wrap_stream(body_async()),
}


@pytest.fixture
def flask_client() -> Any:
    """A Flask application: ``/<way>`` streams that way, in a scope that ends with the view."""
    app = flask.Flask(__name__)
    app.testing = True

    @app.get("/<way>")
    def page(way: str) -> Any:
        with scope(flask.request.args["name"]) as opened:
            return flask.Response(SYNC[way](), headers={"X-Id": opened.request_id})

    return app.test_client()


@pytest.fixture
def quart_app() -> quart.Quart:
    """The same of Quart."""
    app = quart.Quart(__name__)
    app.testing = True

    @app.get("/<way>")
    async def page(way: str) -> Any:
        with scope(quart.request.args["name"]) as opened:
            return quart.Response(ASYNC[way](), headers={"X-Id": opened.request_id})

    return app


def expect(lines: list[Line], way: str, wanted: list[str]) -> None:
    """Every step was in its request, both Flask's or Quart's and ours."""
    assert ids(lines, "step") == wanted
    assert {line["at"] for line in lines} == {f"/{way}"}
    assert current() is None


@pytest.mark.parametrize("way", SYNC)
def test_flask_streams(flask_client: Any, lines: list[Line], way: str) -> None:
    """One response after the other on one thread; each step has its own request."""
    wanted = []
    for name in ("ada", "bob"):
        response = flask_client.get(f"/{way}?name={name}")
        assert response.text == name * 3
        assert not flask.has_request_context()
        wanted += [response.headers["X-Id"]] * 3
    expect(lines, way, wanted)
    assert ids(lines, "closed") == wanted[::3]


@pytest.mark.parametrize("way", [way for way in SYNC if way != "inside"])
def test_flask_streams_side_by_side(flask_client: Any, lines: list[Line], way: str) -> None:
    """Two bodies in turn on one thread, both closed early, the first one first. Flask alone, which
    holds its context between the steps, can only do it the other way round."""
    first, second = (
        flask_client.get(f"/{way}?name={name}", buffered=False) for name in ("ada", "bob")
    )
    assert next(first.response) == b"ada"
    first.close()
    assert next(second.response) == b"bob"
    second.close()
    wanted = [response.headers["X-Id"] for response in (first, second)]
    expect(lines, way, wanted)
    assert ids(lines, "closed") == wanted


@pytest.mark.parametrize("way", ASYNC)
def test_quart_streams(quart_app: quart.Quart, lines: list[Line], way: str) -> None:
    """Many responses at once in one loop; each step has its own request."""
    found: list[Any] = []

    async def get(name: str) -> None:
        response = await quart_app.test_client().get(f"/{way}?name={name}")
        assert await response.get_data(as_text=True) == name * 3
        found.append((name, response.headers["X-Id"]))

    async def main() -> None:
        await asyncio.gather(*(get(name) for name in ("ada", "bob", "eve")))

    asyncio.run(main())
    for name, request_id in found:
        steps = [line for line in lines if line["event"] == "step" and line["task"] == name]
        assert ids(steps, "step") == [request_id] * 3
    assert len(ids(lines, "step")) == 9
    assert sorted(map(str, ids(lines, "closed"))) == sorted(request_id for _, request_id in found)
    assert {line["at"] for line in lines} == {f"/{way}"}

"""A site of Flask and the same of Quart, with every kind of response. needs: flask, quart"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import flask
import quart

REQUESTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("OPTIONS", "/", {}),
    ("PUT", "/", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/slashed", {}),
    ("GET", "/static/file.txt", {}),
    ("GET", "/static/file.txt", {"Range": "bytes=2-4"}),
    ("GET", "/static/nothing.txt", {}),
    ("GET", "/json", {}),
    ("GET", "/session", {}),
    ("GET", "/stream", {}),
    ("GET", "/stream/boom", {}),
    ("GET", "/boom", {}),
    ("GET", "/abort", {}),
    ("GET", "/early", {}),
    ("GET", "/redirect", {}),
    ("GET", "/cookies", {}),
    ("GET", "/empty", {}),
    ("GET", "/download", {}),
    ("GET", "/own-id", {}),
    ("POST", "/echo", {"Content-Type": "text/plain"}),
    ("GET", "/user/%C3%BC%0A", {}),
    ("GET", "/", {"X-Request-ID": "from-outside", "traceparent": "not one"}),
)
BODY = b"some text"


def flask_site(folder: Path) -> Any:
    """Of Flask."""
    app = flask.Flask("site", static_folder=str(folder))
    app.secret_key = "for tests"

    @app.before_request
    def early() -> Any:
        return ("early", 202) if flask.request.path == "/early" else None

    @app.after_request
    def mark(response: Any) -> Any:
        response.headers["X-Mark"] = "here"
        return response

    @app.errorhandler(404)
    def missing(error: Any) -> Any:
        return "own 404 page", 404

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response(flask.stream_with_context(iter(["a", flask.request.path, "b"])))

    @app.get("/stream/boom")
    def stream_boom() -> Any:
        def parts() -> Iterator[str]:
            yield "a"
            raise LookupError("in the stream")

        return flask.Response(parts())

    @app.get("/download")
    def download() -> Any:
        return flask.send_file(folder / "file.txt", as_attachment=True)

    @app.post("/echo")
    def echo() -> Any:
        return flask.request.get_data()

    add_shared(app, flask)
    return app


def quart_site(folder: Path) -> Any:
    """Of Quart."""
    app = quart.Quart("site", static_folder=str(folder))
    app.secret_key = "for tests"
    # Its Expires is the only header that reads a clock which no test can stop.
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = None

    @app.before_request
    async def early() -> Any:
        return ("early", 202) if quart.request.path == "/early" else None

    @app.after_request
    async def mark(response: Any) -> Any:
        response.headers["X-Mark"] = "here"
        return response

    @app.errorhandler(404)
    async def missing(error: Any) -> Any:
        return "own 404 page", 404

    @app.get("/stream")
    async def stream() -> Any:
        @quart.stream_with_context
        async def parts() -> AsyncIterator[bytes]:
            for part in ("a", quart.request.path, "b"):
                yield part.encode()

        return quart.Response(parts())

    @app.get("/stream/boom")
    async def stream_boom() -> Any:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            raise LookupError("in the stream")

        return quart.Response(parts())

    @app.get("/download")
    async def download() -> Any:
        return await quart.send_file(folder / "file.txt", as_attachment=True)

    @app.post("/echo")
    async def echo() -> Any:
        return await quart.request.get_data()

    add_shared(app, quart)
    return app


def add_shared(app: Any, framework: Any) -> None:
    """The pages that both write alike."""

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/slashed/")
    def slashed() -> str:
        return "slashed"

    @app.get("/json")
    def json() -> dict[str, Any]:
        return {"b": 1, "a": [framework.request.path]}

    @app.get("/session")
    def session() -> str:
        framework.session["seen"] = True
        return "session"

    @app.get("/boom")
    def boom() -> str:
        raise LookupError("boom")

    @app.get("/abort")
    def abort() -> None:
        framework.abort(418)

    @app.get("/redirect")
    def redirect() -> Any:
        return framework.redirect("/json")

    @app.get("/cookies")
    def cookies() -> Any:
        return "cookies", 201, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]

    @app.get("/empty")
    def empty() -> Any:
        return "", 204

    @app.get("/own-id")
    def own_id() -> Any:
        return "own", 200, {"X-Request-Mark": "kept"}

    @app.get("/user/<name>")
    def user(name: str) -> str:
        return name

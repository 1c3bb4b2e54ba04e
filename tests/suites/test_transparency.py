"""Every response of a Flask and of a Quart site is the same with us and without, byte for byte and
piece for piece, but for our header.

needs: asok, flask, quart
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import flask
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import asok_trace
from tests.gateway.sites import Started, asgi_scope, environ
from tests.suites.sites import BODY, REQUESTS, flask_site, quart_site

Exchange = list[Any]
"""Whatever the server is given in one exchange, in order."""

HEADER = "x-request-id"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Static files, and a clock that stands still: cookies are signed with the time."""
    (tmp_path / "file.txt").write_text("0123456789", encoding="utf-8")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    return tmp_path


@contextmanager
def everything(monkeypatch: pytest.MonkeyPatch, app: Any) -> Iterator[None]:
    """All that can be turned on is."""
    provider = TracerProvider(sampler=asok_trace.StampingSampler(ALWAYS_ON))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.ReturnLoggerFactory()
    )
    with (
        asok_trace.stamp_logging(),
        asok_trace.instrument(app, threads="carry", log_events=True),
    ):
        yield


def by_wsgi(app: Any, method: str, path: str, headers: dict[str, str]) -> Exchange:
    """What a WSGI server is given."""
    started = Started()
    asked = environ(unquoted(path), method=method, headers=[*headers.items()], body=BODY)
    asked["CONTENT_TYPE"] = headers.get("Content-Type", "")
    body = app(asked, started)
    pieces: list[Any] = []
    try:
        pieces.extend(body)
    except LookupError as error:
        pieces.append(repr(error))
    finally:
        if hasattr(body, "close"):
            body.close()
    return [
        *((status, [h for h in sent if h[0].lower() != HEADER]) for status, sent in started.calls),
        *pieces,
    ]


def by_asgi(app: Any, method: str, path: str, headers: dict[str, str]) -> Exchange:
    """What an ASGI server is given."""
    sent: Exchange = []

    async def run() -> None:
        asked = asgi_scope(unquoted(path), method=method, headers=[*headers.items()], body=BODY)
        messages = [{"type": "http.request", "body": BODY, "more_body": False}]

        whole = asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await whole.wait()  # a client that stays for the response
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if "headers" in message:
                kept = [pair for pair in message["headers"] if pair[0] != HEADER.encode()]
                message = {**message, "headers": kept}
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                whole.set()

        try:
            await app(asked, receive, send)
        except Exception as error:
            sent.append(repr(error))

    asyncio.run(run())
    return sent


def unquoted(path: str) -> bytes:
    """The path as a server hands it over."""
    return unquote_to_bytes(path)


SITES = {"flask": (flask_site, by_wsgi), "quart": (quart_site, by_asgi)}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    REQUESTS,
    ids=[f"{method} {path} {len(headers)}" for method, path, headers in REQUESTS],
)
@pytest.mark.parametrize("name", SITES)
def test_a_response_is_the_same(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    """Status, headers in their order, each piece of the body, and what is raised in between."""
    logging.getLogger("site").setLevel(logging.CRITICAL)
    make, ask = SITES[name]
    plain = ask(make(folder), method, path, headers)
    app = make(folder)
    with everything(monkeypatch, app):
        assert ask(app, method, path, headers) == plain
    assert ask(app, method, path, headers) == plain
    assert plain


def test_the_test_client_s_context_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside `with client:` the request's context outlives the call, also that of an async view
    whose stream was not read; it is given back when the block ends."""
    app = flask_site(folder)

    @app.get("/late")
    async def late() -> Any:
        flask.session["seen"] = "here"
        return flask.Response(flask.stream_with_context(flask.session[key] for key in ["seen"]))

    with everything(monkeypatch, app):
        client = app.test_client()
        with client:
            client.get("/late").close()
            assert flask.request.path == "/late"
        assert not flask.has_request_context()
        with client:
            assert client.get("/late").text == "here"
        assert not flask.has_request_context()
    assert asok_trace.current() is None

"""A fault in what we ask of Flask and Quart never reaches a request, and is reported once.

needs: flask, quart
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import structlog
from flask import Flask
from quart import Quart

import asok_trace
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.frameworks import asgi_scope, environ, flask, pallets, quart
from asok_trace.gateway import asgi, notes, wsgi


class BrokenError(Exception):
    """Ours."""


def broken(*_args: Any, **_kwargs: Any) -> Any:
    raise BrokenError("broken")


class Answer(NamedTuple):
    """What a client gets, but for our header."""

    status: int
    body: bytes
    headers: list[tuple[str, str]]


def _answer(status: int, body: bytes, headers: Any) -> Answer:
    kept = [(key.lower(), value) for key, value in headers if key.lower() != "x-request-id"]
    return Answer(status, body, kept)


def flask_app() -> Flask:
    app = Flask("site")
    app.secret_key = "secret"

    @app.get("/page/<int:number>")
    def page(number: int) -> str:
        structlog.get_logger().info("looking")
        return f"page {number}"

    @app.get("/boom")
    def boom() -> str:
        raise LookupError("the view's own")

    return app


def quart_app() -> Quart:
    app = Quart("site")
    app.secret_key = "secret"

    @app.get("/page/<int:number>")
    async def page(number: int) -> str:
        structlog.get_logger().info("looking")
        return f"page {number}"

    @app.get("/boom")
    async def boom() -> str:
        raise LookupError("the view's own")

    return app


PATHS = ("/page/7", "/boom", "/none/such")


def ask_flask(app: Flask) -> list[Answer]:
    client = app.test_client()
    replies = [client.get(path) for path in PATHS]
    return [_answer(reply.status_code, reply.data, reply.headers) for reply in replies]


def ask_quart(app: Quart) -> list[Answer]:
    async def ask() -> list[Answer]:
        client = app.test_client()
        replies = [await client.get(path) for path in PATHS]
        return [
            _answer(reply.status_code, await reply.get_data(as_text=False), reply.headers.items())
            for reply in replies
        ]

    return asyncio.run(ask())


SITES: dict[str, tuple[Callable[[], Any], Callable[[Any], list[Answer]], Any]] = {
    "flask": (flask_app, ask_flask, flask.FRAMEWORK),
    "quart": (quart_app, ask_quart, quart.FRAMEWORK),
}

SHARED = {
    "pallets.request_of": pallets,
    "notes._note_request": notes,
    "notes._note_error": notes,
    "Scope.fresh": Scope,
    "Scope.locate": Scope,
    "framework.carried": None,
    "framework.client_ip": None,
    "framework.cookies": None,
    "framework.current": None,
    "framework.facts": None,
    "framework.matched": None,
    "framework.peek": None,
    "framework.route": None,
    "framework.store": None,
    "framework.told_by": None,
    "framework.traces": None,
}
OWN: dict[str, dict[str, Any]] = {
    "flask": {"environ.path": environ, "environ.header": environ, "wsgi._open": wsgi},
    "quart": {"asgi_scope.path": asgi_scope, "asgi_scope.peer": asgi_scope, "asgi._open": asgi},
}
PARTS = [(site, part) for site in SITES for part in (*SHARED, *OWN[site])]


@pytest.mark.parametrize(("site", "part"), PARTS)
def test_a_broken_part(
    site: str, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each page is as without us, twice, and no fault is reported more than once."""
    make, ask, framework = SITES[site]
    logging.getLogger("site").setLevel(logging.CRITICAL + 1)
    structlog.configure(
        processors=[asok_trace.inject, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    without_us = ask(make())
    owner = {**SHARED, **OWN[site]}[part] or framework
    monkeypatch.setattr(owner, part.partition(".")[2], broken)
    app = make()
    asok_trace.instrument(app)
    assert ask(app) == without_us
    assert ask(app) == without_us
    assert ACTIVE.get() is None
    faults = [record.getMessage() for record in caplog.records if record.name == "asok_trace"]
    assert len(faults) == len(set(faults))


def test_every_part_of_the_adapters_is_broken() -> None:
    """Nothing that is asked while a request runs is left out."""
    asked_elsewhere = {
        "handed",  # to a resolver alone, whose faults are contained with it
        # At set-up, by a worker, in an outliving task, or of Asok alone.
        *("entries", "reader", "live", "variables", "unowned", "connection", "job"),
        *("queues_elsewhere", "activate", "synthetic", "complaints", "resumes", "websockets"),
        *("lingers", "receives", "worker"),
        # Where something was found, whose report is contained as a whole.
        *("view", "preserved"),
    }
    for _, _, framework in SITES.values():
        public = {name for name in dir(framework) if not name.startswith("_")}
        broken_here = {part.partition(".")[2] for part in SHARED if part.startswith("framework.")}
        assert public - asked_elsewhere == broken_here

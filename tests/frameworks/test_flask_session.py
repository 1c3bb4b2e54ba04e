"""``session["user_id"]`` of a Flask application without any extension: stamped, and the session is
neither read nor written for it.
needs: flask"""

import secrets
from collections.abc import Callable
from typing import Any

import flask
import pytest
from werkzeug.test import TestResponse

from tests.frameworks.said import Hook, Line, say, users

pytestmark = pytest.mark.usefixtures("sound")


def untouched(reply: TestResponse) -> bool:
    """Whether the response says nothing of cookies."""
    return "Set-Cookie" not in reply.headers and "Cookie" not in reply.headers.get("Vary", "")


@pytest.fixture
def peeked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether Flask's session was marked as read or written, noted as each response is saved."""
    found: list[bool] = []
    save = flask.sessions.SecureCookieSessionInterface.save_session

    def saving(self: Any, app: Any, session: Any, response: Any) -> None:
        found.append(bool(session.accessed or session.modified))
        save(self, app, session, response)

    monkeypatch.setattr(flask.sessions.SecureCookieSessionInterface, "save_session", saving)
    return found


def plain(hook: Hook, view: Callable[[], Any]) -> Any:
    """A client of an application without any extension."""
    app = flask.Flask("plain")
    app.secret_key = secrets.token_hex()
    app.add_url_rule("/", "page", lambda: view() or "page")
    return hook(app).test_client()


def test_a_plain_session_is_not_marked(hook: Hook, lines: list[Line], peeked: list[bool]) -> None:
    """Stamping ``session["user_id"]`` leaves the session neither read nor written."""
    client = plain(hook, lambda: say("inside"))
    with client.session_transaction() as session:
        session["user_id"] = 7
    peeked.clear()
    reply = client.get("/", buffered=True)
    assert users(lines, "inside") == ["7"]
    assert untouched(reply)
    assert peeked == [False]


def test_a_plain_session_without_a_user_says_nothing(hook: Hook, lines: list[Line]) -> None:
    """No user in the session of an application of which we know nothing: absent, not nobody."""
    client = plain(hook, lambda: say("inside"))
    assert untouched(client.get("/", buffered=True))
    assert users(lines, "inside") == ["absent"]


def test_a_plain_login_and_logout(hook: Hook, lines: list[Line]) -> None:
    """The very next line follows the session."""

    def view() -> None:
        say("before")
        flask.session["user_id"] = 8
        say("in")
        flask.session.pop("user_id")
        say("out")

    plain(hook, view).get("/", buffered=True)
    assert users(lines, "before", "in", "out") == ["absent", "8", None]


def test_a_tampered_session(hook: Hook, lines: list[Line]) -> None:
    """A cookie with a wrong signature names nobody, and is left as Flask leaves it."""
    client = plain(hook, lambda: say("inside"))
    client.set_cookie("session", "eyJ1c2VyX2lkIjo3fQ.forged.signature")
    assert untouched(client.get("/", buffered=True))
    assert users(lines, "inside") == ["absent"]


def test_without_a_secret_key(hook: Hook, lines: list[Line]) -> None:
    """Flask's null session is not asked for what it refuses."""
    app = flask.Flask("keyless")
    app.add_url_rule("/", "page", lambda: say("inside") or "page")
    assert untouched(hook(app).test_client().get("/", buffered=True))
    assert users(lines, "inside") == ["absent"]

"""A Flask application with flask-login. needs: flask, flask_login"""

import secrets
from collections.abc import Callable
from typing import Any

import flask
import flask_login
from werkzeug.test import TestResponse

from tests.frameworks.said import Hook, say


class User(flask_login.UserMixin):
    def __init__(self, key: object) -> None:
        self.id = key


class Named(flask_login.UserMixin):
    """A user whose key is called otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_id(self) -> str:
        return self.name


class Shop:
    """An application with flask-login; `loaded` has every key the loader was asked for."""

    def __init__(self, hook: Hook) -> None:
        self.loaded: list[str] = []
        self.pages: dict[str, Callable[[], Any]] = {}
        self.app = flask.Flask("shop")
        self.app.secret_key = secrets.token_hex()
        self.manager = flask_login.LoginManager(self.app)
        self.manager.user_loader(self._load)
        self.app.add_url_rule("/<name>", "page", lambda name: self.pages[name]() or "page")
        self.client = hook(self.app).test_client()

    def _load(self, key: str) -> User | None:
        self.loaded.append(key)
        say("loading")
        return None if key == "deleted" else User(key)

    def get(self, path: str, **request: Any) -> TestResponse:
        """Ask for ``path`` and read the response to its end."""
        return self.client.get(path, buffered=True, **request)

    def page(self, function: Callable[[], Any]) -> Callable[[], Any]:
        self.pages[function.__name__] = function
        return function

    def log_in(self, key: str, *, stranger: bool = False, **more: Any) -> None:
        """Put into the client's session what `login_user` would."""
        with self.client.session_transaction() as session:
            session.update(_user_id=key, _fresh=True, **more)
            if stranger:
                session["_id"] = "another browser's"


def token_loader(shop: Shop, found: Callable[[str], Any]) -> list[str]:
    """Let flask-login find users by a header too; returns what it was asked for."""
    asked: list[str] = []

    def load(request: Any) -> Any:
        asked.append(request.headers.get("Authorization", ""))
        return found(asked[-1]) if asked[-1] else None

    shop.manager.request_loader(load)
    return asked


def untouched(reply: TestResponse) -> bool:
    """Whether the response says nothing of cookies."""
    return "Set-Cookie" not in reply.headers and "Cookie" not in reply.headers.get("Vary", "")

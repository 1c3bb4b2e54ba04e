"""A small Flask site, and what its lines have to say. needs: flask"""

import secrets
import threading
from collections.abc import Callable
from typing import Any

import flask

from tests.frameworks.said import Hook

# Flask from 3.2 has one context for both.
MERGED = not hasattr(flask.ctx, "RequestContext") or "_cv_request" not in vars(flask.globals)


class Site:
    """An application whose pages are functions of the test, each under its own name."""

    def __init__(self, hook: Hook) -> None:
        self.app = hook(flask.Flask("site"))
        self.app.secret_key = secrets.token_hex()
        self.pages: dict[str, Callable[[], Any]] = {}
        self.app.add_url_rule("/<name>", "page", lambda name: self.pages[name]() or "page")

    def page(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Serve ``function`` under its own name."""
        self.pages[function.__name__] = function
        return function

    def get(self, path: str, **request: Any) -> Any:
        """Ask for ``path`` and read the response to its end; a failing page fails the test."""
        self.app.testing = True
        reply = self.app.test_client().get(path, buffered=True, **request)
        assert reply.status_code == 200
        return reply


def in_thread(function: Callable[[], Any]) -> None:
    """Run ``function`` in a thread of its own; what it raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]

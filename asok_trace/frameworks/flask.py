"""Flask: what its current request says, and where it is entered."""

from typing import Any

from asok_trace.core import settings, text
from asok_trace.core.scope import Scope
from asok_trace.frameworks import environ
from asok_trace.frameworks.base import Entry, Framework
from asok_trace.frameworks.live import live_unowned
from asok_trace.frameworks.pallets import Pallets, request_of


class _Flask(Pallets):
    complaints: tuple[str, ...] = (
        "Working outside of request context",
        # From 3.2 on, in an application's context.
        "There is no request in this context",
    )

    def store(self, request: Any) -> dict[str, Any]:
        found: dict[str, Any] = request_of(request).environ
        return found

    def unowned(self, request: Any) -> Scope:
        found = self.carried(request)
        if found is not None:
            return found
        live = live_unowned(self, settings.default().user)
        return environ.unowned(self.store(request), self.facts(request)[0], live)

    def facts(self, request: Any) -> tuple[str | None, str]:
        found = self.store(request)
        return text.address(found.get("REMOTE_ADDR") or ""), environ.path(found)

    def cookies(self, request: Any) -> str:
        return environ.header(self.store(request), "Cookie") or ""


FRAMEWORK: Framework = _Flask(
    "flask",
    ("flask.app", "Flask"),
    (
        Entry("wsgi_app", "wsgi"),
        Entry("full_dispatch_request", "dispatch"),
        # The first sees what a view raises, the second what after_request functions do.
        Entry("handle_user_exception", "error"),
        Entry("handle_exception", "error"),
    ),
)

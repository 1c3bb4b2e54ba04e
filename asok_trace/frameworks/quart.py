"""Quart: what its current request or websocket says, and where it is entered."""

from typing import Any

from asok_trace.core import settings, text
from asok_trace.core.scope import Scope
from asok_trace.frameworks import asgi_scope
from asok_trace.frameworks.base import Entry, Framework
from asok_trace.frameworks.live import live_unowned
from asok_trace.frameworks.pallets import Pallets, request_of


class _Quart(Pallets):
    lingers = True  # from 0.23 on
    receives = True
    complaints: tuple[str, ...] = (
        "Not within a request context",
        "Not within a websocket context",
        "Not within a request nor websocket context",
        # From 0.23 on, in an application's context.
        "There is no request in this context",
        "There is no websocket in this context",
    )

    def store(self, request: Any) -> dict[str, Any]:
        found: dict[str, Any] = request_of(request).scope
        return found

    def unowned(self, request: Any) -> Scope:
        found = self.carried(request)
        if found is not None:
            return found
        return asgi_scope.unowned(self.store(request), live_unowned(self, settings.default().user))

    def facts(self, request: Any) -> tuple[str | None, str]:
        found = self.store(request)
        return text.address(asgi_scope.peer(found)), asgi_scope.path(found)

    def cookies(self, request: Any) -> str:
        return asgi_scope.header(self.store(request), "cookie") or ""


_ENTRIES = (
    Entry("asgi_app", "asgi"),
    Entry("add_background_task", "task"),
    Entry("full_dispatch_request", "dispatch"),
    Entry("full_dispatch_websocket", "dispatch"),
    # The first sees what a view raises, the others what after_request functions do.
    Entry("handle_user_exception", "error"),
    Entry("handle_exception", "error"),
    Entry("handle_websocket_exception", "error"),
    Entry("receive", "received", "quart.wrappers.websocket:Websocket"),
)

FRAMEWORK: Framework = _Quart("quart", ("quart.app", "Quart"), _ENTRIES)

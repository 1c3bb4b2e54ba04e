"""Any WSGI or ASGI application: what can be known of one whose framework we do not know."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Final

from asok_trace.core import text
from asok_trace.core.errors import ConfigError
from asok_trace.core.scope import UNKNOWN, Fields, Live, Scope
from asok_trace.frameworks.base import Connection, Entry, Framework, Job


class Plain:
    """Has no current request. Also what the adapters of frameworks start from: each says what is
    different there."""

    complaints: tuple[str, ...] = ()
    worker: Sequence[Entry] = ()
    resumes = False
    websockets = True
    lingers = False  # it may have background tasks to run
    receives = False

    def entries(self, app: object) -> Sequence[Entry]:
        return ()

    def current(self) -> Any:
        return None

    def reader(self) -> Callable[[], Any]:
        return self.current

    def carried(self, request: Any) -> Scope | None:
        return None

    def unowned(self, request: Any) -> Scope:
        raise ConfigError(f"{request!r} is the request of no framework that is known here.")

    def facts(self, request: Any) -> tuple[str | None, str]:
        return None, "/"

    def synthetic(self, request: Any) -> bool:
        return False

    def peek(self, request: Any) -> object:
        return UNKNOWN

    def handed(self, request: Any) -> Any:
        return request

    def told_by(self, request: Any) -> object:
        return UNKNOWN

    def live(self, look: Callable[[Scope, Any], Fields]) -> Live:
        return lambda scope: scope._fields

    def client_ip(self, app: Any, peer: str, forwarded: str | None) -> str | None:
        # Proxies are the server's or a middleware's to believe.
        return text.address(peer)

    def route(self, app: Any, found: Any) -> str | None:
        return found if isinstance(found, str) else None

    def matched(self, request: Any) -> str | None:
        return None

    def connection(self, server: Any, args: tuple[Any, ...], header: str) -> Connection:
        raise NotImplementedError

    def job(self, job: dict[str, Any]) -> Job:
        raise NotImplementedError

    def queues_elsewhere(self) -> bool:
        return False

    def view(self, app: Any, route: str, method: str | None) -> Any:
        return None

    def preserved(self, request: Any) -> bool:
        return False

    def traces(self, app: object) -> bool:
        return False

    def variables(self) -> Sequence[ContextVar[Any]]:
        return ()

    def activate(self, request: Any) -> AbstractContextManager[Any]:
        return nullcontext()


_MIDDLEWARES: Final = 32  # to look through: an object may answer to any name for ever


class _Other(Plain):
    """Some framework's, of which one thing is known: its own tracing, which takes no span that is
    current for its parent. By names; nothing is imported."""

    def traces(self, app: object) -> bool:
        for _ in range(_MIDDLEWARES):
            telemetry = getattr(app, "_telemetry", None)  # FastAPI
            middlewares = getattr(app, "user_middleware", ())  # Starlette
            if isinstance(telemetry, dict) and telemetry.get("tracing"):
                return True
            if any(_traces(one.cls) for one in middlewares) or _traces(type(app)):
                return True
            app = getattr(app, "app", None)  # as middlewares call what they are around
            if app is None:
                break
        return False


def _traces(cls: Any) -> bool:
    return getattr(cls, "__module__", None) == "starlette.middleware.opentelemetry"


FRAMEWORK: Framework = _Other()

"""The coming Flask has one context for the application and the request. It is not released: here
stands a small copy of its `flask.globals` and `flask.ctx`, as its main branch has them."""

import gc
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from typing import Any, Self

import pytest

import asok_trace
from asok_trace.core.scope import ACTIVE
from asok_trace.frameworks import base
from asok_trace.gateway import wsgi
from tests.frameworks.said import Line, bare, say, stamped, users

pytestmark = pytest.mark.usefixtures("sound")


class Globals:
    """What extensions put on ``g``."""


class Session(dict[str, Any]):
    accessed = modified = False


class Request:
    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.url_rule = types.SimpleNamespace(rule="/rule/<x>")


class AppContext:
    """`flask.ctx.AppContext` of the coming version: with ``request`` it is the request's too."""

    def __init__(
        self, app: Any, *, request: Request | None = None, session: Session | None = None
    ) -> None:
        self.app = app
        self.g = Globals()
        self._request = request
        self._session = session
        self._cv_token: Token[AppContext] | None = None

    @classmethod
    def from_environ(cls, app: Any, environ: dict[str, Any]) -> "AppContext":
        return cls(app, request=Request(environ))

    @property
    def has_request(self) -> bool:
        return self._request is not None

    @property
    def request(self) -> Request:
        if self._request is None:
            raise RuntimeError("There is no request in this context.")
        return self._request

    @property
    def session(self) -> Session:
        assert self._session is not None
        self._session.accessed = True
        return self._session

    def copy(self) -> "AppContext":
        return type(self)(self.app, request=self._request, session=self._session)

    def __enter__(self) -> Self:
        self._cv_token = sys.modules["flask.globals"]._cv_app.set(self)
        if self._request is not None and self._session is None:
            self._session = Session()
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._cv_token is not None
        sys.modules["flask.globals"]._cv_app.reset(self._cv_token)


AppContext.__module__ = "flask.ctx"


class Flask:
    """`flask.Flask`, as far as a gateway sees it."""

    def __init__(self, view: Callable[[], object]) -> None:
        self.view = view
        self.config: dict[str, Any] = {}
        self.extensions: dict[str, Any] = {}

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Any:
        with AppContext.from_environ(self, environ) as ctx:
            try:
                self.full_dispatch_request(ctx)
            except Exception as error:
                self.handle_exception(ctx, error)
                start_response("500 INTERNAL SERVER ERROR", [])
                return [b"sorry"]
            start_response("200 OK", [])
            return [b"page"]

    def full_dispatch_request(self, ctx: AppContext) -> object:
        try:
            return self.view()
        except Exception as error:
            return self.handle_user_exception(ctx, error)

    def handle_user_exception(self, ctx: AppContext, error: Exception) -> object:
        raise error

    def handle_exception(self, ctx: AppContext, error: Exception) -> object:
        return None


Flask.__module__ = "flask.app"


@pytest.fixture(autouse=True)
def coming(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flask's own modules are the coming ones, and none of Quart is loaded."""
    gc.collect()  # streams that other tests have dropped would log their end here
    wsgi._dropped.clear()
    module: Any = types.ModuleType("flask.globals")
    module._cv_app = ContextVar("flask.app_ctx")

    def gone(name: str) -> Any:
        warnings.warn(f"{name!r} is deprecated and will be removed", DeprecationWarning, 2)
        raise AttributeError(name)

    module.__getattr__ = gone
    for name in [name for name in sys.modules if name.split(".")[0] in ("flask", "quart")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flask.globals", module)
    monkeypatch.setattr(base, "_loaded", {})
    yield
    ACTIVE.set(None)


def environ(path: str = "/page") -> dict[str, Any]:
    return {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": "192.0.2.1"}


def request(app: Flask) -> list[str]:
    """Ask ``app`` for a page; returns the status."""
    found: list[str] = []
    app.wsgi_app(environ(), lambda status, headers, *exc: found.append(status))
    return found


def test_without_instrument(lines: list[Line]) -> None:
    """The request is found in the application's context."""
    assert request(Flask(lambda: say("one") or say("two"))) == ["200 OK"]
    stamped(lines, "/page", "one", "two")
    assert lines[0]["ip"] == "192.0.2.1"


def test_instrumented(lines: list[Line]) -> None:
    """Entered, routed and ended as in the versions that are out."""
    app = Flask(lambda: say("inside"))
    with asok_trace.instrument(app):
        request(app)
    stamped(lines, "/page", "inside", "request")
    assert (lines[-1]["route"], lines[-1]["status"]) == ("/rule/<x>", 200)


def test_an_exception(lines: list[Line]) -> None:
    """Its error functions get the context first; the exception is found."""

    def fail() -> None:
        raise LookupError("of the view")

    app = Flask(fail)
    with asok_trace.instrument(app):
        assert request(app) == ["500 INTERNAL SERVER ERROR"]
    assert lines[-1]["error"] == "LookupError"


def test_a_context_without_a_request(lines: list[Line]) -> None:
    """An application's context alone is no request, and nothing of it is asked that raises."""
    with AppContext(Flask(lambda: None)):
        say("command")
        assert asok_trace.current() is None
    bare(lines, "command")


def test_the_session_is_not_marked(lines: list[Line]) -> None:
    """The user comes from the session, past the property that notes the access."""
    session = Session(user_id=7)
    with AppContext(Flask(lambda: None), request=Request(environ()), session=session):
        say("inside")
    assert users(lines, "inside") == ["7"]
    assert not session.accessed


def test_what_extensions_keep(lines: list[Line]) -> None:
    """``g`` is on the context itself; a copy has an empty one, which is no logout."""

    class User:
        id = None

        def __init__(self) -> None:
            self.id = "5"

    def view() -> None:
        ctx = sys.modules["flask.globals"]._cv_app.get()
        app.login_manager = types.SimpleNamespace(_request_callback=view)  # type: ignore[attr-defined]
        ctx.g._login_user = User()
        say("known")
        with ctx.copy():
            say("copy")
        say("after")

    app = Flask(view)
    with asok_trace.instrument(app):
        request(app)
    assert users(lines, "known", "copy", "after") == ["5", "5", "5"]


def test_a_nested_application_context(lines: list[Line]) -> None:
    """It hides the request: an instrumented application still knows it, no other does."""

    def view() -> None:
        with AppContext(app):
            say("nested")

    app = Flask(view)
    request(app)
    bare(lines, "nested")
    lines.clear()
    with asok_trace.instrument(app):
        request(app)
    stamped(lines, "/page", "nested")

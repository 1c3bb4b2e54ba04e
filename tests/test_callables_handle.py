"""The handle of `instrument(callable)`, and which callables are taken for what.

needs: asok, asgiref, django, fastapi, starlette, werkzeug
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import demo_app

import django
import fastapi
import pytest
import starlette.applications
from asgiref.compatibility import guarantee_single_callable
from asgiref.wsgi import WsgiToAsgi
from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from werkzeug.middleware.proxy_fix import ProxyFix

import asok_trace
from tests.callables import APPS, App, asgi_app, events, patient, wsgi_app
from tests.gateway.conftest import lines
from tests.gateway.sites import CLIENTS, Line, Reply, canonical, wsgi
from tests.programs import run

__all__ = ["lines"]

Call = Callable[..., Reply]

INTERFACES = ("wsgi", "asgi")


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    """The test runs once for each."""
    found: str = request.param
    return found


@pytest.fixture
def app(interface: str) -> App:
    """An application."""
    return APPS[interface]


@pytest.fixture
def call(interface: str) -> Call:
    """Its client."""
    return CLIENTS[interface]


# The handle.


def test_the_callable_is_unchanged(app: App, call: Call, lines: list[Line]) -> None:
    """The given callable is neither called nor marked; called itself, it has no scope."""
    before = dict(vars(app))
    handle = asok_trace.instrument(app)
    assert handle.app is not app
    assert vars(app) == before
    assert call(app).ids == []
    assert [line.get("request_id") for line in lines] == [None]


def test_instrumenting_what_is_wrapped_is_the_same_handle(app: App) -> None:
    """Again, with the same settings or none, nothing is added; other settings are refused."""
    handle = asok_trace.instrument(app, access_log=False)
    assert asok_trace.instrument(handle.app) is handle
    assert asok_trace.instrument(handle.app, access_log=False) is handle
    with pytest.raises(asok_trace.ConfigError, match="instrumented already"):
        asok_trace.instrument(handle.app, access_log=True)


def test_undo_passes_through(app: App, call: Call, lines: list[Line]) -> None:
    """After undo() what was handed to the server goes on serving, without us; it may then be
    instrumented anew."""
    handle = asok_trace.instrument(app)
    handle.undo()
    reply = call(handle.app)
    assert (reply.status, reply.ids) == (200, [])
    assert events(lines) == ["inside"]
    assert "request_id" not in lines[0]
    again = asok_trace.instrument(handle.app)
    assert again is not handle
    assert len(call(again.app).ids) == 1


def test_twice_around_is_one_scope(app: App, call: Call, lines: list[Line]) -> None:
    """A gateway within a gateway hands the request on: one id, one canonical line, one header."""
    inner = asok_trace.instrument(app)

    if call is wsgi:

        def outer(environ: Any, start_response: Any) -> Any:
            return inner.app(environ, start_response)

    else:

        async def outer(scope: Any, receive: Any, send: Any) -> Any:
            await inner.app(scope, receive, send)

    reply = call(asok_trace.instrument(outer).app)
    assert len(reply.ids) == 1
    assert canonical(lines)["request_id"] == reply.ids[0]


SETUP = """
import asok_trace
from tests.gateway.sites import asgi, wsgi
from tests.callables import asgi_app, wsgi_app

def unclear(*args):
    return wsgi_app(*args)

for call, given, said in ((wsgi, wsgi_app, None), (asgi, asgi_app, None), (wsgi, unclear, "wsgi")):
    handle = asok_trace.setup(given, interface=said, access_log=False)
    print(len(call(handle.app).ids))
    handle.undo()
    print(len(call(handle.app).ids))
"""


def test_setup_returns_what_is_to_be_served() -> None:
    """The handle of setup() has the wrapped callable, of the interface that it was told; its
    undo() makes that pass everything through."""
    counts = [line for line in run(SETUP).splitlines() if line.isdecimal()]
    assert counts == ["1", "0"] * 3


# Which interface it is.


class Wsgi:
    """Callable objects, and methods that are handed over."""

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return wsgi_app(environ, start_response)

    serve = __call__


class Asgi:
    """The same in ASGI."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi_app(scope, receive, send)

    def plain(self, scope: Any, receive: Any, send: Any) -> Any:
        """Not a coroutine function, but returns an awaitable."""
        return asgi_app(scope, receive, send)

    serve = __call__


class Pep3333:
    """The class itself is the application: an instance is one response."""

    def __init__(self, environ: Any, start_response: Any) -> None:
        self._parts = wsgi_app(environ, start_response)

    def __iter__(self) -> Any:
        return iter(self._parts)


class Asgi2:
    """An application of ASGI 2."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await asgi_app(self._scope, receive, send)


@functools.wraps(asgi_app)
def decorated(*args: Any, **kwargs: Any) -> Any:
    """Takes anything, but says what it wraps."""
    return asgi_app(*args, **kwargs)


def anything(*args: Any, **kwargs: Any) -> Any:
    """Does not tell what it is."""
    app = wsgi_app if len(args) == 2 else asgi_app
    return app(*args, **kwargs)


def configured(scope: Any, receive: Any, send: Any, extra: Any = None) -> Any:
    """Takes more than it needs."""
    return asgi_app(scope, receive, send)


if not django_settings.configured:
    django_settings.configure(SECRET_KEY="for tests", ROOT_URLCONF=(), LOGGING_CONFIG=None)
    django.setup()

WSGI_APPS: dict[str, Any] = {
    "function": wsgi_app,
    "object": Wsgi(),
    "method": Wsgi().serve,
    "partial": functools.partial(wsgi_app),
    "partial of an object": functools.partial(Wsgi()),
    "class of PEP 3333": Pep3333,
    "demo_app": demo_app,
    "middleware": ProxyFix(wsgi_app),
    "Django": WSGIHandler(),
}

ASGI_APPS: dict[str, Any] = {
    "function": asgi_app,
    "object": Asgi(),
    "method": Asgi().serve,
    "not async itself": Asgi().plain,
    "partial": functools.partial(asgi_app),
    "partial of an object": functools.partial(Asgi()),
    "decorated": decorated,
    "optional argument": configured,
    "ASGI 2, made single": guarantee_single_callable(Asgi2),
    "WSGI behind asgiref": WsgiToAsgi(wsgi_app),
    "Starlette": starlette.applications.Starlette(),
    "FastAPI": fastapi.FastAPI(),
    "Django": ASGIHandler(),
}


@pytest.mark.parametrize("app", WSGI_APPS.values(), ids=WSGI_APPS)
def test_wsgi_is_told_by_itself(app: Any, lines: list[Line]) -> None:
    """Whatever takes two arguments is served as WSGI, and the id is on its response."""
    served = asok_trace.instrument(app).app
    assert not inspect.iscoroutinefunction(served)
    assert len(wsgi(served).ids) == 1


@pytest.mark.parametrize("app", ASGI_APPS.values(), ids=ASGI_APPS)
def test_asgi_is_told_by_itself(app: Any, lines: list[Line]) -> None:
    """Whatever takes three arguments is served as ASGI: servers see a coroutine function."""
    served = asok_trace.instrument(app).app
    assert inspect.iscoroutinefunction(served)
    assert len(patient(served).ids) == 1


@pytest.mark.parametrize("said", INTERFACES)
def test_what_is_said_holds_where_nothing_can_be_told(said: str, lines: list[Line]) -> None:
    """A callable that takes anything is what interface= says."""
    served = asok_trace.instrument(anything, interface=said).app
    assert len(CLIENTS[said](served).ids) == 1


REFUSED: dict[str, tuple[Any, str | None, str]] = {
    "nothing": (None, None, r"None cannot be instrumented: it is no application\. Pass the appl"),
    "a name": ("shop:app", None, r"'shop:app' cannot be instrumented.*Pass the application object"),
    "unclear": (
        anything,
        None,
        r"anything.*do not tell WSGI from ASGI\. Say interface=",
    ),
    "a class": (fastapi.FastAPI, None, r"FastAPI.*of a class, pass an instance"),
    "ASGI 2": (Asgi2, None, r"Asgi2.*one argument.*Pass asgiref\.compatibility\.guarantee_single"),
    "ASGI 2, said": (Asgi2, "asgi", r"Asgi2.*one argument.*guarantee_single_callable"),
    "contradiction": (asgi_app, "wsgi", r"asgi_app.*interface=\"wsgi\".*it is \"asgi\"\. Use that"),
    "the other one": (wsgi_app, "asgi", r"wsgi_app.*interface=\"asgi\".*it is \"wsgi\"\. Use that"),
    "no interface": (
        anything,
        "http",
        r"interface='http' is no interface\. Use \"wsgi\" or \"asgi\"",
    ),
    "factory": (
        lambda settings: wsgi_app,
        None,
        r"lambda.*factories do\. Pass.*what the other",
    ),
}


@pytest.mark.parametrize(("app", "said", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(app: Any, said: str | None, text: str) -> None:
    """The error names the value, the reason and what to do."""
    with pytest.raises(asok_trace.ConfigError, match=text):
        asok_trace.instrument(app, interface=said)

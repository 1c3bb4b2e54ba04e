"""The servers and the frameworks of the contract, as data.

A `Server` is a command line and what is known about it; a `Framework` is a directory with an
application. `tests.contract.site` starts one behind the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.contract.kinds import ASOK_ESCAPES, ASOK_KINDS, Kind
from tests.contract.kinds_pallets import (
    FLASK_ESCAPES,
    FLASK_KINDS,
    QUART_ESCAPES,
    QUART_KINDS,
)


class OwnLine(NamedTuple):
    """A line that the server itself logs about a request."""

    logger: str | None
    """The logger it goes through; None if it does not go through logging at all."""
    carries: bool
    """Whether it carries the request's id."""
    reason: str = ""
    """Why it is not there, or does not carry the id."""


NO_SERVER = OwnLine(None, False, "there is no server")
WAITRESS_ACCESS = OwnLine(None, False, "waitress has no access log")
WSGIREF = OwnLine(None, False, "wsgiref, which `asok dev` serves with, writes to stderr directly")
# Hypercorn calls a WSGI application in a thread of its pool and logs in the event loop, whose
# context never sees the request. Its format knows the response's headers, though: the id is in
# the line's text.
HYPERCORN_WSGI_ACCESS = OwnLine(
    "hypercorn.access",
    False,
    "logged in the event loop, outside the context that the application ran in; "
    "%({x-request-id}o)s in the access log's format is the way",
)
HYPERCORN_WSGI_REPORT = OwnLine(
    "hypercorn.error",
    False,
    "logged in the event loop, outside the context that the application ran in",
)


@dataclass(frozen=True)
class Server:
    """How to serve an application, and what is known about this way.

    ``command`` is a template: ``{port}``, ``{log_config}`` (a file for `logging.config`),
    ``{python}`` and ``{module}`` are filled in; its first word is a program of this environment.
    """

    name: str
    command: Sequence[str]
    interface: str
    """``wsgi`` or ``asgi``."""
    access: OwnLine
    """The access line."""
    report: OwnLine
    """The report of an exception that the application let out."""
    stamp: str = "patch"
    """What stamps the standard library's records: ``patch`` is `stamp_logging`, ``filter`` is
    `RequestFilter` on the handlers."""
    instrumented: bool = True
    """Whether the application is; otherwise there are no canonical lines."""
    keep_alive: bool = True
    """Whether it serves a second request on a connection."""
    ip: str | None = "127.0.0.1"
    """The address that its requests come from, as it tells."""
    in_process: bool = False
    """Whether the framework's test client stands in for a server."""
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: range = range(1)
    """The ports that it can be told to use; by default any that the system gives."""


def _gunicorn(*arguments: str, app: str = "{module}:app") -> Sequence[str]:
    return (
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "1"),
        *("--log-config-json", "{log_config}", *arguments, app),
    )


def _uvicorn(*arguments: str, app: str = "{module}:app") -> Sequence[str]:
    return (
        *("uvicorn", "--host", "127.0.0.1", "--port", "{port}"),
        *("--timeout-graceful-shutdown", "1", "--log-config", "{log_config}", *arguments),
        app,
    )


def _hypercorn(app: str) -> Sequence[str]:
    # Without --access-logfile it has no access log, whatever the log configuration says.
    return (
        *("hypercorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "1"),
        *("--log-config", "json:{log_config}", "--access-logfile", "-"),
        *("--access-logformat", '%(h)s "%(R)s" %(s)s %({{x-request-id}}o)s', app),
    )


GUNICORN_ACCESS = OwnLine("gunicorn.access", True)
GUNICORN_REPORT = OwnLine("gunicorn.error", True)
UVICORN_ACCESS = OwnLine("uvicorn.access", True)
UVICORN_REPORT = OwnLine("uvicorn.error", True)
HYPERCORN_ASGI_ACCESS = OwnLine("hypercorn.access", True)
HYPERCORN_ASGI_REPORT = OwnLine("hypercorn.error", True)


def _test_client(name: str, interface: str, ip: str | None) -> Server:
    return Server(
        name,
        ("{python}", "in_process.py"),
        interface,
        access=NO_SERVER,
        report=NO_SERVER,
        ip=ip,
        in_process=True,
        keep_alive=False,
    )


SERVERS: Sequence[Server] = (
    _test_client("testclient", "wsgi", None),
    # Werkzeug's says that it comes from there, as if it were a server's.
    _test_client("flask-client", "wsgi", "127.0.0.1"),
    _test_client("quart-client", "asgi", None),
    Server(
        "gunicorn-sync",
        _gunicorn(),
        "wsgi",
        access=GUNICORN_ACCESS,
        report=GUNICORN_REPORT,
        stamp="filter",
        keep_alive=False,
    ),
    Server(
        "gunicorn-gthread",
        _gunicorn("--threads", "4"),
        "wsgi",
        access=GUNICORN_ACCESS,
        report=GUNICORN_REPORT,
    ),
    Server(
        "gunicorn-gevent",
        _gunicorn("--worker-class", "gevent"),
        "wsgi",
        access=GUNICORN_ACCESS,
        report=GUNICORN_REPORT,
    ),
    Server(
        "waitress",
        ("waitress-serve", "--listen=127.0.0.1:{port}", "{module}:app"),
        "wsgi",
        access=WAITRESS_ACCESS,
        report=OwnLine("waitress", True),
        stamp="filter",
    ),
    Server("uvicorn", _uvicorn(), "asgi", access=UVICORN_ACCESS, report=UVICORN_REPORT),
    Server(
        "uvicorn-asgi3",
        _uvicorn("--interface", "asgi3"),
        "asgi",
        access=UVICORN_ACCESS,
        report=UVICORN_REPORT,
        stamp="filter",
    ),
    Server(
        "uvicorn-asgi2",
        _uvicorn("--interface", "asgi2"),
        "asgi",
        access=UVICORN_ACCESS,
        report=UVICORN_REPORT,
    ),
    Server(
        "hypercorn-wsgi",
        _hypercorn("wsgi:{module}:app"),
        "wsgi",
        access=HYPERCORN_WSGI_ACCESS,
        report=HYPERCORN_WSGI_REPORT,
    ),
    Server(
        "hypercorn-asgi",
        _hypercorn("asgi:{module}:app"),
        "asgi",
        access=HYPERCORN_ASGI_ACCESS,
        report=HYPERCORN_ASGI_REPORT,
        stamp="filter",
    ),
    Server(
        "asok-dev",
        ("asok", "dev", "--port", "{port}"),
        "wsgi",
        access=WSGIREF,
        report=WSGIREF,
        keep_alive=False,
        environment={"DEBUG": "true"},  # nobody runs it without
        ports=range(5000, 8100),  # it looks for a free one from the given one on, below 8100
    ),
)

_GUNICORN_ONE_LINE = Server(
    "gunicorn-one-line",
    _gunicorn("--worker-class", "gthread", "--threads", "1", app="{module}_one_line:app"),
    "wsgi",
    access=GUNICORN_ACCESS,
    report=GUNICORN_REPORT,
    instrumented=False,
)
"""One thread, so that whatever a request leaves on it meets the next one."""

_ASGI_ONE_LINE = (
    Server(
        "uvicorn-one-line",
        _uvicorn(app="{module}_one_line:app"),
        "asgi",
        access=UVICORN_ACCESS,
        report=UVICORN_REPORT,
        instrumented=False,
    ),
    Server(
        "hypercorn-one-line",
        _hypercorn("asgi:{module}_one_line:app"),
        "asgi",
        access=HYPERCORN_ASGI_ACCESS,
        report=HYPERCORN_ASGI_REPORT,
        instrumented=False,
    ),
)

GEVENT = next(server for server in SERVERS if server.name == "gunicorn-gevent")
"""Greenlets in place of threads. An async page is beyond asok there: it runs an event loop within
the thread of another."""


@dataclass(frozen=True)
class Framework:
    """An application that the contract is tested with."""

    name: str
    kinds: Sequence[Kind]
    """Every kind of response that it gives."""
    escapes: Sequence[Kind]
    """Requests of which an exception reaches the server."""
    servers: Sequence[str]
    """The names of the servers that it is served by."""
    one_line: Sequence[Server]
    """Those that serve it with the documented one line and nothing else."""
    module: str = "wsgi"
    """What the servers import."""

    @property
    def app(self) -> str:
        """Its directory under ``apps``."""
        return f"{self.name}_app"


FRAMEWORKS: Sequence[Framework] = (
    Framework(
        "asok",
        ASOK_KINDS,
        ASOK_ESCAPES,
        (
            *("testclient", "gunicorn-sync", "gunicorn-gthread", "waitress"),
            *("uvicorn", "uvicorn-asgi3", "uvicorn-asgi2", "hypercorn-wsgi", "hypercorn-asgi"),
            "asok-dev",
        ),
        (_GUNICORN_ONE_LINE,),
    ),
    Framework(
        "flask",
        FLASK_KINDS,
        FLASK_ESCAPES,
        (
            *("flask-client", "gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"),
            *("waitress", "hypercorn-wsgi"),
        ),
        (_GUNICORN_ONE_LINE,),
    ),
    Framework(
        "quart",
        QUART_KINDS,
        QUART_ESCAPES,
        ("quart-client", "uvicorn", "uvicorn-asgi3", "hypercorn-asgi"),
        _ASGI_ONE_LINE,
        module="asgi",
    ),
)

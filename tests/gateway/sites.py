"""Small Asok sites, and clients that may be as odd as the network is. needs: asok"""

import asyncio
import io
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from asok import Asok, Field, Model
from asok.orm import close_all_db_connections
from waitress import wasyncore
from waitress.server import create_server

HEADER = "X-Request-ID"

View = Callable[[Any], Any]
Headers = Sequence[tuple[str, str]]
Line = dict[str, Any]

PEER = "203.0.113.7"

_PAGE = """\
def get(request):
    views = request.environ["asok.app"].views
    return views.get(request.params["name"], views["plain"])(request)


post = get
"""

_ASYNC_PAGE = """\
async def get(request):
    return await request.environ["asok.app"].views[request.params["name"]](request)
"""


class Site:
    """An Asok application whose pages are functions of the test: ``/x`` is ``views["x"]``, or
    ``views["plain"]`` where there is none, and ``/async/x`` awaits it."""

    def __init__(self, root: Path) -> None:
        for path, source in {"[name]": _PAGE, "async/[name]": _ASYNC_PAGE}.items():
            folder = root / "src" / "pages" / path
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "page.py").write_text(source, encoding="utf-8")
        self.root = root
        self.app: Any = Asok(str(root))
        self.app._session_store.stop_cleanup_timer()
        self.app.config["RATE_LIMIT"] = False
        self.app.config["CSRF"] = False
        self.views: dict[str, View] = {"plain": lambda request: "plain"}
        self.app.views = self.views

    def view(self, function: View) -> View:
        """Serve ``function`` under its own name."""
        self.views[function.__name__] = function
        return function


class Reply(NamedTuple):
    """What a client got."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def ids(self) -> list[str]:
        """The values of all request id headers."""
        return self.all(HEADER)

    def all(self, name: str) -> list[str]:
        """The values of all headers called ``name``."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def without_id(self) -> "Reply":
        """This reply but for our header, its header names in lower case."""
        kept = [
            (key.lower(), value) for key, value in self.headers if key.lower() != HEADER.lower()
        ]
        return self._replace(headers=kept)


@dataclass
class Started:
    """A ``start_response`` that remembers, and is as strict as wsgiref."""

    calls: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)

    def __call__(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        assert type(headers) is list
        assert all(type(name) is str and type(value) is str for name, value in headers)
        self.calls.append((status, headers))
        return lambda data: None

    def reply(self, body: bytes) -> Reply:
        """The reply that these calls amount to."""
        status, headers = self.calls[-1]
        return Reply(int(status[:3]), list(headers), body)


def environ(
    path: str | bytes = "/plain",
    *,
    method: str = "GET",
    headers: Headers = (),
    body: bytes = b"",
    query: str = "",
    peer: str = PEER,
) -> dict[str, Any]:
    """A WSGI environ as a server makes it: bytes as latin-1, doubled headers joined."""
    raw = path.encode() if isinstance(path, str) else path
    made: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": raw.decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": peer,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        made[key] = f"{made[key]},{value}" if key in made and key != "CONTENT_LENGTH" else value
    return made


def wsgi(app: Any, path: str | bytes = "/plain", **request: Any) -> Reply:
    """Send one request as a WSGI server does: iterate the body, then close it."""
    started = Started()
    body = app(environ(path, **request), started)
    try:
        sent = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return started.reply(sent)


Message = dict[str, Any]


def asgi_scope(
    path: str | bytes = "/plain",
    *,
    method: str = "GET",
    headers: Headers = (),
    body: bytes = b"",
    query: str = "",
    peer: str | None = PEER,
) -> Message:
    """An ASGI scope as a server makes it: the path decoded, headers as bytes."""
    raw = path.encode() if isinstance(path, str) else path
    pairs = [("host", "localhost"), *headers]
    if body:
        pairs.append(("content-length", str(len(body))))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw.decode("utf-8", "replace"),
        "raw_path": raw,
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs
        ],
        "client": None if peer is None else (peer, 50000),
        "server": ("localhost", 80),
    }


def receiving(body: bytes = b"") -> Callable[[], Awaitable[Message]]:
    """An ASGI ``receive`` that hands over ``body``, then a disconnect."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def replied(messages: Iterable[Message]) -> Reply:
    """The reply that these ASGI messages amount to."""
    messages = list(messages)
    start = next(message for message in messages if message["type"] == "http.response.start")
    headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in start["headers"]]
    body = b"".join(message.get("body", b"") for message in messages)
    return Reply(start["status"], headers, body)


def asgi(app: Any, path: str | bytes = "/plain", **request: Any) -> Reply:
    """Send one request as an ASGI server does."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = asgi_scope(path, **request)
    asyncio.run(app(scope, receiving(request.get("body", b"")), send))
    return replied(sent)


CLIENTS: dict[str, Callable[..., Reply]] = {"wsgi": wsgi, "asgi": asgi}

FORM = ("Content-Type", "application/x-www-form-urlencoded")


def say(event: str, **keys: Any) -> None:
    """Log a line through structlog."""
    structlog.get_logger().info(event, **keys)


def named(lines: list[Line], event: str) -> Line:
    """The only line of this event."""
    [found] = [line for line in lines if line["event"] == event]
    return found


def canonical(lines: list[Line]) -> Line:
    """The only canonical line."""
    return named(lines, "request")


def make_users(folder: Path) -> Any:
    """A model ``User`` with a database of its own, and two users in it: 1 and 2."""
    model = type(
        "User",
        (Model,),
        {
            "__module__": __name__,
            "_db_path": str(folder / "users.sqlite3"),
            "name": Field.String(),
            "email": Field.String(),
        },
    )
    model.create_table()  # type: ignore[attr-defined]
    for name in ("ada", "bob"):
        model.create(_trust=True, name=name, email=f"{name}@example.org")  # type: ignore[attr-defined]
    close_all_db_connections()
    return model


@contextmanager
def waitress_serving(app: Any, threads: int = 4) -> Iterator[int]:
    """Serve ``app`` on a free port of this machine; yields the port."""
    sockets: dict[Any, Any] = {}
    server: Any = create_server(app, map=sockets, host="127.0.0.1", port=0, threads=threads)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            wasyncore.loop(timeout=0.02, count=1, map=sockets)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        stop.set()
        thread.join(10)
        server.task_dispatcher.shutdown()
        server.close()
        wasyncore.close_all(sockets)
        assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    """A connection to a server of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def fetch(port: int, path: str = "/plain", **headers: str) -> Reply:
    """Ask a server of this machine, on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return Reply(response.status, response.getheaders(), response.read())
    finally:
        connection.close()

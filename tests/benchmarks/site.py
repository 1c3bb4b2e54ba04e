"""An Asok application of one page, in the current folder, and clients that call it in-process."""

import asyncio
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = """\
def get(request):
    return request.environ["asok.app"].view(request)
"""

PEER = "203.0.113.7"


def trivial(request: Any) -> str:
    """A page that does nothing."""
    return "<p>hello</p>"


def make() -> Any:
    """Return an Asok application whose page ``/orders`` is ``app.view``."""
    from asok import Asok

    page = Path("src/pages/orders/page.py")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(PAGE, encoding="utf-8")
    logging.getLogger("asok.core").setLevel(logging.ERROR)
    app: Any = Asok(".")
    # Its own line per request is not what is measured.
    logging.getLogger("asok").setLevel(logging.ERROR)
    app.config["RATE_LIMIT"] = False
    app.view = trivial
    return app


def environ() -> dict[str, Any]:
    """A GET request as a WSGI server makes it."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/orders",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "HTTP_USER_AGENT": "benchmark",
        "REMOTE_ADDR": PEER,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }


def asgi_scope() -> dict[str, Any]:
    """A GET request as an ASGI server makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/orders",
        "raw_path": b"/orders",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"user-agent", b"benchmark")],
        "client": (PEER, 50000),
        "server": ("localhost", 80),
    }


def _start_response(status: str, headers: Any, exc_info: Any = None) -> None:
    assert status == "200 OK", status


def wsgi(app: Any) -> None:
    """Send a request as a WSGI server does."""
    body = app(environ(), _start_response)
    for _chunk in body:
        pass
    if hasattr(body, "close"):
        body.close()


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: dict[str, Any]) -> None:
    assert message.get("status", 200) == 200, message


def staying_asgi_client() -> Callable[[Any], None]:
    """Return one whose user stays until the response is there, for applications that listen for
    the end of the connection meanwhile."""
    loop = asyncio.new_event_loop()

    async def request(app: Any) -> None:
        asked, whole = False, loop.create_future()

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await whole
                return {"type": "http.disconnect"}
            asked = True
            return await _receive()

        async def send(message: dict[str, Any]) -> None:
            await _send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                whole.set_result(None)

        await app(asgi_scope(), receive, send)

    def asgi(app: Any) -> None:
        loop.run_until_complete(request(app))

    return asgi


def asgi_client() -> Callable[[Any], None]:
    """Return a function like `wsgi` that sends a request as an ASGI server does."""
    loop = asyncio.new_event_loop()

    def asgi(app: Any) -> None:
        loop.run_until_complete(app(asgi_scope(), _receive, _send))

    return asgi

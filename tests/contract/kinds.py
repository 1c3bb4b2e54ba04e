"""Every kind of response that an application gives, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Instead(NamedTuple):
    """What is answered under one interface or by one server, and why."""

    status: int
    reason: str
    by_server: bool = False
    """Whether the server answers in place of the application: nobody can set a header then."""
    error: str | None = None
    """The class of the exception that the framework made an error page of."""


@dataclass(frozen=True)
class Kind:
    """One kind of response: how to get it, and what is known about it."""

    name: str
    target: str
    """The path, and the query string if there is one."""
    status: int = 200
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = ""
    route: str | None = None
    """The route on the canonical line; None where no page was looked up."""
    error: str | None = None
    """The class of the exception that the framework made an error page of."""
    instead: Mapping[str, Instead] = field(default_factory=dict)
    """Name of an interface or a server -> what is answered there."""
    truncated: bool = False
    """Whether the server breaks the body off, because the application failed in the middle."""
    says: Sequence[str] = ()
    """What its page logs, each through structlog and through the standard library."""

    @property
    def path(self) -> str:
        """The path alone."""
        return self.target.partition("?")[0]

    @property
    def asked(self) -> tuple[str, str]:
        """The method and the target."""
        return self.method, self.target

    @property
    def request(self) -> dict[str, Any]:
        """What `Site.exchange` takes beside these."""
        return {"headers": self.headers, "body": self.body, "content_type": self.content_type}

    def under(self, *names: str) -> Instead:
        """What is answered under an interface, by a server; the first that is named counts."""
        for name in names:
            if name in self.instead:
                return self.instead[name]
        return Instead(self.status, "", error=self.error)


def _refused(error: str) -> dict[str, Instead]:
    return {
        "asgi": Instead(
            500,
            "under ASGI a page runs as a coroutine, awaited outside the handlers that turn "
            "redirects, aborts and refusals into responses",
            error=error,
        )
    }


_NO_BODY = {
    "hypercorn-wsgi": Instead(
        500,
        "hypercorn starts a WSGI response with the first piece of its body; asok swallows the "
        "exception and ends the body before the first",
        by_server=True,
    )
}
_NO_METRICS = {"asgi": Instead(404, "asok's ASGI entry has no /metrics")}

ASOK_KINDS: Sequence[Kind] = (
    Kind("page", "/", route="/", says=["home"]),
    Kind("json api", "/api/items", route="/api/items", says=["items"]),
    Kind("block", "/blocks", headers={"X-Block": "main"}, route="/blocks", says=["blocks"]),
    Kind("created", "/created", 201, route="/created", says=["created"]),
    Kind("own header", "/own_header", route="/own_header", says=["own header"]),
    Kind(
        "redirect",
        "/redirect",
        302,
        route="/redirect",
        instead=_refused("RedirectException"),
        says=["redirect"],
    ),
    Kind(
        *("back", "/back", 302),
        headers={"Referer": "/form"},
        route="/back",
        instead=_refused("RedirectException"),
        says=["back"],
    ),
    Kind("csrf refusal", "/form", 403, "POST", route="/form", instead=_refused("SecurityError")),
    Kind("csrf refusal of an api", "/api/items", 403, "POST", route="/api/items"),
    Kind("abort", "/gone", 404, route="/gone", instead=_refused("AbortException"), says=["gone"]),
    Kind("not found", "/nowhere", 404),
    Kind("too large", "/form", 413, "POST", body=b"x" * 1001, content_type="text/plain"),
    Kind("view raises", "/boom", 500, error="LookupError", route="/boom", says=["boom"]),
    Kind("css", "/css/site.css"),
    Kind("image", "/images/dot.png"),
    Kind("static file not found", "/css/none.css", 404),
    Kind("health", "/health"),
    Kind("metrics", "/metrics", instead=_NO_METRICS),
    Kind("stream", "/stream", route="/stream", says=["stream", *["part"] * 3]),
    Kind(
        "stream that raises",
        "/broken_stream",
        route="/broken_stream",
        instead=_NO_BODY,
        says=["broken stream"],
    ),
    Kind("attachment", "/download", route="/download", says=["download"]),
    Kind("inline file", "/download?inline=1", route="/download", says=["download"]),
    Kind("large file", "/download?name=large.bin", route="/download", says=["download"]),
    Kind("options", "/", 204, "OPTIONS"),
    Kind("head", "/", method="HEAD", route="/", says=["home"]),
    Kind("parameter", "/user/7", route="/user/[id]", says=["user page"]),
    Kind("async page", "/first_thing", route="/first_thing", says=["first", "second"]),
    Kind("thread", "/thread", route="/thread", says=["before thread", "in thread"]),
    Kind("logged error", "/logged_error", route="/logged_error"),
)
"""Without the generated (SSG) page, which is a kind of its own each time: see its tests."""

ASOK_ESCAPES: Sequence[Kind] = (
    Kind(
        *("form that cannot be decoded", "/form", 500, "POST"),
        body=b"name=\xff",  # asok decodes it outside everything that catches
        content_type="application/x-www-form-urlencoded",
        error="UnicodeDecodeError",
    ),
)
"""Requests of which the framework lets the exception out, to the server."""

"""Every kind of response that the Flask and the Quart application give, as data.

They have the same pages. What is known of both is said once; what differs is an argument.
"""

from collections.abc import Mapping, Sequence

from tests.contract.kinds import Instead, Kind

_NO_PIECE: Mapping[str, Instead] = {
    "hypercorn-wsgi": Instead(
        500,
        "hypercorn starts a WSGI response with the first piece of its body, and it has none",
        by_server=True,
    )
}


def _static(route: str) -> Sequence[Kind]:
    old = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    return (
        Kind("css", "/css/site.css", route=route),
        Kind(
            *("css that is known", "/css/site.css", 304),
            headers=old,
            route=route,
            instead=_NO_PIECE,
        ),
        Kind("part of css", "/css/site.css", 206, headers={"Range": "bytes=0-3"}, route=route),
        Kind("static file not found", "/css/none.css", 404, route=route),
        Kind("image", "/images/dot.png", route="/images/<name>"),
        Kind("image not found", "/images/none.png", 404, route="/images/<name>"),
    )


_PAGES: Sequence[Kind] = (
    Kind("page", "/", route="/", says=["home"]),
    Kind("json api", "/api/items", route="/api/items", says=["items"]),
    Kind("created", "/created", 201, route="/created", says=["created"]),
    Kind("own header", "/own_header", route="/own_header", says=["own header"]),
    Kind("redirect", "/redirect", 302, route="/redirect", says=["redirect"]),
    Kind("back", "/back", 302, headers={"Referer": "/form"}, route="/back", says=["back"]),
    Kind("slash missing", "/folder", 308),
    Kind("abort", "/gone", 404, route="/gone", says=["gone"]),
    Kind("own response", "/own_response", 409, route="/own_response", says=["own response"]),
    Kind("not found", "/nowhere", 404),
    Kind("method not allowed", "/created", 405, "POST"),
    Kind("too large", "/form", 413, "POST", body=b"x" * 1001, route="/form"),
    Kind("view raises", "/boom", 500, error="LookupError", route="/boom", says=["boom"]),
    Kind(
        *("abort with 503", "/unavailable", 503),
        error="ServiceUnavailable",
        route="/unavailable",
        says=["unavailable"],
    ),
    Kind("handled error", "/handled", 400, route="/handled", says=["handled", "in handler"]),
    Kind("before_request answers", "/early", route="/early", says=["early"]),
    Kind(
        *("after_request raises", "/after_raises", 500),
        error="LookupError",
        route="/after_raises",
        says=["after raises"],
    ),
    Kind("health", "/health", route="/health"),
    Kind("stream", "/stream", route="/stream", says=["stream", *["part"] * 3]),
    Kind(
        "plain stream", "/plain_stream", route="/plain_stream", says=["plain stream", *["part"] * 3]
    ),
    Kind("attachment", "/download", route="/download", says=["download"]),
    Kind("inline file", "/download?inline=1", route="/download", says=["download"]),
    Kind("large file", "/download?name=large.bin", route="/download", says=["download"]),
    Kind("options", "/", 200, "OPTIONS", route="/", instead=_NO_PIECE),
    Kind("parameter", "/user/7", route="/user/<number>", says=["user page"]),
    Kind("async page", "/first_thing", route="/first_thing", says=["first", "second"]),
    Kind("thread", "/thread", route="/thread", says=["before thread", "in thread"]),
    Kind("logged error", "/logged_error", route="/logged_error"),
    *_static("/css/<path:filename>"),
    Kind("head", "/", method="HEAD", route="/", instead=_NO_PIECE, says=["home"]),
)

_ESCAPES: Sequence[Kind] = (
    Kind(
        *("teardown_request raises", "/teardown_raises", 500),
        error="LookupError",
        route="/teardown_raises",
        says=["teardown raises"],
    ),
    Kind(
        *("PROPAGATE_EXCEPTIONS", "/propagates", 500),
        error="LookupError",
        route="/propagates",
        says=["propagates"],
    ),
    Kind(
        "stream that raises",
        "/broken_stream",
        error="LookupError",
        route="/broken_stream",
        truncated=True,
        says=["broken stream"],
    ),
)


FLASK_KINDS: Sequence[Kind] = _PAGES
QUART_KINDS: Sequence[Kind] = (
    *_PAGES,
    Kind("sync page", "/sync_page", route="/sync_page", says=["in a thread of quart's"]),
)
FLASK_ESCAPES: Sequence[Kind] = _ESCAPES
QUART_ESCAPES: Sequence[Kind] = _ESCAPES

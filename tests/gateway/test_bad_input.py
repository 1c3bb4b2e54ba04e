"""Paths, methods, addresses and bodies from strangers: a line stays one line, an ip is an address,
and the application answers as it would without us. needs: asok"""

import io
import ipaddress
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from asok.core.signals import request_started
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import asok_trace
from asok_trace.core import errors
from asok_trace.core.scope import ACTIVE
from tests.gateway import sites
from tests.gateway.sites import FORM, PEER, Line, Reply, Site, Started, canonical, say

Call = Callable[..., Reply]

quick = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

NASTY = {
    "a forged line": b"/a\r\n2026-01-01 CRITICAL admin logged in",
    "a lone newline": b"/a\nb",
    "a tab, a bell and a null": b"/a\tb\x07c\x00d",
    "terminal escapes": b"/\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "a C1 escape": "/\x9b31m".encode(),
    "a bidirectional override": "/\u202etxt.exe\u2066".encode(),
    "unicode line ends": "/a\u2028b\u2029c\x85d\x0be\x0cf".encode(),
    "a byte order mark": "/\ufeffa\u200bb".encode(),
    "invalid UTF-8": b"/\xff\xfe\x80abc",
    "overlong UTF-8": b"/\xc0\xae\xc0\xae/",
    "an UTF-8 surrogate": b"/\xed\xa0\x80",
    "format directives": b"/%s%d%(x)s{0}{request}",
    "markup": b"/[bold]<script>&amp;",
    "very long": b"/" + b"x" * 100_000,
    "very long, all escapes": b"/" + b"\n" * 100_000,
    "very long, invalid UTF-8": b"/" + b"\xff" * 5_000,
}
nasty = pytest.mark.parametrize("path", NASTY.values(), ids=NASTY)


@pytest.fixture
def said() -> Iterator[None]:
    """Each request logs a line at its start, whether or not a page is found for it."""

    def receiver(_sender: Any, **_named: Any) -> None:
        say("started")
        logging.getLogger("shop").info("started")

    request_started.connect(receiver)
    yield
    request_started.disconnect(receiver)


def assert_printable(text: str) -> None:
    """One line, without a character that a terminal or a log reader obeys."""
    assert text.isprintable()
    assert len(text.splitlines()) == 1


@pytest.mark.usefixtures("said")
@nasty
def test_a_stamped_path_is_printable_and_bounded(
    site: Site, call: Call, lines: list[Line], path: bytes
) -> None:
    """At most 1,024 characters, none of them a control or format character."""
    asok_trace.instrument(site.app)
    call(site.app, path)
    assert len(lines) == 2
    for line in lines:
        assert_printable(line["path"])
        assert len(line["path"]) <= 1024
        assert line["path"].startswith("/")


RENDERERS: dict[str, list[Any]] = {
    "json": [structlog.processors.JSONRenderer(ensure_ascii=False)],
    "console": [structlog.dev.ConsoleRenderer(colors=False)],
    "key=value": [structlog.processors.KeyValueRenderer(repr_native_str=False)],
    "logfmt": [structlog.processors.LogfmtRenderer()],
    "one-liner": [],
}


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_line_stays_one_line_in_structlog(site: Site, call: Call, renderer: str) -> None:
    """Whatever renders it; a JSON line parses and holds the path that was stamped."""
    written = io.StringIO()
    structlog.configure(
        processors=[asok_trace.inject, *RENDERERS[renderer]],
        logger_factory=structlog.PrintLoggerFactory(written),
    )
    asok_trace.instrument(site.app)
    for path in NASTY.values():
        call(site.app, path)
    printed = written.getvalue().rstrip("\n").split("\n")
    assert len(printed) == 2 * len(NASTY)
    for line in printed:
        assert_printable(line)
        if renderer in ("json", "one-liner"):
            assert len(json.loads(line)["path"]) <= 1024


@pytest.mark.usefixtures("said")
def test_a_line_stays_one_line_in_the_standard_library(site: Site, call: Call) -> None:
    """With the fields in a text format; the canonical line's own message as well."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(request_id)s %(ip)s %(user)s %(path)s %(message)s"))
    handler.addFilter(asok_trace.RequestFilter(missing="-"))
    loggers = [logging.getLogger("shop"), logging.getLogger("asok_trace.request")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    asok_trace.instrument(site.app)
    try:
        for path in NASTY.values():
            call(site.app, path)
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    printed = written.getvalue().rstrip("\n").split("\n")
    assert len(printed) == 2 * len(NASTY)
    for line in printed:
        assert_printable(line)


def test_a_path_is_the_same_text_under_both_interfaces(site: Site, lines: list[Line]) -> None:
    """WSGI hands UTF-8 over as latin-1, ASGI decoded; the line shows what the client meant."""
    asok_trace.instrument(site.app)
    for call in sites.CLIENTS.values():
        call(site.app, "/café/日本")
    assert [line["path"] for line in lines] == ["/café/日本"] * 2


@quick
@given(path=st.text(max_size=2000))
def test_any_path_that_a_test_client_passes(site: Site, lines: list[Line], path: str) -> None:
    """Also what no server hands over: real text beyond latin-1, no slash, nothing at all."""
    asok_trace.instrument(site.app)
    environ = sites.environ()
    environ["PATH_INFO"] = path
    b"".join(site.app(environ, Started()))
    line = canonical(lines)
    lines.clear()
    assert_printable(line["path"])
    assert len(line["path"]) <= 1024
    assert all(piece.working for piece in errors.PIECES)


@pytest.mark.parametrize("method", ["G\r\nET", "X" * 200, "\x1b[31mGET", "", "PROPFIND"])
def test_a_method_is_printable_and_bounded(
    site: Site, call: Call, lines: list[Line], method: str
) -> None:
    """It stands in the canonical line alone, in at most 32 characters."""
    asok_trace.instrument(site.app)
    call(site.app, method=method)
    stamped = canonical(lines)["method"]
    assert stamped.isprintable()
    assert len(stamped) <= 32


# --- ip ------------------------------------------------------------------------------------

NO_ADDRESSES = [
    "<script>alert(1)</script>",
    "fe80::1%<script>\r\n",
    "1.2.3.4:80",
    "[::1]:80",
    "1.2.3.4\r\nX: y",
    "1.2.3.4 5.6.7.8",
    "1.2.3",
    "01.2.3.4.5",
    "localhost",
    "unknown",
    "_hidden",
    "",
    " ",
    ",",
    ", 1.2.3.4",
    "1" * 100_000,
    "::" + "0" * 100,
    "é",
    "1.2.3.4\x00",
]
ADDRESSES = ["1.2.3.4", " 1.2.3.4 ", "2001:db8::1", "::ffff:1.2.3.4", "::", "1.2.3.4, 10.0.0.1"]
TRUSTED: list[Any] = [
    None,
    [],
    ["10.0.0.1"],
    [PEER],
    (PEER,),
    {PEER},
    "*",
    ["*"],
    f"10.0.0.1 {PEER}",
]


def address(*texts: str) -> str | None:
    """The first of ``texts`` that is an address, without its zone; told by another library."""
    for text in texts:
        bare = text.partition("%")[0]
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            continue
        return bare
    return None


def stamped_and_own(
    site: Site, call: Call, lines: list[Line], *, headers: sites.Headers, peer: str
) -> tuple[str | None, str]:
    """The ip of the canonical line, and what ``request.ip`` said in the view."""
    own: list[str] = []
    site.views["plain"] = lambda request: own.append(request.ip) or "plain"
    lines.clear()
    call(site.app, headers=headers, peer=peer)
    return canonical(lines).get("ip"), own[0]


@pytest.mark.parametrize("trusted", TRUSTED, ids=repr)
def test_the_ip_is_what_asok_says_if_that_is_an_address(
    site: Site, call: Call, lines: list[Line], trusted: Any
) -> None:
    """With X-Forwarded-For spoofed or not, trusted or not; else it is the peer's."""
    asok_trace.instrument(site.app)
    site.app.config["TRUSTED_PROXIES"] = trusted
    for forwarded in NO_ADDRESSES + ADDRESSES:
        stamped, own = stamped_and_own(
            site, call, lines, headers=[("X-Forwarded-For", forwarded)], peer=PEER
        )
        assert stamped == address(own, PEER), forwarded


def test_of_doubled_headers_the_one_that_asok_takes_counts(
    site: Site, call: Call, lines: list[Line]
) -> None:
    """WSGI servers join them; under ASGI asok takes the last, and underscores for dashes."""
    asok_trace.instrument(site.app)
    site.app.config["TRUSTED_PROXIES"] = "*"
    one, two, three = "1.1.1.1", "2.2.2.2", "3.3.3.3"
    for headers in (
        [("X-Forwarded-For", one), ("X-Forwarded-For", two)],
        [("X-Forwarded-For", one), ("x_forwarded_for", two)],
        [("x_forwarded_for", one), ("X-Forwarded-For", two)],
        [("X-Forwarded-For", one), ("x_forwarded_for", two), ("X-Forwarded-For", three)],
    ):
        stamped, own = stamped_and_own(site, call, lines, headers=headers, peer=PEER)
        assert stamped == own


@quick
@given(
    forwarded=st.lists(
        st.one_of(
            st.ip_addresses().map(str),
            st.text(st.characters(max_codepoint=255, exclude_characters="%"), max_size=80),
        ),
        max_size=3,
    ),
    peer=st.one_of(st.ip_addresses().map(str), st.just(""), st.just("unix:")),
    trusted=st.one_of(
        st.none(), st.just("*"), st.lists(st.ip_addresses().map(str)), st.just([PEER, ""])
    ),
)
@example(forwarded=["1.2.3.4"], peer="", trusted="some text")
def test_any_forwarded_header(
    site: Site, lines: list[Line], forwarded: list[str], peer: str, trusted: Any
) -> None:
    """Whatever strangers send: asok's own answer, else the peer's, else nothing; never text."""
    asok_trace.instrument(site.app)
    site.app.config["TRUSTED_PROXIES"] = trusted
    for client in sites.CLIENTS.values():
        headers = [("X-Forwarded-For", ", ".join(forwarded))] if forwarded else []
        stamped, own = stamped_and_own(site, client, lines, headers=headers, peer=peer)
        assert stamped == address(own, peer)
    assert all(piece.working for piece in errors.PIECES)


@pytest.mark.parametrize("zone", ["eth0", "<script>", "\r\nx"])
def test_a_zone_is_dropped(site: Site, call: Call, lines: list[Line], zone: str) -> None:
    """Anything may stand behind the % of a link-local address."""
    asok_trace.instrument(site.app)
    call(site.app, peer=f"fe80::1%{zone}")
    assert canonical(lines)["ip"] == "fe80::1"


@pytest.mark.parametrize("peer", ["", "unix:", "localhost", "1.2.3.4:5678", None])
def test_a_peer_without_an_address_has_no_ip(
    site: Site, call: Call, lines: list[Line], peer: Any
) -> None:
    """Unix sockets, test clients, gateways: the field is absent, and nothing else is missing."""
    asok_trace.instrument(site.app)
    assert call(site.app, peer=peer).ids == [canonical(lines)["request_id"]]
    assert "ip" not in canonical(lines)


def test_the_stamp_of_inject_alone_agrees(site: Site, call: Call, lines: list[Line]) -> None:
    """Without `instrument`, the same rule makes the ip."""
    site.app.config["TRUSTED_PROXIES"] = "*"
    own: list[str] = []
    site.views["plain"] = lambda request: own.append(request.ip) or say("inside") or "plain"
    for forwarded in NO_ADDRESSES + ADDRESSES:
        call(site.app, headers=[("X-Forwarded-For", forwarded)])
    assert [line["ip"] for line in lines] == [address(ip, PEER) for ip in own]


# --- bodies ---------------------------------------------------------------------------------


def test_a_body_that_asok_cannot_read(site: Site, call: Call, lines: list[Line]) -> None:
    """Asok lets the error out: so do we; the line says so, and the next request is fine."""
    asok_trace.instrument(site.app)
    with pytest.raises(UnicodeDecodeError):
        call(site.app, method="POST", headers=[FORM], body=b"a=\xff")
    line = canonical(lines)
    assert (line["level"], line["status"], line["error"]) == ("error", 500, "UnicodeDecodeError")
    assert ACTIVE.get() is None
    lines.clear()
    assert call(site.app).status == 200
    assert canonical(lines)["request_id"] != line["request_id"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff\xfe"),
        ("multipart/form-data", b"--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n\xff"),
        ("text/plain; charset=\xff", b"\x00" * 100),
        (FORM[1], b"&&==&%zz=%"),
    ],
)
def test_other_odd_bodies(
    make_site: Callable[[], Site],
    call: Call,
    repeatable: Callable[[], None],
    content_type: str,
    body: bytes,
) -> None:
    """The response is what it would be without us."""
    bare, watched = make_site(), make_site()
    asok_trace.instrument(watched.app)
    request: dict[str, Any] = {
        "method": "POST",
        "headers": [("Content-Type", content_type)],
        "body": body,
    }
    replies = []
    for site in (bare, watched):
        repeatable()
        replies.append(call(site.app, **request).without_id())
    assert replies[0] == replies[1]


def test_a_body_that_is_too_large(site: Site, call: Call, lines: list[Line]) -> None:
    """413, with our header and a line."""
    asok_trace.instrument(site.app)
    site.app.config["MAX_CONTENT_LENGTH"] = 10
    reply = call(site.app, method="POST", headers=[FORM], body=b"a=12345678901")
    assert (reply.status, reply.ids) == (413, [canonical(lines)["request_id"]])
    assert canonical(lines)["status"] == 413


def test_a_client_that_hangs_up_while_its_body_is_read(site: Site, lines: list[Line]) -> None:
    """WSGI: the server's input raises; it goes to the server, and the scope is closed."""

    class HungUp(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise ConnectionResetError

    asok_trace.instrument(site.app)
    environ = sites.environ(method="POST", headers=[FORM], body=b"a=1")
    environ["wsgi.input"] = HungUp()
    with pytest.raises(ConnectionResetError):
        site.app(environ, Started())
    assert canonical(lines)["error"] == "ConnectionResetError"
    assert ACTIVE.get() is None


# --- a real server --------------------------------------------------------------------------


@pytest.fixture
def port(site: Site) -> Iterator[int]:
    """The port of a waitress that serves the instrumented site with four threads."""
    asok_trace.instrument(site.app)
    with sites.waitress_serving(site.app) as port:
        yield port


def raw_exchange(port: int, request: bytes) -> bytes:
    """What the server answers to these bytes."""
    with sites.connect(port) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_escapes_in_a_url_arrive_and_stay_escaped(port: int, lines: list[Line]) -> None:
    """Real bytes through a real server: ``%0d%0a`` is decoded by it, and escaped in the line."""
    answer = raw_exchange(
        port,
        b"GET /a%0d%0aSet-Cookie:%20x=1%1b%5b31m%ff%e2%80%ae HTTP/1.0\r\n"
        b"X-Request-ID: one\r\nX-Request-ID: two\r\n\r\n",
    )
    line = canonical(lines)
    assert line["path"] == r"/a\r\nSet-Cookie: x=1\x1b[31m\xff\u202e"
    assert answer.lower().count(b"x-request-id: ") == 1
    assert f"X-Request-ID: {line['request_id']}\r\n".lower().encode() in answer.lower()

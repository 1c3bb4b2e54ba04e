"""The server's own lines about a request carry its id: as far as it logs them through logging,
where the request was served. `servers.SERVERS` says for each whether, and why not.

needs: asok, flask, flask_login, quart, quart_auth
"""

import socket
from collections.abc import Callable

import pytest

from tests.contract.browsers import ANSWER_SECONDS, Reply
from tests.contract.kinds import Kind
from tests.contract.lines import Line, canonical, of_logger, said_by_views, text
from tests.contract.parameters import every_kind, named, over_sockets, where
from tests.contract.servers import Server
from tests.contract.site import Site

STAMP = {"request_id", "ip", "user", "path"}
SERVER_LOGGERS = ("gunicorn", "hypercorn", "uvicorn", "waitress", "wsgiref")
PATHS = ["/user/7", "/stream", "/css/site.css", "/nowhere", "/boom"]


@where(lambda server: server.access.carries)
@pytest.mark.parametrize("path", PATHS)
def test_the_access_line_carries_the_request(site: Site, path: str) -> None:
    """One line, of the server's access logger, with the id, ip and path of the request."""
    reply, lines = site.exchange("GET", path)
    (line,) = of_logger(lines, str(site.server.access.logger))
    assert line["request_id"] == reply.id
    assert (line["path"], line["ip"]) == (path, site.server.ip)
    assert path in text(line)


@where(lambda server: server.access.carries)
def test_the_access_line_knows_the_user(site: Site) -> None:
    """Who was logged in is on it, and nobody is on that of the next request."""
    browser = site.browser()
    site.log_in(browser, 5)
    _, lines = site.exchange("GET", "/whoami", browser=browser)
    (line,) = of_logger(lines, str(site.server.access.logger))
    assert line["user"] == "5"
    _, lines = site.exchange("GET", "/whoami")
    (line,) = of_logger(lines, str(site.server.access.logger))
    assert line["user"] is None


@where(lambda server: not server.access.carries)
def test_what_servers_without_it_cannot_do(site: Site) -> None:
    """No access line through logging, or one that is logged where the request is not known: it
    has no stamp rather than a wrong one. Holds the table to the truth."""
    access = site.server.access
    assert access.reason
    mark = site.log.mark()
    for path in PATHS:
        site.exchange("GET", path)
    lines = site.log.since(mark)
    assert len(canonical(lines)) == len(PATHS)
    servers = [line for line in lines if str(line.get("name")).startswith(SERVER_LOGGERS)]
    assert {line["name"] for line in servers} == ({access.logger} - {None})
    assert not any(STAMP & line.keys() for line in servers)


@named("hypercorn-wsgi", "hypercorn-asgi")
def test_hypercorns_format_knows_the_id(site: Site) -> None:
    """``%({x-request-id}o)s`` in its access log's format prints it, in both modes."""
    reply, lines = site.exchange("GET", "/user/7")
    (line,) = of_logger(lines, "hypercorn.access")
    assert text(line).endswith(f" 200 {reply.id}")


def escaping(served: Callable[[Server], bool]) -> pytest.MarkDecorator:
    """Run a test with every request of which an exception reaches the server."""
    return every_kind(lambda framework: framework.escapes, served)


@escaping(lambda server: True)
def test_the_answer_to_an_escaped_exception(site: Site, kind: Kind) -> None:
    """Where the application lets an exception out, the server answers by itself, without a
    header, or breaks off what has the header already. The canonical line says what the client
    got and what escaped, and all lines have one id."""
    reply, lines = site.exchange(*kind.asked, **kind.request)
    assert (reply.status, reply.whole) == (kind.status, not kind.truncated)
    (last,) = canonical(lines)
    assert reply.ids == ([last["request_id"]] if kind.truncated else [])
    assert (last["status"], last["error"]) == (kind.status, kind.error)
    assert (last["level"], last.get("route")) == ("error", kind.route)
    said = said_by_views(lines)
    assert [text(line) for line in said if line["by"] == "logging"] == list(kind.says)
    assert {line["request_id"] for line in [*said, last]} == {last["request_id"]}


@escaping(lambda server: server.report.logger is not None)
def test_the_report_of_an_escaped_exception(site: Site, kind: Kind) -> None:
    """The server's report carries the id of the request."""
    _, lines = site.exchange(*kind.asked, **kind.request)
    (last,) = canonical(lines)
    (report,) = [
        line for line in of_logger(lines, str(site.server.report.logger)) if "exc_info" in line
    ]
    assert str(kind.error) in report["exc_info"]
    if site.server.report.carries:
        assert report["request_id"] == last["request_id"]
        assert report["path"] == kind.path
    else:
        assert site.server.report.reason
        assert not STAMP & report.keys()


@escaping(lambda server: server.report.carries and server.access.carries)
def test_the_access_line_of_an_escaped_exception(site: Site, kind: Kind) -> None:
    """The server's answer to it has its line too, with the id of the request."""
    _, lines = site.exchange(*kind.asked, **kind.request)
    (last,) = canonical(lines)
    (line,) = of_logger(lines, str(site.server.access.logger))
    assert line["request_id"] == last["request_id"]


NONSENSE = b"nonsense\r\n\r\n"
GOOD = b"GET /css/site.css HTTP/1.1\r\nHost: a\r\n\r\n"
REFUSED = b"GET /bad HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"
# More than uvicorn reads ahead: it stops reading, and goes on in the context of the request.
LARGE = b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000


@over_sockets
def test_a_line_that_is_no_request(site: Site) -> None:
    """A server that cannot make sense of what it reads may say so; not with an id, above all
    not that of the request before it on the same thread or connection."""
    assert not stamped_after(site, GOOD, b"{ color: black }\n", NONSENSE)


@where(lambda server: server.keep_alive and not server.name.startswith("gunicorn"))
def test_a_line_that_is_no_request_after_a_large_body(site: Site) -> None:
    """Nor where the server read the body of the request before it piece by piece. (Gunicorn
    closes the connection of a body that the application did not read.)"""
    assert not stamped_after(site, LARGE, b"Request body too large", NONSENSE)


@where(lambda server: not server.in_process and server.name != "asok-dev")
def test_a_request_that_the_server_refuses(site: Site) -> None:
    """The application never sees it, so that its access line has no id. (`asok dev` refuses
    none.)"""
    assert not stamped_after(site, GOOD, b"{ color: black }\n", REFUSED)


def stamped_after(site: Site, good: bytes, answered: bytes, refused: bytes) -> list[Line]:
    """Send what is refused after a good request, on its connection if there is one, else on its
    thread; return the lines with a stamp."""
    for _ in range(8):  # on every thread of a pool
        site.exchange("GET", "/css/site.css")
    address = ("127.0.0.1", site.port)
    with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
        if site.server.keep_alive:
            mark = site.log.mark()
            connection.sendall(good)
            received = b""
            while answered not in received:
                piece = connection.recv(65536)
                assert piece, f"closed after {received!r}"
                received += piece
            site.settled(mark, [Reply(200, [], received)])
        mark = site.log.mark()
        connection.sendall(refused)
        answer = b""
        while piece := connection.recv(65536):  # until the server closes the connection
            answer += piece
    assert b" 200 " not in answer
    lines = site.log.since(mark)
    assert not canonical(lines)
    return [line for line in lines if STAMP & line.keys()]

"""Every line of a request carries its id, ip, user and path; no other line carries any.

needs: asok, flask, flask_login, quart, quart_auth
"""

from collections.abc import Sequence

import pytest

from tests.contract.kinds import Kind
from tests.contract.lines import Line, canonical, of_logger, said_by_views, saying, text
from tests.contract.parameters import every_kind, everywhere, over_sockets, where
from tests.contract.site import Site

STAMP = {"request_id", "ip", "user", "path"}


def of_application(site: Site, lines: Sequence[Line]) -> list[Line]:
    """The lines without those of the server, which has its own tests."""
    servers = {site.server.access.logger, site.server.report.logger}
    return [line for line in lines if line.get("name", "structlog") not in servers]


def users(lines: Sequence[Line], *texts: str) -> list[object]:
    """The user on each line of a view that says one of ``texts``; absent if it is not there."""
    return [line.get("user", "absent") for line in saying(said_by_views(lines), *texts)]


def the_canonical(lines: Sequence[Line]) -> Line:
    """The only canonical line."""
    (line,) = canonical(lines)
    return line


@every_kind()
def test_every_line_of_every_kind_of_request(site: Site, kind: Kind) -> None:
    """Whoever logs it (a page through structlog, a page through logging, asok, the canonical
    line) and whenever: one id, the response's, the path, the ip, and nobody as the user. A page
    logs exactly what it logs: no line is lost or doubled."""
    reply, lines = site.exchange(*kind.asked, **kind.request)
    lines = of_application(site, lines)
    (request_id,) = {line["request_id"] for line in lines}
    assert reply.ids == ([] if site.answers(kind).by_server else [request_id])
    assert {line["path"] for line in lines} == {kind.path}
    # Asok's own extra={"ip": ""} wins where there is no address: with its test client.
    assert {line.get("ip") or None for line in lines} == {site.server.ip}
    assert {line.get("user") for line in lines} == {None}

    said = said_by_views(lines)
    assert all("user" in line for line in said)  # nobody, not unknown
    for by in "structlog", "logging":
        assert [text(line) for line in said if line["by"] == by] == list(kind.says)


@where(lambda server: server.interface == "wsgi", of="asok")
def test_asoks_line_about_a_request_that_does_not_exist_yet(site: Site) -> None:
    """Under WSGI asok logs the method and path before it makes its Request: stamped as well."""
    reply, lines = site.exchange("GET", "/user/7")
    (line,) = [line for line in of_logger(lines, "asok.wsgi") if text(line).startswith("[GET] ")]
    assert line["request_id"] == reply.id
    assert line["path"] == "/user/7"
    assert line.get("ip") == site.server.ip


@where(of="asok")
@pytest.mark.parametrize(
    ("method", "headers", "body", "logger", "begins"),
    [
        ("GET", {"Cookie": "a@b=1"}, b"", "asok.request", "Failed to parse cookies"),
        ("POST", {}, b"[" * 101 + b"]" * 101, "asok.security", "Rejected deeply nested JSON"),
    ],
    ids=["cookies", "json"],
)
def test_warnings_while_asok_makes_its_request(
    site: Site, method: str, headers: dict[str, str], body: bytes, logger: str, begins: str
) -> None:
    """What `Request.__init__` logs is stamped, though there is no current request yet."""
    reply, lines = site.exchange(
        method, "/form", headers=headers, body=body, content_type="application/json"
    )
    (line,) = [line for line in of_logger(lines, logger) if text(line).startswith(begins)]
    assert line["request_id"] == reply.id
    assert line["path"] == "/form"
    assert line.get("ip") == site.server.ip


@everywhere
def test_the_user_follows_login_and_logout(site: Site) -> None:
    """Null before login, the primary key from the call of login on, null again from logout on;
    the canonical line says who it was at the end."""
    browser = site.browser()
    _, lines = site.log_in(browser, 3)
    assert users(lines, "before login") == [None, None]
    assert users(lines, "after login") == ["3", "3"]
    assert the_canonical(lines)["user"] == "3"

    _, lines = site.exchange("GET", "/whoami", browser=browser)
    assert users(lines, "whoami") == ["3", "3"]

    _, lines = site.exchange("GET", "/logout", browser=browser)
    assert users(lines, "before logout") == ["3", "3"]
    assert users(lines, "after logout") == [None, None]
    assert the_canonical(lines)["user"] is None

    _, lines = site.exchange("GET", "/whoami", browser=browser)
    assert users(lines, "whoami") == [None, None]


@everywhere
@pytest.mark.parametrize("path", ["/stream", "/first_thing", "/thread", "/boom"])
def test_the_user_is_on_every_line_of_a_page(site: Site, path: str) -> None:
    """In a streamed body, an async page, a thread with a copied context, after a fault."""
    browser = site.browser()
    site.log_in(browser, 4)
    _, lines = site.exchange("GET", path, browser=browser)
    said = said_by_views(lines)
    assert said
    assert {line["user"] for line in [*said, *canonical(lines)]} == {"4"}


@over_sockets
def test_one_request_after_the_other_on_one_connection(site: Site) -> None:
    """Two ids, and nothing of the first in the second: not its id, not its user. Servers that
    close the connection take the second on another one, in the same thread."""
    browser = site.http_browser()
    site.log_in(browser, 2)
    first, first_lines = site.exchange("GET", "/whoami", browser=browser)
    browser.forget()
    second, second_lines = site.exchange("GET", "/user/1", browser=browser)
    assert (first.connection == second.connection) == site.server.keep_alive
    assert first.id != second.id
    assert {line.get("request_id") for line in of_application(site, first_lines)} == {first.id}
    assert {line.get("request_id") for line in of_application(site, second_lines)} == {second.id}
    assert users(first_lines, "whoami") == ["2", "2"]
    assert users(second_lines, "user page") == [None, None]


@everywhere
def test_what_a_page_binds_stays_in_its_request(site: Site) -> None:
    """structlog's context variables, bound and never cleared, are on its own lines and do not
    reach the next requests on that thread or connection."""
    browser = site.browser()
    _, lines = site.exchange("GET", "/binds", browser=browser)
    (line,) = [line for line in saying(lines, "binds") if line["by"] == "structlog"]
    assert line["left"] == "behind"
    for _ in range(8):  # as often as it takes to meet the same thread of a pool again
        _, lines = site.exchange("GET", "/user/7", browser=browser)
        assert not any("left" in line for line in lines)


@everywhere
def test_lines_of_no_request(site: Site) -> None:
    """While the application starts, and in a thread that no request has started: no stamp."""
    starting = saying(said_by_views(site.log.since(0)), "starting")
    mark = site.log.mark()
    site.exchange("GET", "/tick")
    lines = site.log.until(mark, lambda lines: len(saying(lines, "tick")) == 2)
    ticks = saying(lines, "tick")
    assert len(starting) >= len(ticks) == 2
    for line in [*starting, *ticks]:
        assert not STAMP & line.keys()


@where(of="asok")
def test_lines_of_a_page_that_is_generated(site: Site) -> None:
    """A static page is rendered for a Request that asok makes up, which has no address, and under
    ASGI on a thread of its own; its lines have the id, the ip and the path of the request that
    asked for it."""
    reply, lines = site.exchange("GET", f"/generated/{site.server.name}")
    said = saying(said_by_views(lines), "generated")
    assert len(said) == 2
    assert {line["request_id"] for line in said} == {reply.id}
    assert {line["path"] for line in said} == {f"/generated/{site.server.name}"}
    assert {line.get("ip") for line in said} == {site.server.ip}

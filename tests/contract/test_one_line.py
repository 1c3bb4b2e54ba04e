"""The documented one line, ``structlog.configure(processors=[asok_trace.inject])``, and nothing
else: no instrument(), no other processor, over a real socket with one thread.

needs: asok, flask, flask_login, quart, quart_auth
"""

from collections.abc import Iterator, Sequence

import pytest

from tests.contract.browsers import Browser
from tests.contract.lines import Line, saying
from tests.contract.servers import FRAMEWORKS
from tests.contract.site import GetSite, Site

STAMP = {"request_id", "ip", "user", "path"}


@pytest.fixture(
    params=[
        pytest.param((framework, server), id=f"{framework.name}-{server.name}")
        for framework in FRAMEWORKS
        for server in framework.one_line
    ]
)
def site(request: pytest.FixtureRequest, sites: GetSite) -> Iterator[Site]:
    """The application with that one line."""
    site = sites(*request.param)
    yield site
    site.close_browsers()


@pytest.fixture
def browser(site: Site) -> Browser:
    """A client that is logged in."""
    browser = site.browser()
    site.log_in(browser, 2)
    return browser


def logged(site: Site, browser: Browser, path: str, *events: str) -> Sequence[Line]:
    """What a page printed that logs these ``events``, one line each."""
    mark = site.log.mark()
    assert browser.request("GET", path).status == 200
    lines = site.log.until(mark, lambda lines: len(lines) >= len(events))
    assert [line["event"] for line in lines] == list(events)
    return lines


def test_a_line_is_rendered_and_stamped(site: Site, browser: Browser) -> None:
    """One line of JSON for one call, with the id, the ip, the user, the path, what was logged,
    its level and the time."""
    (line,) = logged(site, browser, "/whoami?token=a", "whoami")
    assert line.keys() >= {*STAMP, "by", "token", "event", "level", "timestamp"}
    assert len(line["request_id"]) == 32
    assert (line["ip"], line["user"], line["path"]) == ("127.0.0.1", "2", "/whoami")
    assert (line["token"], line["level"]) == ("a", "info")


def test_an_exception_is_printed(site: Site, browser: Browser) -> None:
    """``log.exception`` prints the traceback, in its one line."""
    (line,) = logged(site, browser, "/logged_error", "caught")
    assert line["level"] == "error"
    assert "Traceback (most recent call last)" in line["exception"]
    assert "LookupError: told by the view" in line["exception"]
    assert line.keys() >= STAMP


def test_two_requests_on_one_thread(site: Site, browser: Browser) -> None:
    """Two ids, and the user of the first is not that of the second."""
    (first,) = logged(site, browser, "/whoami", "whoami")
    (second,) = logged(site, site.browser(), "/whoami", "whoami")
    assert first["request_id"] != second["request_id"]
    assert (first["user"], second["user"]) == ("2", None)


def test_an_id_from_outside_is_taken(site: Site) -> None:
    """As with instrument(), where it may be; a bad one is not."""
    mark = site.log.mark()
    for given in "order-66", "<script>":
        site.browser().request("GET", "/whoami", headers={"X-Request-ID": given})
    lines = site.log.until(mark, lambda lines: len(saying(lines, "whoami")) == 2)
    first, second = saying(lines, "whoami")
    assert first["request_id"] == "order-66"
    assert len(second["request_id"]) == 32


def test_a_thread_with_a_copied_context(site: Site, browser: Browser) -> None:
    """It sees the request, and the same id."""
    before, inside = logged(site, browser, "/thread", "before thread", "in thread")
    assert before["request_id"] == inside["request_id"]
    assert inside["user"] == "2"


def test_an_async_page_that_logs_first(site: Site, browser: Browser) -> None:
    """Asok runs it in an event loop with a context of its own; the first to ask for the id may
    be there. One id in all its lines."""
    first, second = logged(site, browser, "/first_thing", "first", "second")
    assert first["request_id"] == second["request_id"]
    assert first["user"] == second["user"] == "2"

"""One canonical line per request: what came of it, where it went, how long it took.

needs: asok, flask, flask_login, quart, quart_auth
"""

from tests.contract.kinds import Kind
from tests.contract.lines import canonical
from tests.contract.parameters import every_kind, everywhere
from tests.contract.site import Site


@every_kind()
def test_once_per_request(site: Site, kind: Kind) -> None:
    """With the method that was asked, the status that the application gave at last, the route
    (of the page, also where an error page was shown), and a duration. From 500 on it is an
    error, and says which exception the framework made a page of."""
    _, lines = site.exchange(*kind.asked, **kind.request)
    (line,) = canonical(lines)
    answer = site.answers(kind)
    status = kind.status if answer.by_server else answer.status
    assert (line["method"], line["path"]) == (kind.method, kind.path)
    assert line["status"] == status
    assert line.get("route") == kind.route
    assert line["duration_ms"] > 0
    assert line["level"] == ("error" if answer.error or status >= 500 else "info")
    assert line.get("ip") == site.server.ip
    assert line.get("error") == answer.error


@everywhere
def test_none_is_late(site: Site) -> None:
    """As many as requests, when each has been answered: none comes twice or afterwards."""
    mark = site.log.mark()
    browser = site.browser()
    paths = ["/", "/stream", "/thread", "/nowhere"] * 5
    replies = [browser.request("GET", path) for path in paths]
    lines = canonical(site.settled(mark, replies))
    assert [(line["path"], line["request_id"]) for line in lines] == [
        (path, reply.id) for path, reply in zip(paths, replies, strict=True)
    ]

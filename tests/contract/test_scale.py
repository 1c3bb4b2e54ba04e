"""Hundreds of requests at once: every line belongs to whom it says.

needs: asok, flask, flask_login, quart, quart_auth
"""

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.contract.browsers import Browser, Reply
from tests.contract.lines import canonical, of_logger, said_by_views, text
from tests.contract.parameters import named
from tests.contract.site import Site

CLIENTS = 8
REQUESTS_EACH = 50
USERS: Sequence[int | None] = (1, 2, 3, 4, None, None, 5, 1)
PAGES = {
    "/whoami": ["whoami"],
    "/first_thing": ["first", "second"],
    "/thread": ["before thread", "in thread"],
    "/stream": ["stream", "part", "part", "part"],
}

# Pages that a server cannot run several of at once in one thread.
ALONE = {
    "gunicorn-gevent": (
        "/first_thing",
        "greenlets share a thread, in which there is one running event loop at most: Flask cannot "
        "begin an async view while another one waits",
    )
}


class Done(NamedTuple):
    """One request and its response."""

    token: str
    path: str
    user: int | None
    reply: Reply


def drive(browser: Browser, client: int, pages: Sequence[str]) -> list[Done]:
    """Ask for pages in an order of its own, each with a token that the page logs."""
    order = random.Random(client)
    done = []
    for number in range(REQUESTS_EACH):
        path, token = order.choice(pages), f"{client}-{number}"
        reply = browser.request("GET", f"{path}?token={token}")
        done.append(Done(token, path, USERS[client], reply))
    return done


@named("gunicorn-gthread", "gunicorn-gevent", "uvicorn")
def test_interleaved_requests(site: Site) -> None:
    """400 requests of eight clients at once, five of them logged in as somebody: the lines of a
    token carry the id of the response that it got, and its user; none is lost or doubled."""
    browsers = [site.browser() for _ in range(CLIENTS)]
    for browser, user in zip(browsers, USERS, strict=True):
        if user is not None:
            site.log_in(browser, user)
    pages = [page for page in PAGES if page not in ALONE.get(site.server.name, ())]
    mark = site.log.mark()
    with ThreadPoolExecutor(CLIENTS) as pool:
        each = pool.map(drive, browsers, range(CLIENTS), [pages] * CLIENTS)
        done = [one for some in each for one in some]
    lines = site.settled(mark, [one.reply for one in done])

    assert all(one.reply.status == 200 for one in done)
    ids = {one.token: one.reply.id for one in done}
    assert len(set(ids.values())) == len(done) == CLIENTS * REQUESTS_EACH

    users = {one.token: None if one.user is None else str(one.user) for one in done}
    paths = {one.token: one.path for one in done}
    said = said_by_views(lines)
    for line in said:
        assert line["request_id"] == ids[line["token"]]
        assert line["user"] == users[line["token"]]
        assert line["path"] == paths[line["token"]]
        assert line["ip"] == site.server.ip
    assert Counter((line["token"], line["by"], text(line)) for line in said) == Counter(
        (one.token, by, event)
        for one in done
        for by in ("structlog", "logging")
        for event in PAGES[one.path]
    )

    tokens = {request_id: token for token, request_id in ids.items()}
    for these in canonical(lines), of_logger(lines, str(site.server.access.logger)):
        assert Counter(line["request_id"] for line in these) == Counter(ids.values())
        for line in these:
            assert line["user"] == users[tokens[line["request_id"]]]
            assert line["path"] == paths[tokens[line["request_id"]]]

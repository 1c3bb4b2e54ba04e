"""Under gunicorn's gevent worker, where requests are greenlets of one thread, every line and every
response is what it is elsewhere; and what a page spawns works for its request.

needs: asok, gevent
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract import test_lines, test_response_header
from tests.contract.kinds import ASOK_KINDS, Kind
from tests.contract.lines import said_by_views, text
from tests.contract.servers import FRAMEWORKS, GEVENT, Framework
from tests.contract.site import APPS, Site

ASOK = FRAMEWORKS[0]
KINDS = [kind for kind in ASOK_KINDS if kind.name != "async page"]

under_gevent = pytest.mark.parametrize("site", [(ASOK, GEVENT)], ids=[GEVENT.name], indirect=True)


@under_gevent
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name.replace(" ", "_") for kind in KINDS])
def test_every_kind_of_request(site: Site, kind: Kind) -> None:
    """Its lines carry its id, which is the response's, and none is lost or doubled."""
    test_lines.test_every_line_of_every_kind_of_request(site, kind)
    test_response_header.test_every_kind_of_response_has_one_new_id(site, kind)


@under_gevent
def test_one_request_after_the_other(site: Site) -> None:
    """On one connection, one logged in and one not: nothing of the first is in the second."""
    test_lines.test_the_user_follows_login_and_logout(site)
    test_lines.test_one_request_after_the_other_on_one_connection(site)
    test_lines.test_what_a_page_binds_stays_in_its_request(site)
    test_lines.test_lines_of_no_request(site)


WSGI = """
import os
import contract_logs

contract_logs.configure()

from asok import Asok
import asok_trace

app = Asok(os.path.dirname(os.path.abspath(__file__)))
asok_trace.instrument(app, threads="carry")
"""

# Both requests are in the middle of it at once, at each step.
MEETING = """
import threading

together = threading.Barrier(2)
"""

PAGE = """
import threading
from concurrent.futures import ThreadPoolExecutor

import gevent
from contract_logs import say
from gevent.pool import Group, Pool
from meeting import together


def render(request):
    token = request.args.get("token")

    def work(event):
        together.wait(20)
        say(event, token=token)
        gevent.sleep(0)

    say("begun", token=token)
    gevent.spawn(work, "spawn").get()
    gevent.spawn_later(0, work, "spawn_later").get()
    Pool(1).map(work, ["pool"])
    Group().spawn(work, "group").get()
    thread = threading.Thread(target=work, args=("thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work, "job").result()
    work("itself")
    return "<p>done</p>"
"""

EVENTS = ["begun", "spawn", "spawn_later", "pool", "group", "thread", "job", "itself"]


@pytest.fixture
def spawning(tmp_path: Path) -> Iterator[Site]:
    """A site with one page, which spawns everything that there is to spawn."""
    app = tmp_path / "spawning_app"
    (app / "src" / "pages" / "slow").mkdir(parents=True)
    (app / "wsgi.py").write_text(WSGI)
    (app / "meeting.py").write_text(MEETING)
    (app / "src" / "pages" / "slow" / "page.py").write_text(PAGE)
    shutil.copytree(APPS / "common", app, dirs_exist_ok=True)
    site = Site(Framework(str(tmp_path / "spawning"), (), (), (), ()), GEVENT, tmp_path / "site")
    (tmp_path / "site").mkdir()
    try:
        site.start()
        yield site
    finally:
        site.stop()


def test_two_requests_that_take_turns(spawning: Site) -> None:
    """Each line, of the page and of every greenlet, thread and job that it spawns, carries the id
    of its own request; none is missing or doubled."""
    tokens = ["a", "b"]
    browsers = [spawning.browser() for _ in tokens]
    mark = spawning.log.mark()
    with ThreadPoolExecutor(2) as clients:
        replies = list(
            clients.map(
                lambda browser, token: browser.request("GET", f"/slow?token={token}"),
                browsers,
                tokens,
            )
        )
    lines = spawning.settled(mark, replies)
    assert [reply.status for reply in replies] == [200, 200], spawning.tail()
    ids = {token: reply.id for token, reply in zip(tokens, replies, strict=True)}
    assert len(set(ids.values())) == 2
    said = said_by_views(lines)
    assert [line["token"] for line in said if line["request_id"] != ids[line["token"]]] == []
    assert {line["path"] for line in said} == {"/slow"}
    assert Counter((line["token"], line["by"], text(line)) for line in said) == Counter(
        (token, by, event)
        for token in tokens
        for by in ("structlog", "logging")
        for event in EVENTS
    )

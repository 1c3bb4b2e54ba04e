"""Where ``current_request`` works: the table of Asok's documentation, row by row.

Asok does not keep what it says of WebSocket handlers; `instrument` does. Wherever it works, a line
logged there has the id of its request. needs: asok
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import structlog
from asok import current_request
from asok.background import background
from asok.component import COMPONENTS_REGISTRY, Component, exposed
from asok.scheduler import schedule
from asok.testing import TestClient

import asok_trace
from tests.gateway import sites
from tests.gateway.sites import HEADER, Line, Site, named
from tests.gateway.sockets import DEADLINE, Sockets, ask, join, operate, until

OUTSIDE = "outside of request context"

_PAGE = """\
from asok import current_request


def render(request):
    return current_request.environ["asok.app"].views["render"](request)


def post(request):
    return current_request.environ["asok.app"].views["post"](request)
"""


@pytest.fixture
def lines() -> list[Line]:
    """Every line from now on, as `inject` has stamped it."""
    captured: list[Line] = []

    def capture(_logger: Any, _name: str, event: Any) -> Any:
        captured.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[asok_trace.inject, capture], cache_logger_on_first_use=False)
    return captured


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An instrumented site with one page, ``/desk``."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "src" / "pages" / "desk"
    folder.mkdir(parents=True)
    (folder / "page.py").write_text(_PAGE, encoding="utf-8")
    site = Site(tmp_path)
    with asok_trace.instrument(site.app):
        yield site
    for handler in list(logging.getLogger("asok").handlers):
        logging.getLogger("asok").removeHandler(handler)


@pytest.fixture
def sockets(shop: Site) -> Iterator[Sockets]:
    """The site's instrumented WebSocket server."""
    made = Sockets(shop.app)
    with asok_trace.instrument(made.server):
        yield made
    made.stop()


def note(place: str) -> str:
    """Use the current request in ``place``, and log."""
    structlog.get_logger().info(place, known=bool(current_request), at=current_request.path)
    return place


def by_test_client(shop: Site, method: str) -> str | None:
    """Ask for the page with Asok's own test client; the id in the answer."""
    response = getattr(TestClient(shop.app), method.lower())("/desk")
    assert response.status_code == 200
    found: str | None = response.headers.get(HEADER)
    return found


def by_server(shop: Site, method: str) -> str | None:
    """Ask for it over a real server."""
    with sites.waitress_serving(shop.app) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        try:
            connection.request(method, "/desk")
            response = connection.getresponse()
            response.read()
            assert response.status == 200
            return response.getheader(HEADER)
        finally:
            connection.close()


def by_asgi(shop: Site, method: str) -> str | None:
    """Ask for it over ASGI."""
    reply = sites.asgi(shop.app, "/desk", method=method)
    assert reply.status == 200
    [request_id] = reply.ids
    return request_id


clients = pytest.mark.parametrize("client", [by_test_client, by_server, by_asgi])
Client = Callable[[Site, str], str | None]


def assert_works(line: Line, path: str = "/desk") -> None:
    """``bool(current_request)`` said yes, and it was the right one."""
    assert (line["known"], line["at"], line["path"]) == (True, path, path)


# --- where it works --------------------------------------------------------------------------


@clients
def test_render_of_a_page(shop: Site, lines: list[Line], client: Client) -> None:
    """``render()``: available."""
    shop.views["render"] = lambda request: note("render()")
    request_id = client(shop, "GET")
    assert_works(named(lines, "render()"))
    assert named(lines, "render()")["request_id"] == request_id


@clients
def test_post_of_a_page(shop: Site, lines: list[Line], client: Client) -> None:
    """``post()``: available."""
    shop.views["post"] = lambda request: note("post()")
    request_id = client(shop, "POST")
    assert_works(named(lines, "post()"))
    assert named(lines, "post()")["request_id"] == request_id


@pytest.fixture
def counter() -> Iterator[type[Component]]:
    """A live component."""

    class SeedCounter(Component):
        count = 0

        @exposed
        def more(self) -> None:
            note("@exposed")
            self.count += 1

        def render(self) -> str:
            note("Component.render()")
            return "<b>{{ count }}</b>"

    yield SeedCounter
    del COMPONENTS_REGISTRY["SeedCounter"]


@clients
def test_render_of_a_component_in_a_page(
    shop: Site, lines: list[Line], counter: Any, client: Client
) -> None:
    """``Component.render()`` while the page is made: available, and the page's."""
    shop.views["render"] = lambda request: str(counter())
    request_id = client(shop, "GET")
    assert_works(named(lines, "Component.render()"))
    assert named(lines, "Component.render()")["request_id"] == request_id


def test_a_live_component(sockets: Sockets, lines: list[Line], counter: Any) -> None:
    """``@exposed`` methods, and ``Component.render()`` after them, over a real WebSocket:
    available; both lines are the message's, each message has an id of its own."""
    with sockets.connect("/asok/live", X_Request_ID="conn-1") as one:
        join(sockets, one, counter)
        for expected in ("<b>1</b>", "<b>2</b>"):
            assert expected in operate(one, "call", method="more")["html"]
    for line in lines:
        assert_works(line, "/asok/live")
        assert line["connection_id"] == "conn-1"
    assert [line["event"] for line in lines] == ["@exposed", "Component.render()"] * 2
    ids = [line["request_id"] for line in lines]
    assert ids[0] == ids[1] != ids[2] == ids[3]


@clients
@pytest.mark.parametrize("ended", [False, True], ids=["meanwhile", "afterwards"])
def test_background(shop: Site, lines: list[Line], client: Client, ended: bool) -> None:
    """``background()`` tasks: available, also when the response has long been sent."""
    goes_on, jobs = threading.Event(), []

    def task() -> None:
        goes_on.wait(DEADLINE)
        note("background()")

    def page(request: Any) -> str:
        jobs.append(background(task))
        if not ended:
            goes_on.set()
            jobs[0].result(DEADLINE)
        return "page"

    shop.views["render"] = page
    request_id = client(shop, "GET")
    goes_on.set()
    jobs[0].result(DEADLINE)
    assert_works(named(lines, "background()"))
    assert named(lines, "background()")["request_id"] == request_id
    assert named(lines, "background()")["task"] == "task"


def test_websocket_handlers(sockets: Sockets, lines: list[Line]) -> None:
    """``@ws.on()``, ``on_connect`` and ``on_disconnect``: available, because we provide it; and in
    a ``background()`` task of theirs. Each has the request id of its event."""
    seen: dict[str, Any] = {}
    goes_on, jobs = threading.Event(), []

    def event(place: str) -> None:
        note(place)
        scope = asok_trace.current()
        seen[place] = None if scope is None else scope.request_id

    def task() -> None:
        goes_on.wait(DEADLINE)
        note("background()")

    @sockets.server.on("/room/[name]")
    def heard(connection: Any, text: str) -> None:
        event("@ws.on()")
        jobs.append(background(task))
        connection.send(text)

    sockets.server.on_connect("/room/[name]")(lambda connection: event("on_connect"))
    sockets.server.on_disconnect("/room/[name]")(lambda connection: event("on_disconnect"))
    with sockets.connect("/room/blue", X_Request_ID="conn-1") as one:
        ask(one)
    goes_on.set()
    jobs[0].result(DEADLINE)
    for line in lines:
        assert_works(line, "/room/blue")
        assert line["connection_id"] == "conn-1"
    assert {line["event"]: line["request_id"] for line in lines} == {
        **seen,
        "background()": seen["@ws.on()"],
    }
    assert len(set(seen.values())) == 3


def test_websocket_handlers_of_a_server_that_is_not_instrumented(
    shop: Site, lines: list[Line]
) -> None:
    """What Asok alone does: RuntimeError. Should this fail one day, ours is no longer needed."""
    raised: list[BaseException] = []
    bare = Sockets(shop.app)

    @bare.server.on("/bare")
    def heard(connection: Any, text: str) -> None:
        try:
            note("@ws.on()")
        except RuntimeError as error:
            raised.append(error)
        connection.send(str(bool(current_request)))

    try:
        with bare.connect("/bare") as one:
            assert ask(one) == "False"
    finally:
        bare.stop()
    assert OUTSIDE in str(raised[0])


# --- where it does not -------------------------------------------------------------------------


def test_module_level(
    shop: Site, lines: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RuntimeError, and a line logged there has no request id."""
    (tmp_path / "asok_seed_module.py").write_text(
        "import structlog\n"
        "from asok import current_request\n"
        "known = bool(current_request)\n"
        "structlog.get_logger().info('module level', known=known)\n"
        "current_request.path\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match=OUTSIDE):
        __import__("asok_seed_module")
    line = named(lines, "module level")
    assert not line["known"]
    assert "request_id" not in line


@clients
def test_schedule(shop: Site, lines: list[Line], client: Client) -> None:
    """``schedule()`` jobs: RuntimeError, also for one that a page has started; each run has an id
    of its own, and nothing of the page's."""
    raised: list[BaseException] = []
    started: list[Any] = []

    def job() -> None:
        structlog.get_logger().info("schedule()", known=bool(current_request))
        try:
            note("inside")
        except RuntimeError as error:
            raised.append(error)

    def page(request: Any) -> str:
        started.append(schedule(0.01, job))
        until(lambda: raised)
        return "page"

    shop.views["render"] = page
    of_page = client(shop, "GET")
    started[0].cancel()
    started[0]._thread.join(DEADLINE)
    assert OUTSIDE in str(raised[0])
    of_job = [line for line in lines if line["event"] == "schedule()"]
    assert {line["known"] for line in of_job} == {False}
    assert [line["run"] for line in of_job] == [str(run + 1) for run in range(len(of_job))]
    assert {line["task"] for line in of_job} == {"job"}
    assert len({of_page, *(line["request_id"] for line in of_job)}) == 1 + len(of_job)
    assert not any({"path", "ip", "user"} & line.keys() for line in of_job)


def test_bool_tells_outside(shop: Site) -> None:
    """It does not raise, where everything else does."""
    assert not current_request
    with pytest.raises(RuntimeError, match=OUTSIDE):
        hasattr(current_request, "path")

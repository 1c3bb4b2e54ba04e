"""What Flask's documentation says of contexts holds with and without `instrument`, and a line
logged there is stamped; where there is no request, it says nothing and nobody complains.
needs: flask"""

import contextvars
import threading
from typing import Any

import flask
import pytest

from asok_trace import current
from tests.frameworks.flasks import MERGED, Site, in_thread
from tests.frameworks.said import Hook, Line, bare, named, say, stamped

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def site(hook: Hook, lines: list[Line]) -> Site:
    return Site(hook)


# --- asking what there is -------------------------------------------------------------------


def test_has_request_context(site: Site, lines: list[Line]) -> None:
    """True in a view and nowhere else; asking outside is no fault."""

    @site.page
    def page() -> None:
        assert flask.has_request_context()
        assert flask.has_app_context()
        say("inside")

    site.get("/page")
    assert not flask.has_request_context()
    assert not flask.has_app_context()
    say("outside")
    stamped(lines, "/page", "inside")
    bare(lines, "outside")


def test_has_app_context(site: Site, lines: list[Line]) -> None:
    """An application's context alone is no request."""
    with site.app.app_context():
        assert flask.has_app_context()
        assert not flask.has_request_context()
        assert flask.current_app.name == "site"
        say("application")
    bare(lines, "application")


def test_the_proxies(site: Site, lines: list[Line]) -> None:
    """``request``, ``session``, ``g`` and ``current_app`` are what they were."""

    @site.app.before_request
    def before() -> None:
        flask.g.seen = "before"

    @site.page
    def page() -> str:
        assert flask.request.path == "/page"
        assert flask.g.seen == "before"
        assert flask.current_app._get_current_object() is site.app
        flask.session["count"] = flask.session.get("count", 0) + 1
        say("inside")
        return str(flask.session["count"])

    with site.app.test_client() as client:
        assert [client.get("/page").text for _ in range(2)] == ["1", "2"]
    assert [line["path"] for line in lines if line["event"] == "inside"] == ["/page"] * 2


def test_after_this_request(site: Site, lines: list[Line]) -> None:
    """The function runs, may change the response, and its line is stamped."""

    @site.page
    def page() -> None:
        @flask.after_this_request
        def later(response: Any) -> Any:
            say("later")
            response.headers["X-Later"] = "yes"
            return response

    assert site.get("/page").headers["X-Later"] == "yes"
    stamped(lines, "/page", "later")


# --- carrying the request -------------------------------------------------------------------


def test_copy_current_request_context(site: Site, lines: list[Line]) -> None:
    """In a thread of its own, the request is there and the line is of it."""

    @site.page
    def page() -> None:
        @flask.copy_current_request_context
        def work() -> None:
            assert flask.request.path == "/page"
            say("thread")

        say("view")
        in_thread(work)
        assert flask.request.path == "/page"
        say("view again")

    site.get("/page")
    stamped(lines, "/page", "view", "thread", "view again")


def test_copy_current_request_context_after_the_response(site: Site, lines: list[Line]) -> None:
    """Work that goes on when the client has its response still says whose it is."""
    go, works = threading.Event(), []

    @site.page
    def page() -> None:
        say("view")

        @flask.copy_current_request_context
        def work() -> None:
            assert go.wait(10)
            say("late")

        works.append(threading.Thread(target=work))
        works[0].start()

    site.get("/page")
    go.set()
    works[0].join()
    stamped(lines, "/page", "view", "late")


def test_a_plain_thread(site: Site, lines: list[Line]) -> None:
    """A thread without any context is outside; nothing is guessed."""

    @site.page
    def page() -> None:
        in_thread(lambda: say("thread"))

    site.get("/page")
    bare(lines, "thread")


def test_copy_context(site: Site, lines: list[Line]) -> None:
    """The standard library's copy of the context carries the request."""

    @site.page
    def page() -> None:
        say("view")
        carried = contextvars.copy_context()
        in_thread(lambda: carried.run(say, "thread"))

    site.get("/page")
    stamped(lines, "/page", "view", "thread")


def test_the_request_context_pushed_by_hand(site: Site, lines: list[Line]) -> None:
    """``copy()``, ``push()`` and ``pop()`` in a thread do what they are for."""

    @site.page
    def page() -> None:
        copied = (flask.globals.app_ctx if MERGED else flask.globals.request_ctx).copy()

        def work() -> None:
            copied.push()
            say("pushed")
            copied.pop()
            assert not flask.has_request_context()
            say("popped")

        in_thread(work)

    site.get("/page")
    stamped(lines, "/page", "pushed")
    bare(lines, "popped")


def test_the_application_context_in_a_thread(site: Site, lines: list[Line]) -> None:
    """An application's context that a view hands to a thread brings no request with it."""

    @site.page
    def page() -> None:
        app = flask.current_app._get_current_object()

        def work() -> None:
            context = app.app_context()
            context.push()
            assert flask.current_app.name == "site"
            say("pushed")
            context.pop()

        in_thread(work)

    site.get("/page")
    bare(lines, "pushed")


def test_an_application_context_inside_a_request(site: Site, lines: list[Line]) -> None:
    """Pushed within a view it changes ``g``, not whose request it is."""

    @site.page
    def page() -> None:
        flask.g.name = "outer"
        say("before")
        with flask.current_app.app_context():
            assert "name" not in flask.g
            say("nested")
        assert flask.g.name == "outer"
        say("after")

    site.get("/page")
    stamped(lines, "/page", "before", "nested", "after")


# --- requests without a server --------------------------------------------------------------


def test_test_request_context(site: Site, lines: list[Line]) -> None:
    """A request that a test makes has its address and path on its lines, and one id."""
    with site.app.test_request_context("/made", environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        assert flask.request.path == "/made"
        say("one")
        say("two")
        assert current() is not None
    stamped(lines, "/made", "one", "two")
    assert named(lines, "one")["ip"] == "192.0.2.1"
    say("outside")
    bare(lines, "outside")


def test_two_test_request_contexts(site: Site, lines: list[Line]) -> None:
    """Each is its own request, the inner one as long as it lasts."""
    with site.app.test_request_context("/outer"):
        say("outer")
        with site.app.test_request_context("/inner"):
            say("inner")
        say("outer again")
    stamped(lines, "/outer", "outer", "outer again")
    stamped(lines, "/inner", "inner")
    assert named(lines, "inner")["request_id"] != named(lines, "outer")["request_id"]


def test_the_request_context_of_an_environ(site: Site, lines: list[Line]) -> None:
    """``app.request_context(environ)`` takes the id that the environ brings."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/by-hand",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "192.0.2.2",
        "HTTP_X_REQUEST_ID": "from-outside",
    }
    with site.app.request_context(environ):
        say("inside")
    stamped(lines, "/by-hand", "inside")
    assert named(lines, "inside")["request_id"] == "from-outside"


def test_another_request_made_current_in_a_view(
    site: Site, lines: list[Line], instrumented: bool
) -> None:
    """Instrumented, a request that a view makes keeps the id and says its own path."""

    @site.page
    def page() -> None:
        say("before")
        with site.app.test_request_context("/made"):
            say("made")
        say("after")

    site.get("/page")
    stamped(lines, "/page", "before", "after")
    made, around = named(lines, "made"), named(lines, "before")
    assert made["path"] == "/made"
    assert (made["request_id"] == around["request_id"]) is instrumented

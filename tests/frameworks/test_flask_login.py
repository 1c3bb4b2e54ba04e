"""The user of flask-login's session and cookie: read from what it knows already, never by asking
it, which would be a query, may write the session and may log the user out.
needs: flask, flask_login"""

import flask_login
import pytest

from tests.frameworks.logins import Shop, User
from tests.frameworks.said import Hook, Line, canonical, say, users

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def shop(hook: Hook, lines: list[Line]) -> Shop:
    return Shop(hook)


def test_a_session_user_is_not_loaded(shop: Shop, lines: list[Line]) -> None:
    """A line says the session's user; the loader is not called for it."""
    shop.log_in("7")

    @shop.page
    def quiet() -> None:
        say("inside")

    reply = shop.get("/quiet")
    assert users(lines, "inside") == ["7"]
    assert shop.loaded == []
    assert "Set-Cookie" not in reply.headers


def test_a_loader_that_logs(shop: Shop, lines: list[Line]) -> None:
    """A line of the loader itself is stamped, and loads nothing again."""
    shop.log_in("7")

    @shop.page
    def page() -> None:
        say("before")
        assert flask_login.current_user.id == "7"
        say("after")

    shop.get("/page")
    assert users(lines, "before", "loading", "after") == ["7", "7", "7"]
    assert shop.loaded == ["7"]


def test_a_deleted_user(shop: Shop, lines: list[Line]) -> None:
    """The session names one that the loader does not find: nobody, as soon as flask-login knows."""
    shop.log_in("deleted")

    @shop.page
    def page() -> None:
        assert flask_login.current_user.is_anonymous
        say("after")

    shop.get("/page")
    assert users(lines, "loading", "after") == ["deleted", None]


def test_login_and_logout_in_the_view(shop: Shop, lines: list[Line], instrumented: bool) -> None:
    """Each is on the very next line, and the last one on the canonical line."""

    @shop.page
    def page() -> None:
        say("before")
        flask_login.login_user(User(5))
        say("in")
        flask_login.logout_user()
        say("out")
        flask_login.login_user(User(6))

    shop.get("/page")
    assert users(lines, "before", "in", "out") == [None, "5", None]
    if instrumented:
        assert canonical(lines)["user"] == "6"


def test_nobody(shop: Shop, lines: list[Line]) -> None:
    """No session, no cookie, no other way to log in: null, with or without asking."""

    @shop.page
    def page() -> None:
        say("before")
        assert flask_login.current_user.is_anonymous
        say("after")

    assert "Set-Cookie" not in shop.get("/page").headers
    assert users(lines, "before", "after") == [None, None]
    assert shop.loaded == []


def test_an_anonymous_class_of_ones_own(shop: Shop, lines: list[Line]) -> None:
    """A class that is not flask-login's is nobody all the same."""

    class Guest:
        is_authenticated = is_active = False
        id = "guest"

    shop.manager.anonymous_user = Guest
    shop.log_in("deleted")

    @shop.page
    def page() -> None:
        assert not flask_login.current_user.is_authenticated
        say("after")

    shop.get("/page")
    assert users(lines, "after") == [None]


def test_a_remember_cookie(shop: Shop, lines: list[Line]) -> None:
    """Unknown until flask-login has looked at the cookie; never null before."""

    @shop.page
    def remember() -> None:
        flask_login.login_user(User("7"), remember=True)

    @shop.page
    def page() -> None:
        say("before")
        assert flask_login.current_user.id == "7"
        say("after")

    @shop.page
    def quiet() -> None:
        say("quiet")

    shop.get("/remember")
    shop.client.delete_cookie("session")
    shop.get("/quiet")
    assert shop.loaded == []
    shop.get("/page")
    assert users(lines, "quiet", "before", "loading", "after") == ["absent", "absent", "7", "7"]


def test_a_tampered_remember_cookie(shop: Shop, lines: list[Line]) -> None:
    """Unknown until flask-login has refused it, then nobody."""
    shop.client.set_cookie("remember_token", "7|forged")

    @shop.page
    def page() -> None:
        say("before")
        assert flask_login.current_user.is_anonymous
        say("after")

    shop.get("/page")
    assert users(lines, "before", "after") == ["absent", None]
    assert shop.loaded == []


@pytest.mark.parametrize("mode", ["basic", "strong"])
def test_session_protection_is_not_set_off(shop: Shop, lines: list[Line], mode: str) -> None:
    """A session from another browser: a line neither marks it stale nor logs its user out."""
    shop.manager.session_protection = mode
    shop.log_in("7", stranger=True)

    @shop.page
    def quiet() -> None:
        say("quiet")

    assert "Set-Cookie" not in shop.get("/quiet").headers
    assert users(lines, "quiet") == ["7"]
    with shop.client.session_transaction() as session:
        assert session["_user_id"] == "7"
        assert session["_fresh"] is True


@pytest.mark.parametrize(("mode", "after"), [("basic", "7"), ("strong", None)])
def test_session_protection_is_followed(
    shop: Shop, lines: list[Line], mode: str, after: str | None
) -> None:
    """When the view asks, flask-login does what it does without us, and the line says it."""
    shop.manager.session_protection = mode
    shop.log_in("7", stranger=True)

    @shop.page
    def page() -> None:
        say("before")
        assert flask_login.current_user.is_anonymous is (after is None)
        say("after")

    shop.get("/page")
    assert users(lines, "before", "after") == ["7", after]


def test_login_required(shop: Shop, lines: list[Line], instrumented: bool) -> None:
    """The redirect of flask-login, and 401 without a login page, are as they are without us."""

    @shop.page
    @flask_login.login_required
    def page() -> None:
        say("inside")

    assert shop.get("/page").status_code == 401
    shop.log_in("7")
    assert shop.get("/page").status_code == 200
    assert users(lines, "inside") == ["7"]
    if instrumented:
        found = [line["user"] for line in lines if line["event"] == "request"]
        assert found == [None, "7"]

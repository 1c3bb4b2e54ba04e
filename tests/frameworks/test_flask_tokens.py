"""Users that flask-login finds by something else than the session: unknown until it was asked, and
then known in every context of the request.
needs: flask, flask_login"""

from typing import Any

import flask
import flask_login
import pytest

from tests.frameworks.flasks import in_thread
from tests.frameworks.logins import Named, Shop, User, token_loader
from tests.frameworks.said import Hook, Line, say, users

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def shop(hook: Hook, lines: list[Line]) -> Shop:
    return Shop(hook)


def test_a_request_loader(shop: Shop, lines: list[Line]) -> None:
    """Unknown until flask-login has asked it, which we do not; then its user."""
    asked = token_loader(shop, User)

    @shop.page
    def page() -> None:
        say("before")
        assert asked == []
        assert flask_login.current_user.id == "api"
        say("after")

    shop.get("/page", headers={"Authorization": "api"})
    assert users(lines, "before", "after") == ["absent", "api"]
    assert asked == ["api"]


def test_a_request_loader_finds_nobody(shop: Shop, lines: list[Line]) -> None:
    """Null once it has said so, not before."""
    token_loader(shop, User)

    @shop.page
    def page() -> None:
        say("before")
        assert flask_login.current_user.is_anonymous
        say("after")

    shop.get("/page")
    assert users(lines, "before", "after") == ["absent", None]


def test_a_key_of_another_name(shop: Shop, lines: list[Line]) -> None:
    """A user without an ``id`` is known by the session; by a token alone unknown, never null."""
    token_loader(shop, Named)

    @shop.page
    def token() -> None:
        assert flask_login.current_user.name == "ada"
        say("token")

    @shop.page
    def session() -> None:
        flask_login.login_user(Named("bob"))
        say("session")

    shop.get("/token", headers={"Authorization": "ada"})
    shop.get("/session")
    assert users(lines, "token", "session") == ["absent", "bob"]


def test_the_key_rather_than_an_alternative_id(shop: Shop, lines: list[Line]) -> None:
    """Where the session holds something else than the key, the key wins once it is known."""

    class Alternative(User):
        def get_id(self) -> str:
            return "a-token-that-changes-with-the-password"

    @shop.page
    def page() -> None:
        flask_login.login_user(Alternative(9))
        say("after")

    shop.get("/page")
    assert users(lines, "after") == ["9"]


# --- other contexts of the same request -----------------------------------------------------


def test_a_copied_context_is_no_logout(shop: Shop, lines: list[Line]) -> None:
    """The copy has a ``g`` of its own, on which flask-login has found nobody yet: its lines, and
    those after it, say who it is."""
    token_loader(shop, User)

    @shop.page
    def page() -> None:
        assert flask_login.current_user.id == "api"
        say("before")

        @flask.copy_current_request_context
        def work() -> None:
            say("copy")

        in_thread(work)
        say("after")

    shop.get("/page", headers={"Authorization": "api"})
    assert users(lines, "before", "copy", "after") == ["api"] * 3


def test_another_application_context_is_no_logout(shop: Shop, lines: list[Line]) -> None:
    """An application's context pushed by hand has an empty ``g``: the request is who it was."""
    token_loader(shop, User)

    @shop.page
    def page() -> None:
        assert flask_login.current_user.id == "api"
        say("before")
        with shop.app.app_context():
            say("nested")
        say("after")

    shop.get("/page", headers={"Authorization": "api"})
    assert users(lines, "before", "nested", "after") == ["api"] * 3


def test_a_custom_resolver_wins(lines: list[Line]) -> None:
    """``user=`` gets Flask's own request and is asked in place of the peek."""
    import asok_trace

    shop = Shop(lambda app: app)
    shop.log_in("7")

    @shop.page
    def page() -> None:
        say("inside")

    def resolver(request: Any) -> str:
        return f"by {request.path}"

    with asok_trace.instrument(shop.app, user=resolver):
        shop.get("/page")
    assert users(lines, "inside") == ["by /page"]

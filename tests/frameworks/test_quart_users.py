"""The user of a Quart request or WebSocket: read from what Quart and quart-auth know already, never
by asking them.
needs: quart, quart_auth"""

import asyncio
from contextlib import suppress
from contextvars import Context
from typing import Any

import pytest
import quart
import quart_auth
from quart_auth import AuthUser, QuartAuth

from tests.frameworks.quarts import Site
from tests.frameworks.said import Hook, Line, canonical, say, users

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def site(hook: Hook, lines: list[Line]) -> Site:
    return Site(hook)


class Counted(QuartAuth):
    """Counts how often it was asked who it is."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.asked = 0
        super().__init__(app, cookie_secure=False, **settings)

    def resolve_user(self) -> AuthUser:
        self.asked += 1
        say(f"resolving {self.asked}")
        return super().resolve_user()


@pytest.fixture
def auth(site: Site) -> Counted:
    return Counted(site.app)


def cookie(auth: QuartAuth, site: Site, user: str) -> dict[str, str]:
    """The header of a browser in which ``user`` is logged in."""
    return {"Cookie": f"QUART_AUTH={auth.dump_token(user, app=site.app)}"}


# --- a plain session ------------------------------------------------------------------------


def test_a_plain_session(site: Site, lines: list[Line]) -> None:
    """The very next line follows ``session["user_id"]``."""

    @site.page
    async def page() -> None:
        say("before")
        quart.session["user_id"] = 8
        say("in")
        quart.session.pop("user_id")
        say("out")

    site.get("/page")
    assert users(lines, "before", "in", "out") == ["absent", "8", None]


def test_a_plain_session_is_not_marked(site: Site, lines: list[Line]) -> None:
    """Stamping the session's user changes no header: a page that logs answers as one that does
    not."""
    serializer = site.app.session_interface.get_signing_serializer(site.app)
    assert serializer is not None
    sent = {"Cookie": "session=" + serializer.dumps({"user_id": 7})}

    @site.page
    async def quiet() -> None: ...

    @site.page
    async def logs() -> None:
        say("inside")

    replies = [site.get(path, headers=sent) for path in ("/quiet", "/logs")]
    assert users(lines, "inside") == ["7"]
    assert replies[0].headers.get("Vary") == replies[1].headers.get("Vary")
    assert "Set-Cookie" not in replies[1].headers


def test_a_tampered_session(site: Site, lines: list[Line]) -> None:
    """A cookie with a wrong signature names nobody."""

    @site.page
    async def page() -> None:
        say("inside")

    reply = site.get("/page", headers={"Cookie": "session=eyJ1c2VyX2lkIjo3fQ.forged.signature"})
    assert users(lines, "inside") == ["absent"]
    assert "Set-Cookie" not in reply.headers


# --- quart-auth -----------------------------------------------------------------------------


def test_unknown_until_asked(
    site: Site, auth: Counted, lines: list[Line], instrumented: bool
) -> None:
    """A line does not ask quart-auth; once somebody has, lines say what it found."""

    @site.page
    async def page() -> None:
        say("before")
        assert auth.asked == 0
        assert quart_auth.current_user.auth_id == "7"
        say("after")

    reply = site.get("/page", headers=cookie(auth, site, "7"))
    assert users(lines, "before", "resolving 1", "after") == ["absent", "absent", "7"]
    assert "Set-Cookie" not in reply.headers
    assert auth.asked == 1
    if instrumented:
        assert canonical(lines)["user"] == "7"


def test_a_page_that_never_asks(
    site: Site, auth: Counted, lines: list[Line], instrumented: bool
) -> None:
    """quart-auth itself looks once the page is done; the canonical line has it from there."""

    @site.page
    async def page() -> None:
        say("inside")

    site.get("/page", headers=cookie(auth, site, "7"))
    assert users(lines, "inside") == ["absent"]
    assert auth.asked == 1
    if instrumented:
        assert canonical(lines)["user"] == "7"


def test_nobody(site: Site, auth: Counted, lines: list[Line]) -> None:
    """Null once quart-auth has found no cookie, or a forged one; not before."""

    @site.page
    async def page() -> None:
        say("before")
        assert quart_auth.current_user.auth_id is None
        say("after")

    site.get("/page", headers={"Cookie": "QUART_AUTH=forged"})
    assert users(lines, "before", "after") == ["absent", None]


def test_login_and_logout(site: Site, auth: Counted, lines: list[Line]) -> None:
    """Each is on the very next line, and the cookie is quart-auth's own business."""

    @site.page
    async def page() -> None:
        quart_auth.login_user(AuthUser("5"))
        say("in")
        quart_auth.logout_user()
        say("out")
        quart_auth.login_user(AuthUser("6"))
        say("again")

    reply = site.get("/page")
    assert users(lines, "in", "out", "again") == ["5", None, "6"]
    assert "QUART_AUTH" in reply.headers["Set-Cookie"]


def test_another_attribute(site: Site, lines: list[Line]) -> None:
    """An extension that keeps its user under another name is found."""
    auth = Counted(site.app, attribute_name="_the_user", cookie_name="ID", salt="s")

    @site.page
    async def page() -> None:
        assert auth.load_user().auth_id == "7"
        say("after")

    token = auth.dump_token("7", app=site.app)
    site.get("/page", headers={"Cookie": f"ID={token}"})
    assert users(lines, "after") == ["7"]


def test_bearer_tokens(site: Site, lines: list[Line]) -> None:
    """A token in a header is unknown until quart-auth has read it."""
    auth = Counted(site.app, mode="bearer")

    @site.page
    async def page() -> None:
        say("before")
        assert quart_auth.current_user.auth_id == "7"
        say("after")

    token = auth.dump_token("7", app=site.app)
    site.get("/page", headers={"Authorization": f"Bearer {token}"})
    assert users(lines, "before", "after") == ["absent", "7"]


def test_a_copied_context_is_no_logout(site: Site, auth: Counted, lines: list[Line]) -> None:
    """The copy has a ``g`` of its own, on which quart-auth has not looked yet: its lines, and
    those after it, say who it is."""

    @site.page
    async def page() -> None:
        assert quart_auth.current_user.auth_id == "7"
        say("before")

        @quart.copy_current_request_context
        async def work() -> None:
            say("copy")

        await asyncio.get_running_loop().create_task(work(), context=Context())
        say("after")

    site.get("/page", headers=cookie(auth, site, "7"))
    assert users(lines, "before", "copy", "after") == ["7", "7", "7"]


# --- websockets -----------------------------------------------------------------------------


def test_a_websocket(site: Site, auth: Counted, lines: list[Line]) -> None:
    """The same holds for a WebSocket: unknown until asked, then known at once."""

    @site.socket
    async def socket() -> None:
        await quart.websocket.receive()
        say("before")
        assert quart_auth.current_user.auth_id == "7"
        say("after")
        await quart.websocket.send("done")
        with suppress(Exception):
            await quart.websocket.receive()

    site.talk("/socket", "x", headers=cookie(auth, site, "7"))
    assert users(lines, "before", "after") == ["absent", "7"]


def test_a_websocket_with_a_session(site: Site, lines: list[Line]) -> None:
    """The user of the session is known from the handshake on, and the session is not marked."""
    serializer = site.app.session_interface.get_signing_serializer(site.app)
    assert serializer is not None
    sent = {"Cookie": "session=" + serializer.dumps({"user_id": 7})}

    @site.socket
    async def socket() -> None:
        say("handshake")
        await quart.websocket.receive()
        say("message")
        await quart.websocket.send("done")

    site.talk("/socket", "x", headers=sent)
    assert users(lines, "handshake", "message") == ["7", "7"]

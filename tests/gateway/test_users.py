"""The user on a line: absent while unknown, null for nobody, a primary key, and true on the very
next line after it changed; never read from the framework in a way that does something.
needs: asok"""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from asok.auth import BearerToken
from asok.context import current_request

import asok_trace
from asok_trace.core import errors
from tests.gateway import sites
from tests.gateway.sites import Line, Reply, Site, canonical, named, say

Call = Callable[..., Reply]
Faults = list[logging.LogRecord]


def cookie(site: Site, user_id: Any) -> tuple[str, str]:
    """The cookie of a session in which ``user_id`` is logged in."""
    store = site.app._session_store
    sid = store.generate_sid()
    store.save(sid, {"user_id": user_id})
    return ("Cookie", f"asok_sid={site.app._sign(sid)}")


def bearer(site: Site, user_id: Any) -> tuple[str, str]:
    """The header of an API client."""
    signer = SimpleNamespace(_sign=site.app._sign, environ={})
    return ("Authorization", f"Bearer {BearerToken.create(signer, user_id, 60)}")


# --- what is stamped -----------------------------------------------------------------------


def test_nobody(site: Site, call: Call, lines: list[Line]) -> None:
    """A page loads the session: nobody in it is null, not absent."""
    asok_trace.instrument(site.app)
    site.views["plain"] = lambda request: say("inside") or "plain"
    call(site.app)
    assert [line["user"] for line in lines] == [None, None]


def test_unknown(site: Site, call: Call, lines: list[Line]) -> None:
    """Nobody has asked who it is at the health check: the field is absent."""
    asok_trace.instrument(site.app)
    call(site.app, "/health", headers=[cookie(site, 7)])
    assert "user" not in canonical(lines)


@pytest.mark.usefixtures("users")
def test_a_session(site: Site, call: Call, lines: list[Line]) -> None:
    """Known from the session that the page has loaded, before and after ``request.user``."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        say("before")
        assert request.user.name == "ada"
        say("after")
        return "page"

    call(site.app, "/page", headers=[cookie(site, 1)])
    assert [line["user"] for line in lines] == ["1", "1", "1"]


@pytest.mark.usefixtures("users")
def test_a_bearer_token(site: Site, call: Call, lines: list[Line]) -> None:
    """Unknown until asok has looked at the token, even if a session says somebody else."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        say("before")
        assert request.user.name == "bob"
        say("after")
        return "page"

    call(site.app, "/page", headers=[bearer(site, 2), cookie(site, 1)])
    assert "user" not in named(lines, "before")
    assert named(lines, "after")["user"] == canonical(lines)["user"] == "2"


@pytest.mark.usefixtures("users")
def test_a_deleted_user(site: Site, call: Call, lines: list[Line]) -> None:
    """The session names one that the database does not have: null as soon as asok knows."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        assert request.user is None
        say("after")
        return "page"

    call(site.app, "/page", headers=[cookie(site, 99)])
    assert named(lines, "after")["user"] is None


def test_login_logout_and_impersonation(
    site: Site, call: Call, lines: list[Line], users: Any
) -> None:
    """Each is on the very next line, within one request."""
    asok_trace.instrument(site.app)
    ada, bob = users.find(id=1), users.find(id=2)

    @site.view
    def page(request: Any) -> str:
        say("nobody")
        request.login(ada)
        say("login")
        request.user = bob
        say("impersonation")
        request.user = None
        say("impersonation of nobody")
        request.login(bob)
        request.logout()
        say("logout")
        request.session["user_id"] = 1
        say("by the session")
        request.session["user_id"] = 2
        say("by the session again")
        del request.session["user_id"]
        say("logout by the session")
        request.login(ada)
        return "page"

    call(site.app, "/page")
    assert {line["event"]: line["user"] for line in lines} == {
        "nobody": None,
        "login": "1",
        "impersonation": "2",
        "impersonation of nobody": None,
        "logout": None,
        "by the session": "1",
        "by the session again": "2",
        "logout by the session": None,
        "request": "1",
    }


def test_a_logout_of_a_cookie_session(
    site: Site, call: Call, lines: list[Line], users: Any
) -> None:
    """Logged in by an earlier request: the line after the logout names nobody."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        say("before")
        request.logout()
        say("after")
        assert request.user is None
        say("asked")
        return "page"

    call(site.app, "/page", headers=[cookie(site, 1)])
    assert [line["user"] for line in lines] == ["1", None, None, None]


class Slotted(NamedTuple):
    """A user without a ``__dict__``."""

    id: int
    email: str


@pytest.mark.parametrize(
    ("user", "stamped"),
    [
        (SimpleNamespace(id=7, email="a@example.org"), "7"),
        (SimpleNamespace(id="u-7", email="a@example.org"), "u-7"),
        (SimpleNamespace(id=0), "0"),
        (SimpleNamespace(id="a\r\nb\x1b"), r"a\r\nb\x1b"),
        (SimpleNamespace(id="x" * 5000), "x" * 255 + "…"),
    ],
    ids=["number", "text", "zero", "hostile", "huge"],
)
def test_keys_of_all_kinds(
    site: Site, call: Call, lines: list[Line], user: Any, stamped: str
) -> None:
    """As text of one line and at most 256 characters."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        request.user = user
        say("inside")
        return "page"

    call(site.app, "/page")
    assert named(lines, "inside")["user"] == canonical(lines)["user"] == stamped


@pytest.mark.parametrize(
    "user",
    [
        {"id": 7, "email": "a@example.org"},
        "a@example.org",
        Slotted(7, "a@example.org"),
        SimpleNamespace(email="a@example.org"),
        object(),
        7,
    ],
    ids=lambda user: type(user).__name__,
)
def test_a_user_without_a_key_is_not_stamped(
    site: Site, call: Call, lines: list[Line], faults: Faults, user: Any
) -> None:
    """A view may log in what it likes. Nothing of it is printed, nothing of ours fails, and the
    next request is stamped as ever."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        request.user = user
        say("inside")
        return "page"

    call(site.app, "/page")
    assert "example.org" not in repr(lines)
    assert not named(lines, "inside").get("user")
    assert not faults
    lines.clear()
    call(site.app, headers=[cookie(site, 1)])
    assert canonical(lines)["user"] == "1"


def test_never_an_email(site: Site, call: Call, lines: list[Line], users: Any) -> None:
    """Whatever a model holds besides its key stays out of the lines."""
    asok_trace.instrument(site.app)
    site.views["plain"] = lambda request: say("inside") or f"hello {request.user.email}"
    assert call(site.app, headers=[cookie(site, 1)]).body.startswith(b"hello ada@example.org")
    assert "@" not in repr(lines)


@pytest.mark.usefixtures("users")
def test_a_stream_knows_its_user(site: Site, lines: list[Line]) -> None:
    """Under WSGI a body runs after asok has put the request away."""
    asok_trace.instrument(site.app)

    @site.view
    def stream(request: Any) -> Any:
        def chunks() -> Any:
            say("first")
            request.user = SimpleNamespace(id=9)
            say("second")
            yield "chunk"

        return chunks()

    sites.wsgi(site.app, "/stream", headers=[cookie(site, 1)])
    assert [line["user"] for line in lines] == ["1", "9", "9"]


# --- a resolver of the host's own ----------------------------------------------------------


def test_a_resolver_is_given_the_request(site: Site, call: Call, lines: list[Line]) -> None:
    """It is asked with asok's request object; its answer is the user."""
    seen: list[Any] = []

    def resolver(request: Any) -> str:
        seen.append(request)
        return f"tenant-{request.args['tenant']}"

    asok_trace.instrument(site.app, user=resolver)
    views: list[Any] = []
    site.views["plain"] = lambda request: views.append(request) or say("inside") or "plain"
    call(site.app, query="tenant=5")
    assert [line["user"] for line in lines] == ["tenant-5", "tenant-5"]
    assert {id(request) for request in seen} == {id(views[0])}


def test_a_resolver_that_logs_does_not_recurse(
    site: Site, call: Call, lines: list[Line], faults: Faults
) -> None:
    """Its own lines, through structlog and through stamped logging, are stamped without asking
    it again."""
    stamped: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = stamped.append  # type: ignore[method-assign]
    logger = logging.getLogger("shop.auth")
    logger.addHandler(handler)

    def resolver(request: Any) -> int:
        say("resolving")
        logger.warning("resolving")
        return 7

    asok_trace.instrument(site.app, user=resolver)
    handle = asok_trace.stamp_logging()
    site.views["plain"] = lambda request: say("inside") or "plain"
    try:
        [request_id] = call(site.app).ids
    finally:
        handle.undo()
        logger.removeHandler(handler)
    assert named(lines, "inside")["user"] == "7"
    assert {line["request_id"] for line in lines} == {request_id}
    assert {record.request_id for record in stamped} == {request_id}  # type: ignore[attr-defined]
    assert not faults


def test_a_resolver_may_read_what_peeking_may_not(
    site: Site, call: Call, lines: list[Line], users: Any, queries: list[str]
) -> None:
    """``request.user`` queries, and asok logs while it does: still one query, no recursion."""
    asok_trace.instrument(site.app, user=lambda request: request.user and request.user.name)
    logging.getLogger("asok").setLevel(logging.DEBUG)
    handle = asok_trace.stamp_logging()
    site.views["plain"] = lambda request: say("inside") or say("again") or "plain"
    try:
        call(site.app, headers=[cookie(site, 1), ("Authorization", "Bearer tampered.0")])
    finally:
        handle.undo()
    assert {line["user"] for line in lines} == {"ada"}
    assert len([query for query in queries if "SELECT" in query]) == 1


class _Unprintable:
    """A key that cannot be made text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def _raising(_request: Any) -> Any:
    raise LookupError("resolver")


@pytest.mark.parametrize(
    "resolver", [_raising, lambda request: _Unprintable()], ids=["raises", "unprintable"]
)
def test_a_resolver_that_fails(
    site: Site,
    call: Call,
    lines: list[Line],
    faults: Faults,
    resolver: Callable[[Any], Any],
) -> None:
    """Reported once, with its name; the request is unharmed and does not ask again; the next
    request asks anew and reports nothing."""
    asked: list[Any] = []

    def counted(request: Any) -> Any:
        asked.append(request)
        return resolver(request)

    asok_trace.instrument(site.app, user=counted)
    site.views["plain"] = lambda request: say("one") or say("two") or "plain"
    [request_id] = call(site.app).ids
    assert len(asked) == 1
    assert {line["request_id"] for line in lines} == {request_id}
    assert all("user" not in line for line in lines)
    [fault] = faults
    assert "counted" in fault.getMessage()
    assert fault.exc_info is not None
    assert call(site.app).status == 200
    assert len(asked) == 2
    assert len(faults) == 1


def test_a_failing_resolver_spoils_nobody_elses_user(
    make_site: Callable[[], Site], call: Call, lines: list[Line], faults: Faults
) -> None:
    """Another application of the process is stamped with its users as before."""
    broken, fine = make_site(), make_site()
    asok_trace.instrument(broken.app, user=lambda request: _Unprintable())
    asok_trace.instrument(fine.app)
    call(broken.app)
    lines.clear()
    call(fine.app, headers=[cookie(fine, 1)])
    assert canonical(lines)["user"] == "1"
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("answer", "stamped"),
    [
        (7, "7"),
        (0, "0"),
        ("x" * 1_000_000, "x" * 255 + "…"),
        ("a\nb", r"a\nb"),
        (None, None),
        (True, "True"),
        (b"\xff", r"b'\xff'"),
        (3.5, "3.5"),
        ("", ""),
    ],
    ids=["int", "zero", "huge", "newline", "None", "bool", "bytes", "float", "empty"],
)
def test_what_a_resolver_may_return(
    site: Site, call: Call, lines: list[Line], answer: Any, stamped: str | None
) -> None:
    """Anything: as text of one line and at most 256 characters; None is nobody."""
    asok_trace.instrument(site.app, user=lambda request: answer)
    call(site.app)
    assert canonical(lines)["user"] == stamped


def test_a_key_whose_text_logs(site: Site, call: Call, lines: list[Line], faults: Faults) -> None:
    """Made into text while the resolver counts as running: no recursion either."""

    class Chatty:
        def __str__(self) -> str:
            say("chatting")
            return "chatty"

    asok_trace.instrument(site.app, user=lambda request: Chatty())
    call(site.app)
    assert canonical(lines)["user"] == "chatty"
    assert not faults


def test_a_resolver_that_fails_while_another_request_is_current(
    site: Site, call: Call, lines: list[Line], faults: Faults
) -> None:
    """It is the resolver's failure, and this request's lines keep their id."""
    asok_trace.instrument(site.app, user=_raising)

    @site.view
    def page(request: Any) -> str:
        from asok.context import request_context
        from asok.request import Request

        with request_context(Request(sites.environ("/other"))):
            say("inside")
        return "page"

    [request_id] = call(site.app, "/page").ids
    assert {line["request_id"] for line in lines} == {request_id}
    assert len(faults) == 1


def test_the_proxy_works_as_before(site: Site, call: Call, lines: list[Line]) -> None:
    """``current_request`` in a resolver is the request it is given."""
    asok_trace.instrument(site.app, user=lambda request: current_request.path)
    call(site.app)
    assert canonical(lines)["user"] == "/plain"
    assert all(piece.working for piece in errors.PIECES)


def test_lines_before_the_request_exists(
    site: Site, call: Call, lines: list[Line], faults: Faults
) -> None:
    """Asok logs before it has made its request object: that line has an id and a path and no
    user, and asking for the user is not given up."""
    stamped: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = stamped.append  # type: ignore[method-assign]
    logging.getLogger("asok.wsgi").addHandler(handler)
    asked: list[Any] = []
    asok_trace.instrument(site.app)
    handle = asok_trace.stamp_logging()
    build = site.app._build_environ_from_asgi

    def logged(*args: Any) -> Any:
        logging.getLogger("asok.wsgi").info("[ASGI] /plain")
        return build(*args)

    site.app._build_environ_from_asgi = logged
    site.views["plain"] = lambda request: say("inside") or "plain"
    try:
        call(site.app, headers=[cookie(site, 1)])
    finally:
        handle.undo()
        logging.getLogger("asok.wsgi").removeHandler(handler)
    [early] = stamped
    assert vars(early)["request_id"] == canonical(lines)["request_id"]
    assert vars(early)["path"] == "/plain"
    assert "user" not in vars(early)
    assert named(lines, "inside")["user"] == "1"
    assert not faults
    assert not asked

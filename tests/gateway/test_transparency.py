"""With us and without us: the same responses to the byte, the same queries, the same cookies, but
for our one header. needs: asok"""

import logging
import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asok.auth import BearerToken
from asok.core import metrics

import asok_trace
from tests.gateway import sites
from tests.gateway.sites import FORM, Reply, Site, say

Call = Callable[..., Reply]

JSON = ("Content-Type", "application/json")
LOGIN = ("X-Login", "1")


def furnish(site: Site) -> Site:
    """Give ``site`` pages of every kind, and a shared variable that reads the user."""
    root = site.root / "src"
    (root / "partials" / "css").mkdir(parents=True, exist_ok=True)
    (root / "partials" / "css" / "site.css").write_text("body { color: red }")
    (root / "partials" / "shared.html").write_text(
        "<html><body>{{ user.name if user else 'nobody' }} {{ lazy }}</body></html>"
    )
    (root / "pages" / "about").mkdir(exist_ok=True)
    (root / "pages" / "about" / "page.html").write_text("<html><body>about</body></html>")
    (root / "pages" / "blog").mkdir(exist_ok=True)
    (root / "pages" / "blog" / "[slug]").mkdir(exist_ok=True)
    (root / "pages" / "blog" / "[slug]" / "page.html").write_text("<p>{{ request.path }}</p>")
    site.app.share(user=lambda request: request.user, lazy=lambda request: "lazy")
    site.app.config.update(GZIP=True, GZIP_MIN_SIZE=10, CORS_ORIGINS="https://other.example")

    @site.view
    def whoami(request: Any) -> str:
        say("before")
        name = request.user.name if request.user else "nobody"
        say("after")
        return f"<html><body>{name}</body></html>"

    @site.view
    def shared(request: Any) -> Any:
        say("before")
        return request.html("shared.html")

    @site.view
    def indifferent(request: Any) -> str:
        say("inside")
        logging.getLogger("shop").warning("inside")
        return "<html><body>hello</body></html>"

    @site.view
    def login(request: Any) -> Any:
        from asok.orm import MODELS_REGISTRY

        request.login(MODELS_REGISTRY["User"].find(id=1))
        say("inside")
        return request.json({"ok": True})

    @site.view
    def logout(request: Any) -> Any:
        request.logout()
        say("inside")
        request.redirect("/plain")

    @site.view
    def flash(request: Any) -> Any:
        request.flash("info", "saved")
        request.session["basket"] = [1, 2]
        return "flash"

    @site.view
    def abort(request: Any) -> Any:
        request.abort(403, "no")

    @site.view
    def boom(request: Any) -> Any:
        say("inside")
        raise LookupError("boom")

    @site.view
    def nothing(request: Any) -> Any:
        return None

    @site.view
    def stream(request: Any) -> Any:
        def chunks() -> Any:
            yield "<html><body>"
            say("inside")
            yield f"{request.user}</body></html>"

        return chunks()

    @site.view
    def broken_stream(request: Any) -> Any:
        def chunks() -> Any:
            yield "a"
            raise LookupError("stream")

        return chunks()

    @site.view
    def protected(request: Any) -> Any:
        request.require_auth()
        return "secret"

    @site.view
    def download(request: Any) -> Any:
        return request.send_file("site.css", base_dir=site.root / "src" / "partials" / "css")

    @site.view
    def odd_headers(request: Any) -> Any:
        request.response_headers += [("X-A", "1"), ("X-A", "2"), ("Vary", "X-Thing")]
        request.status_code(418)
        return "odd"

    return site


def signed(site: Site, user_id: int) -> list[tuple[str, str]]:
    """Headers with the cookies of a user who has logged in."""
    site.app._session_store.save("sid-of-a-test", {"user_id": user_id})
    sign = site.app._sign
    cookies = f"asok_sid={sign('sid-of-a-test')}; asok_session={sign(f'{user_id}:sid-of-a-test')}"
    return [("Cookie", cookies)]


def tampered(site: Site) -> dict[str, list[tuple[str, str]]]:
    """Credentials that asok refuses, each in its own way."""
    good = signed(site, 1)[0][1]
    token = BearerToken.create(SimpleNamespace(_sign=site.app._sign, environ={}), 1, 60)
    return {
        "changed": [("Cookie", good.replace("1:", "2:"))],
        "cut": [("Cookie", good[:-3])],
        "rubbish": [("Cookie", "asok_session=%00%ff.x; asok_sid=../../etc/passwd.y")],
        "unsigned": [("Cookie", "asok_session=1; asok_sid=sid-of-a-test")],
        "oversized": [("Cookie", f"asok_session={'9' * 5000}.x")],
        "unparsable": [("Cookie", 'asok_session="\x01; =; ;;asok_sid')],
        "bearer changed": [("Authorization", f"Bearer {token.replace('1|', '2|')}")],
        "bearer rubbish": [("Authorization", "Bearer .")],
        "bearer empty": [("Authorization", "Bearer ")],
        "basic": [("Authorization", "Basic YTpi")],
        "bearer and cookie": [("Authorization", "Bearer x.y"), ("Cookie", good[:-3])],
    }


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "page": ("/indifferent", {}),
    "gzip": ("/indifferent", {"headers": [("Accept-Encoding", "gzip")]}),
    "cors": ("/indifferent", {"headers": [("Origin", "https://other.example")]}),
    "origin refused": ("/indifferent", {"headers": [("Origin", "https://evil.example")]}),
    "block": ("/indifferent", {"headers": [("X-Block", "main")]}),
    "block refused": ("/indifferent", {"headers": [("X-Block", "<x>")]}),
    "head": ("/indifferent", {"method": "HEAD"}),
    "options": ("/indifferent", {"method": "OPTIONS"}),
    "unknown method": ("/indifferent", {"method": "BREW"}),
    "post": ("/indifferent", {"method": "POST", "headers": [FORM], "body": b"a=1&b=2"}),
    "json": ("/indifferent", {"method": "POST", "headers": [JSON], "body": b'{"a": 1}'}),
    "reads the user": ("/whoami", {}),
    "shared variables": ("/shared", {}),
    "template": ("/blog/hello", {}),
    "generated page": ("/about", {}),
    "login": ("/login", {}),
    "logout": ("/logout", {}),
    "flash": ("/flash", {}),
    "language": ("/indifferent", {"query": "lang=fr"}),
    "abort": ("/abort", {}),
    "exception": ("/boom", {}),
    "no answer": ("/nothing", {}),
    "stream": ("/stream", {}),
    "stream, zipped": ("/stream", {"headers": [("Accept-Encoding", "gzip")]}),
    "broken stream": ("/broken_stream", {}),
    "protected": ("/protected", {"query": "a=b"}),
    "download": ("/download", {}),
    "headers": ("/odd_headers", {}),
    "async": ("/async/answer", {}),
    "async, fails": ("/async/fails", {}),
    "static": ("/css/site.css", {}),
    "static missing": ("/css/none.css", {}),
    "not found": ("/no/such/page", {}),
    "health": ("/health", {}),
    "favicon": ("/favicon.ico", {}),
    "traversal": ("/../../etc/passwd", {}),
}


def furnished(make_site: Callable[[], Site]) -> Site:
    """A furnished site with asynchronous views."""
    site = furnish(make_site())

    async def answer(request: Any) -> str:
        say("inside")
        return "async"

    async def fails(request: Any) -> str:
        raise LookupError("async")

    site.views.update(answer=answer, fails=fails)
    return site


@pytest.fixture
def pair(make_site: Callable[[], Site], lines: Any) -> tuple[Site, Site]:
    """A bare site and an instrumented one, from the same files; logging is stamped."""
    bare, watched = furnished(make_site), furnished(make_site)
    asok_trace.instrument(watched.app)
    return bare, watched


@pytest.fixture
def compare(
    pair: tuple[Site, Site],
    call: Call,
    repeatable: Callable[[], None],
    queries: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Reply]:
    """Sends a request to both; they must answer alike and run the same SQL statements."""
    monkeypatch.setattr(metrics.MetricsRegistry, "uptime", 1.0)

    def compare(path: str, **request: Any) -> Reply:
        answers = []
        for site in pair:
            repeatable()
            shutil.rmtree(site.root / ".asok" / "ssg_cache", ignore_errors=True)
            queries.clear()
            with_logging = asok_trace.stamp_logging() if site is pair[1] else None
            try:
                reply = call(site.app, path, **request)
            finally:
                if with_logging is not None:
                    with_logging.undo()
            answers.append((reply.without_id(), list(queries)))
        assert answers[0] == answers[1]
        assert len(reply.ids) == 1
        return reply

    return compare


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_response(
    compare: Callable[..., Reply], pair: tuple[Site, Site], name: str
) -> None:
    """Status, whole headers, body and SQL statements are equal, for strangers and for users."""
    path, request = REQUESTS[name]
    for credentials in ([], signed(pair[0], 1)):
        for site in pair:
            signed(site, 1)
        headers = [*request.get("headers", ()), *credentials]
        compare(path, **{**request, "headers": headers})


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("path", ["/indifferent", "/whoami", "/shared", "/stream", "/css/site.css"])
def test_tampered_credentials(
    compare: Callable[..., Reply], pair: tuple[Site, Site], path: str
) -> None:
    """Refused by asok as ever, whether or not the page asks who it is: no recursion, no query,
    no cookie more than without us."""
    signed(pair[1], 1)
    for headers in tampered(pair[0]).values():
        compare(path, headers=headers)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("path", "logged_in", "selects"),
    [
        ("/plain", False, 0),
        ("/css/site.css", True, 0),
        ("/health", True, 0),
        ("/whoami", False, 0),
        ("/whoami", True, 1),
        ("/shared", True, 1),
    ],
)
def test_the_number_of_queries(
    pair: tuple[Site, Site],
    call: Call,
    queries: list[str],
    path: str,
    logged_in: bool,
    selects: int,
) -> None:
    """What is counted above does happen: asok itself asks for the user this often."""
    site = pair[1]
    headers = signed(site, 1)
    call(site.app, path, headers=headers if logged_in else [])
    assert len([query for query in queries if "FROM" in query]) == selects


def test_no_session_is_loaded(pair: tuple[Site, Site], call: Call) -> None:
    """Where asok does not load one, neither do we; nor do we save one."""
    site = pair[1]
    store = site.app._session_store
    touched: list[str] = []
    for name in ("load", "save", "generate_sid"):
        original = getattr(store, name)

        def watched(*args: Any, _name: str = name, _original: Any = original) -> Any:
            touched.append(_name)
            return _original(*args)

        setattr(store, name, watched)
    for path in ("/css/site.css", "/health"):
        call(site.app, path, headers=[("Cookie", f"asok_sid={site.app._sign('x')}")])
    assert touched == []
    call(site.app, "/plain", headers=[("Cookie", f"asok_sid={site.app._sign('x')}")])
    assert touched == ["load", "generate_sid"]


def test_the_host_sees_its_own_arguments(site: Site) -> None:
    """The environ and its input go in as they are, with one key more."""
    seen: list[dict[str, Any]] = []
    site.views["plain"] = lambda request: seen.append(request.environ) or "plain"
    asok_trace.instrument(site.app)
    environ = sites.environ()
    before = dict(environ)
    b"".join(site.app(environ, sites.Started()))
    assert seen == [environ]
    assert seen[0] is environ
    added = environ.keys() - before.keys()
    assert {key for key in added if not key.startswith("asok.")} == {"asok_trace.scope"}
    assert all(environ[key] is value for key, value in before.items())

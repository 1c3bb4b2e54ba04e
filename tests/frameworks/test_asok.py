"""What the Asok adapter says about an application and its requests.

needs: asok
"""

import os
from pathlib import Path
from typing import Any

import pytest
from asok import Asok, Request
from asok.context import request_context

from asok_trace.core.scope import UNKNOWN
from asok_trace.frameworks.asok import FRAMEWORK


@pytest.fixture
def app(tmp_path: Path) -> Asok:
    """An Asok application with a few pages."""
    for page in ("page.py", "about.py", "user/[id]/page.py", "blog/[slug]/page.html"):
        path = tmp_path / "src" / "pages" / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def render(request):\n    return ''\n")
    return Asok(str(tmp_path))


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("/", "/"),
        ("/user/7", "/user/[id]"),
        ("/blog/first", "/blog/[slug]"),
        ("/nowhere", None),
    ],
)
def test_routes(app: Asok, url: str, route: str | None) -> None:
    """The page file that asok finds, as a pattern of the URL."""
    found, _ = app._resolve_route([part for part in url.split("/") if part])
    assert FRAMEWORK.route(app, found) == route


def test_a_page_outside_every_pages_folder_has_no_route(app: Asok) -> None:
    """Something that was found elsewhere is not shown as a path of the machine."""
    assert FRAMEWORK.route(app, os.path.join(app.root_dir, "elsewhere", "page.py")) is None


def test_pages_of_extensions_have_routes(app: Asok, tmp_path: Path) -> None:
    """An extension's own pages folder counts like the application's."""
    app._extension_pages_paths.append(str(tmp_path / "extension"))
    app._invalidate_search_path_caches()
    page = str(tmp_path / "extension" / "wiki" / "page.py")
    assert FRAMEWORK.route(app, page) == "/wiki"


def state(**changes: Any) -> Request:
    """A request with that state, and nothing read from it yet."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"} | changes.pop("environ", {})
    request = Request(environ)
    for name, value in changes.items():
        setattr(request, name, value)
    return request


class User:
    def __init__(self, key: object) -> None:
        self.id = key


@pytest.mark.parametrize(
    ("changes", "user"),
    [
        ({}, UNKNOWN),
        ({"_auth_resolved": True}, None),
        ({"_auth_resolved": True, "_user_instance": User(7)}, 7),
        ({"_session": {}}, None),
        ({"_session": {"user_id": 7}}, 7),
        ({"_session": {"user_id": 7}, "environ": {"HTTP_AUTHORIZATION": "Bearer x"}}, UNKNOWN),
        ({"_session": {"user_id": 7}, "environ": {"HTTP_AUTHORIZATION": "Basic x"}}, 7),
        ({"_session": {}, "environ": {"HTTP_COOKIE": "asok_session=x"}}, UNKNOWN),
        (
            {
                "_session": {},
                "environ": {"HTTP_COOKIE": "asok_session=x", "asok.session_cookie": ""},
            },
            None,
        ),
    ],
)
def test_the_user_is_peeked_at(changes: dict[str, Any], user: object) -> None:
    """What asok has found out by itself is known; what it would have to look up is not."""
    request = state(**changes)
    before = dict(vars(request))
    assert FRAMEWORK.peek(request) == user
    assert vars(request) == before


def test_a_user_model_without_id_is_unknown() -> None:
    """A primary key of another name: a user= resolver tells."""

    class Odd:
        pass

    assert FRAMEWORK.peek(state(_auth_resolved=True, _user_instance=Odd())) is UNKNOWN


def test_the_current_request_can_be_activated() -> None:
    """activate() is asok's own request_context."""
    request = state()
    assert FRAMEWORK.current() is None
    with FRAMEWORK.activate(request):
        assert FRAMEWORK.current() is request
        assert FRAMEWORK.reader()() is request
    assert FRAMEWORK.current() is None


def test_asgi_requests_have_no_scope_before_they_carry_one() -> None:
    """A synthetic request (a page built in advance) carries none."""
    assert FRAMEWORK.carried(state()) is None
    with request_context(state()):
        assert FRAMEWORK.facts(state()) == (None, "/")

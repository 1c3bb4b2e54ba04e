"""A streamed body works in its request: when the framework makes it, and long after it let go.

needs: asok, flask, flask_login, quart, quart_auth
"""

from tests.contract.lines import canonical, said_by_views, saying, text
from tests.contract.parameters import everywhere, where
from tests.contract.site import Site


@everywhere
def test_the_current_request_works_inside_the_body(site: Site) -> None:
    """``bool(current_request)`` and ``current_request.path`` in the generator, where asok alone
    has put them away before the server iterates; ``has_request_context()`` under Flask's and
    Quart's ``stream_with_context``. Its lines are the request's."""
    reply, lines = site.exchange("GET", "/stream?token=inside")
    parts = saying(said_by_views(lines), "part")
    assert [line["part"] for line in parts if line["by"] == "structlog"] == [0, 1, 2]
    for line in parts:
        assert line["alive"] is True
        assert line["seen"] == line["path"] == "/stream"
        assert line["request_id"] == reply.id
    assert reply.body.startswith(b"<p>0</p><p>1</p><p>2</p>")


@everywhere
def test_the_request_ends_after_its_body(site: Site) -> None:
    """The canonical line comes after the last line of the body."""
    _, lines = site.exchange("GET", "/stream")
    mine = [line for line in lines if line in said_by_views(lines) or line in canonical(lines)]
    assert [text(line) for line in mine][-2:] == ["part", "request"]


@where(of="asok")
def test_the_error_of_a_body_that_raises(site: Site) -> None:
    """Asok reports it (under WSGI in its streamer, outside any request of its own): stamped."""
    _, lines = site.exchange("GET", "/broken_stream")
    (report,) = [line for line in lines if "in the middle of the body" in text(line)]
    (last,) = canonical(lines)
    assert report["name"] == "asok.streamer"
    assert report["request_id"] == last["request_id"]
    assert report["path"] == "/broken_stream"


@where(of=("flask", "quart"))
def test_a_plain_stream(site: Site) -> None:
    """Without ``stream_with_context`` there is no request in the generator, and yet its lines are
    the request's."""
    reply, lines = site.exchange("GET", "/plain_stream")
    parts = saying(said_by_views(lines), "part")
    assert [line["part"] for line in parts if line["by"] == "structlog"] == [0, 1, 2]
    for line in parts:
        assert line["alive"] is False
        assert (line["request_id"], line["path"]) == (reply.id, "/plain_stream")

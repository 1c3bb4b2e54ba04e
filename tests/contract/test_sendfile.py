"""What a server sends by itself it still does: Flask's files go to the kernel under gunicorn.

needs: asok, flask, flask_login, quart, quart_auth
"""

import pytest

from tests.contract.lines import canonical
from tests.contract.parameters import where
from tests.contract.site import Site

# What gunicorn tells: Flask's file wrapper is taken for its own, and it calls sendfile(2).
SENT = "sendfile: FileWrapper True"

by_gunicorn = where(lambda server: server.name.startswith("gunicorn"), of="flask")

FILES = {
    "/download": "/download",
    "/download?inline=1": "/download",
    "/download?name=large.bin": "/download",
    "/css/site.css": "/css/<path:filename>",
    "/images/dot.png": "/images/<name>",
}
"""Target -> route."""


def sent(site: Site, mark: int) -> list[str]:
    """What the server has told of sendfile since."""
    printed = site.output.read_bytes()[mark:].decode()
    return [line for line in printed.splitlines() if line.startswith("sendfile: ")]


@by_gunicorn
@pytest.mark.parametrize("target", FILES)
def test_gunicorn_sends_the_file_itself(site: Site, target: str) -> None:
    """The body that it gets is its own file wrapper, and `sendfile` says that it did it; the
    canonical line, written when the file is closed, has the status and the route."""
    mark = site.output.stat().st_size
    reply, lines = site.exchange("GET", target)
    assert sent(site, mark) == [SENT]
    assert reply.values("Content-Length") == [str(len(reply.body))]
    (last,) = canonical(lines)
    assert (last["status"], last["route"]) == (200, FILES[target])
    assert last["request_id"] == reply.id


@by_gunicorn
def test_what_is_no_file_is_not_sent_so(site: Site) -> None:
    """The probe tells a page and a part of a file from a file."""
    mark = site.output.stat().st_size
    site.exchange("GET", "/")
    site.exchange("GET", "/css/site.css", headers={"Range": "bytes=0-3"})
    assert sent(site, mark) == []

"""Serve the shop to two customers at once, and check every line and every trace of it.

``make demo`` runs this. It copies the shop (``wsgi.py``, ``gunicorn.conf.py`` and ``src/``: an
ordinary Asok application, instrumented with two lines) into a temporary directory, serves it
there with gunicorn on eight threads, and sends alice and bob through it at the same time, each
with a WebSocket open meanwhile (`customers`). Each request and each message carries a token of
its own, and every page and every handler logs the token it got. So the client's side knows,
without asking asok_trace, which request a line belongs to; `check` compares: the request id in
the response's header or in the message's answer, the user, the path, the ip, the connection, and
the exact number of lines. That includes lines of a background job, of a streamed body, of a page
that fails and of one that does not exist. `trees` compares the request trees likewise, which the
shop leaves behind when it is stopped.

It shows a part of the log and a few trees, then the verdict, and exits with 1 if a line or a tree
was not as promised.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "checking"))

import check
import showing
from check import Visit
from customers import ALICE, BOB, MAIL, UNREACHABLE, at_once
from server import Shop

SHOWN_TREES = ("GET /export", "POST /checkout", "GET /broken", "websocket message")


def main() -> int:
    """Run the demo; return its exit status."""
    started = time.monotonic()
    showing.stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="asok-shop-") as directory:
        shop = Shop(Path(directory))
        try:
            shop.install()
            with shop.open(seconds=40) as address:
                visits, messages = at_once(address)
                shop.await_lines(MAIL, sum(_mails(visit) for visit in visits))
        except (*UNREACHABLE, subprocess.SubprocessError) as error:
            print(f"FAILED: the shop could not be visited: {error!r}\n\n{shop.errors()}")
            return 1
        # The server has ended: nothing more will come.
        lines, report = shop.lines(), shop.report()
    users = [str(ALICE.id), str(BOB.id)]
    showing.show(lines, users, "login asked for", "Two customers at once.")
    if not showing.in_order(visits, messages, lines, report, SHOWN_TREES):
        return 1
    likes = sum(message.kind == "message" for message in messages)
    print(
        f"{len(visits)} requests, {likes} WebSocket messages, {len(lines)} lines: "
        f"every line carries its own request, every request has its tree. "
        f"({check.overlapping(lines)} requests overlapped another, "
        f"{time.monotonic() - started:.1f} seconds)"
    )
    return 0


def _mails(visit: Visit) -> int:
    return sum(event == MAIL for event, _ in visit.page.said)


if __name__ == "__main__":
    sys.exit(main())

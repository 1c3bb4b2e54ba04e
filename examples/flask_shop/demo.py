"""Serve the Flask shop to two customers at once, and check every line and every trace of it.

``make demo`` runs this. It serves a copy of the shop with gunicorn on eight threads, sends alice
and bob through it at the same time, and compares what was logged with what they know: the request
id in each response, who they are, what they asked for, and how many lines that makes. That includes
lines of a thread pool, of a mail that is sent after the response, of a streamed body, and of a page
that fails. The request trees, which the shop leaves behind when it is stopped, are compared
likewise. ``../checking`` does the comparing, and never asks asok_trace.

It exits with 1 if a line or a tree was not as promised.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "checking"))

import check
import httpx
import showing
from check import Page, Spans
from serving import Served
from touring import at_once

FILES = ("app.py", "gunicorn.conf.py", "templates", "static")
SERVER = ("gunicorn", "--bind", "{socket}", "app:create_app()")
CUSTOMERS = {"alice": "1", "bob": "2"}
ROUNDS = 3
MAIL = "mail sent"
SHOWN_TREES = ("GET /export.csv", "POST /checkout", "GET /broken")


def main() -> int:
    """Run the demo; return its exit status."""
    started = time.monotonic()
    showing.stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="flask-shop-") as directory:
        shop = Served(Path(__file__).resolve().parent, Path(directory))
        shop.copy(FILES)
        try:
            with shop.serve(*SERVER, seconds=40) as port:
                tours = [(name, partial(tour, name, me)) for name, me in CUSTOMERS.items()]
                visits = at_once(f"http://127.0.0.1:{port}", tours)
                shop.await_lines(MAIL, len(CUSTOMERS) * ROUNDS)
        except (httpx.HTTPError, OSError, subprocess.SubprocessError) as error:
            print(f"FAILED: the shop could not be visited: {error!r}\n\n{shop.errors()}")
            return 1
        # The server has ended: nothing more will come.
        lines, report = shop.lines(), shop.report()
    showing.show(lines, [*CUSTOMERS.values()], "login asked for", "Flask: two customers at once.")
    if not showing.in_order(visits, [], lines, report, SHOWN_TREES):
        return 1
    print(
        f"Flask: {len(visits)} requests, {len(lines)} lines: every line carries its own request, "
        f"every request has its tree. ({check.overlapping(lines)} requests overlapped another, "
        f"{time.monotonic() - started:.1f} seconds)"
    )
    return 0


def tour(name: str, me: str) -> Iterator[Page]:
    """What one customer does in the shop, and what must come of it."""
    yield page("/", None, "catalogue shown")
    yield from (login(name, "a guess", None), login(name, f"{name}'s password", me))
    for _ in range(ROUNDS):
        yield page("/", me, "catalogue shown")
        yield page("/static/shop.css", me, route="/static/<path:filename>")
        for product in ("kettle", "cup"):
            yield Page(
                *("POST", f"/cart/{product}", "/cart/<product>", 302, (("put in cart", me),), me)
            )
        yield checkout(me)
        counted = (("count stock", 2),) * 3
        yield page("/export.csv", me, "export started", "export ended", spans=counted)
        said = (("about to fail", me), ("apologised", me))
        yield Page(
            *("GET", "/broken", "/broken", 500, said, me),
            spans=(("open till", 0),),
            error="RuntimeError",
            names_its_id=True,
        )
        yield Page("GET", "/nowhere", None, 404, (), me)
        yield Page("GET", "/checkout", None, 405, (), me)
    yield Page("POST", "/logout", "/logout", 302, (("logged out", None),), None)
    yield Page("POST", "/checkout", "/checkout", 401, (), None)


def login(name: str, password: str, user: str | None) -> Page:
    said = (("login asked for", None), ("login refused" if user is None else "logged in", user))
    return Page(
        *("POST", "/login", "/login", 401 if user is None else 302, said, user),
        form={"name": name, "password": password},
    )


def checkout(me: str) -> Page:
    return Page(
        *("POST", "/checkout", "/checkout", 200),
        said=tuple((event, me) for event in ("card charged", "order placed", MAIL)),
        user=me,
        spans=(("place order", 5), ("place order > charge card", 5), ("send_receipt", 25)),
        tasks={MAIL: "send_receipt"},
    )


def page(
    path: str, user: str | None, *events: str, spans: Spans = (), route: str | None = None
) -> Page:
    """A page all of whose lines are by one user; its route is its path, if none is given."""
    said = tuple((event, user) for event in events)
    return Page("GET", path, route or path, 200, said, user, spans=spans)


if __name__ == "__main__":
    sys.exit(main())

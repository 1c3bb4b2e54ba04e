"""Serve the shop to two customers at once, and check every line it logs.

``make demo`` runs this. It copies the shop (``wsgi.py`` and ``src/``: an ordinary Asok
application, instrumented with two lines) into a temporary directory, serves it there with
gunicorn on eight threads, and sends alice and bob through it at the same time (`customers`).
Each request carries a token of its own in its query string, and every page logs the token it
got. So the client's side knows, without asking asok_trace, which request a line belongs to;
`check` compares: the request id in the response's header, the user, the path, the ip, and the
exact number of lines. That includes lines of a background job, of a streamed body, of a page
that fails and of one that does not exist.

It shows a part of the log, then the verdict, and exits with 1 if a line was not as promised.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from check import CANONICAL, Line, Visit, complaints, overlapping
from customers import ALICE, BOB, MAIL, at_once
from server import Shop

SHOWN = 28
COMPLAINTS_SHOWN = 20

COLOURS = {str(ALICE.id): "\033[36m", str(BOB.id): "\033[35m"}
PLAIN = "\033[0m"


def main() -> int:
    """Run the demo; return its exit status."""
    started = time.monotonic()
    # An exception, so that the server is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix="asok-shop-") as directory:
        shop = Shop(Path(directory))
        try:
            shop.install()
            with shop.serve(seconds=40) as url:
                visits = at_once(url)
                await_mail(shop, visits)
        except (httpx.HTTPError, subprocess.SubprocessError) as error:
            print(f"FAILED: the shop could not be visited: {error!r}\n\n{shop.errors()}")
            return 1
        lines = shop.lines()  # the server has ended: nothing more will come
    show(lines)
    wrong = complaints(visits, lines)
    if wrong:
        print(f"FAILED: {len(wrong)} complaints")
        print("\n".join(f"  {complaint}" for complaint in wrong[:COMPLAINTS_SHOWN]))
        return 1
    print(
        f"{len(visits)} requests, {len(lines)} lines, every line carries its own request. "
        f"({overlapping(lines)} requests overlapped another; "
        f"{time.monotonic() - started:.1f} seconds)"
    )
    return 0


def await_mail(shop: Shop, visits: Sequence[Visit]) -> None:
    """Wait for what the background jobs log, after the responses; ten seconds at most."""
    expected = sum(event == MAIL for visit in visits for event, _ in visit.page.said)
    deadline = time.monotonic() + 10
    while sum(line.get("event") == MAIL for line in shop.lines()) < expected:
        if time.monotonic() > deadline:
            return  # the check says which are missing
        time.sleep(0.02)


def show(lines: Sequence[Line]) -> None:
    """Print some lines in the order of the log, from the first login on."""
    events = [line.get("event") for line in lines]
    first = events.index("login asked for") if "login asked for" in events else 0
    chosen = lines[first : first + SHOWN]
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print("Two customers at once. From the log, in its order:\n")
    print(f"  {'request_id':10} {'ip':10} {'user':5} {'path':14} event")
    for line in chosen:
        colour = COLOURS.get(str(line.get("user")), "") if coloured else ""
        print(f"{colour}  {_row(line)}{PLAIN if colour else ''}")
    if chosen:
        print(f"\nIn full, such a line is\n\n  {json.dumps(chosen[-1])}\n")


def _row(line: Line) -> str:
    request_id, ip, path, event = (
        str(line.get(key, "")) for key in ("request_id", "ip", "path", "event")
    )
    user = "-" if line.get("user") is None else str(line["user"])
    if event == CANONICAL:
        detail = f"{line.get('method')} {line.get('status')} in {line.get('duration_ms')} ms"
    else:
        detail = f"token={line.get('token')}"
    return f"{request_id[:8]:10} {ip:10} {user:5} {path:14} {event:16} {detail}"


if __name__ == "__main__":
    sys.exit(main())

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

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

import check
import trees
from check import CANONICAL, Line, Message, Visit
from customers import ALICE, BOB, MAIL, UNREACHABLE, at_once
from server import Shop
from trees import Tree

SHOWN = 32
SHOWN_TREES = ("GET /export", "POST /checkout", "GET /broken", "websocket message")
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
            with shop.serve(seconds=40) as address:
                visits, messages = at_once(address)
                await_mail(shop, visits)
        except (*UNREACHABLE, subprocess.SubprocessError) as error:
            print(f"FAILED: the shop could not be visited: {error!r}\n\n{shop.errors()}")
            return 1
        # The server has ended: nothing more will come.
        lines, report = shop.lines(), shop.report()
    show(lines)
    of_lines = check.complaints(visits, messages, lines)
    of_trees = of_report(visits, messages, lines, report)
    if of_lines or of_trees:
        print(f"FAILED: {len(of_lines)} complaints of lines, {len(of_trees)} of trees")
        for complaint in (*of_lines[:COMPLAINTS_SHOWN], *of_trees[:COMPLAINTS_SHOWN]):
            print(f"  {complaint}")
        return 1
    likes = sum(message.kind == "message" for message in messages)
    print(
        f"{len(visits)} requests, {likes} WebSocket messages, {len(lines)} lines: "
        f"every line carries its own request, every request has its tree. "
        f"({check.overlapping(lines)} requests overlapped another, "
        f"{time.monotonic() - started:.1f} seconds)"
    )
    return 0


def of_report(
    visits: Sequence[Visit], messages: Sequence[Message], lines: Sequence[Line], report: str
) -> list[str]:
    """Show some trees of ``report``; return what is wrong with them all."""
    try:
        drawn = trees.parsed(report)
    except ValueError as error:
        return [f"there are no trees: {error}"]
    show_trees(drawn)
    return trees.complaints([*visits, *check.identified(messages, lines)], drawn)


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


def show_trees(drawn: Sequence[Tree]) -> None:
    """Print one tree of each kind in `SHOWN_TREES`."""
    print("A few requests, as asok_trace.report() draws them:\n")
    for kind in SHOWN_TREES:
        for tree in [tree for tree in drawn if tree.name.startswith(kind)][:1]:
            print(indent(tree.text, "  "), end="\n\n")


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

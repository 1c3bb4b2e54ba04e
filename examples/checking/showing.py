"""What a demo prints: a part of the log, a few trees, and what is wrong."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from textwrap import indent

import check
import trees
from check import CANONICAL, Line, Message, Visit
from trees import Tree

LINES = 32
COMPLAINTS = 20

COLOURS = ("\033[36m", "\033[35m", "\033[33m")
PLAIN = "\033[0m"


def stop_on_sigterm() -> None:
    """Make SIGTERM an exception, so that the server is stopped on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))


def in_order(
    visits: Sequence[Visit],
    messages: Sequence[Message],
    lines: Sequence[Line],
    report: str,
    kinds: Sequence[str],
) -> bool:
    """Show a tree of each of ``kinds``, check everything, tell what is wrong, and return whether
    nothing is."""
    of_lines = check.complaints(visits, messages, lines)
    of_trees = _of_report(visits, messages, lines, report, kinds)
    if not of_lines and not of_trees:
        return True
    print(f"FAILED: {len(of_lines)} complaints of lines, {len(of_trees)} of trees")
    for complaint in (*of_lines[:COMPLAINTS], *of_trees[:COMPLAINTS]):
        print(f"  {complaint}")
    return False


def show(lines: Sequence[Line], users: Sequence[str], first: str, title: str) -> None:
    """Print some lines in the order of the log, from the first event ``first`` on, each of
    ``users`` in a colour."""
    events = [line.get("event") for line in lines]
    start = events.index(first) if first in events else 0
    chosen = lines[start : start + LINES]
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    colours = dict(zip(users, COLOURS, strict=False)) if coloured else {}
    width = max([14, *(len(str(line.get("path", ""))) for line in chosen)])
    print(f"{title} From the log, in its order:\n")
    print(f"  {'request_id':10} {'ip':10} {'user':5} {'path':{width}} event")
    for line in chosen:
        colour = colours.get(str(line.get("user")), "")
        print(f"{colour}  {_row(line, width)}{PLAIN if colour else ''}")
    if chosen:
        print(f"\nIn full, such a line is\n\n  {json.dumps(chosen[-1])}\n")


def _of_report(
    visits: Sequence[Visit],
    messages: Sequence[Message],
    lines: Sequence[Line],
    report: str,
    kinds: Sequence[str],
) -> list[str]:
    try:
        drawn = trees.parsed(report)
    except ValueError as error:
        return [f"there are no trees: {error}"]
    _show_trees(drawn, kinds)
    return trees.complaints([*visits, *check.identified(messages, lines)], drawn)


def _show_trees(drawn: Sequence[Tree], kinds: Sequence[str]) -> None:
    print("A few requests, as asok_trace.report() draws them:\n")
    for kind in kinds:
        for tree in [tree for tree in drawn if tree.name.startswith(kind)][:1]:
            print(indent(tree.text, "  "), end="\n\n")


def _row(line: Line, width: int) -> str:
    request_id, ip, path, event = (
        str(line.get(key, "")) for key in ("request_id", "ip", "path", "event")
    )
    user = "-" if line.get("user") is None else str(line["user"])
    if event == CANONICAL:
        detail = f"{line.get('method')} {line.get('status')} in {line.get('duration_ms')} ms"
    else:
        detail = f"token={line.get('token')}"
    return f"{request_id[:8]:10} {ip:10} {user:5} {path:{width}} {event:16} {detail}"

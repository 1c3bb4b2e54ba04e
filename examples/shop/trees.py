"""The promises of the demo, held against the request trees that `asok_trace.report()` draws."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from check import ABSENT, Spans, Visit, Work

_ROOT = re.compile(
    r"(?P<name>\S.*?)  (?P<ms>\d+\.\d) ms(?P<failed>  ERROR)?"
    r"(?P<about>(?:  [\w.]+=\S*)*)  trace (?P<trace>[0-9a-f]{32})"
)
_BELOW = re.compile(r"(?P<indent>(?:│  |   )*)[├└]─ (?P<name>\S.*?)  (?P<ms>\d+\.\d) ms.*")


@dataclass(frozen=True)
class Tree:
    """One request as `asok_trace.report()` drew it."""

    text: str
    name: str
    failed: bool
    about: Mapping[str, str]
    trace_id: str
    spans: Spans
    """The steps below the root, in order, with the milliseconds they took."""


def parsed(report: str) -> list[Tree]:
    """Return the trees of ``report``.

    Raises:
        ValueError: it is none.
    """
    return [_tree(text) for text in report.strip().split("\n\n")]


def complaints(work: Sequence[Work], trees: Sequence[Tree]) -> list[str]:
    """Return whatever is wrong, in words: an empty list if every promise is kept."""
    by_id: dict[str, list[Tree]] = {}
    for tree in trees:
        by_id.setdefault(tree.about.get("request.id", ABSENT), []).append(tree)
    wrong: list[str] = []
    for one in work:
        own = by_id.pop(one.request_id or ABSENT, [])
        if len(own) != 1:
            wrong.append(f"{one}: {len(own)} trees have its id, not 1")
        else:
            wrong += _of_tree(one, own[0])
    wrong += [f"a tree of no request: {tree.text}" for own in by_id.values() for tree in own]
    return wrong


def _of_tree(one: Work, tree: Tree) -> Iterator[str]:
    """The tree of a request says of it what its client knows."""
    if isinstance(one, Visit):
        page = one.page
        name = page.method if page.route is None else f"{page.method} {page.route}"
        path, user, spans, failed = page.path, page.user, page.spans, one.status >= 500
    else:
        name = f"websocket {one.kind} {one.route}"
        path, user, spans, failed = one.path, one.user, one.spans, False
    for what, found, expected in (
        ("named", tree.name, name),
        ("of trace", tree.trace_id, one.request_id),
        ("about url.path", tree.about.get("url.path", ABSENT), path),
        ("about user.id", tree.about.get("user.id", ABSENT), user or ABSENT),
        ("failed", tree.failed, failed),
    ):
        if found != expected:
            yield f"{one}: the tree is {what} {found!r}, not {expected!r}"
    if Counter(name for name, _ in tree.spans) != Counter(name for name, _ in spans):
        yield f"{one}: below the root are {_named(tree.spans)}, not {_named(spans)}"
    for name, at_least in spans:
        for took in (took for found, took in tree.spans if found == name):
            if took < at_least:
                yield f"{one}: {name!r} took {took} ms, not at least {at_least}"


def _tree(text: str) -> Tree:
    first, *below = text.split("\n")
    root = _ROOT.fullmatch(first)
    if root is None:
        raise ValueError(f"not the root of a tree: {first!r}")
    above: list[str] = []
    spans = []
    for line in below:
        span = _BELOW.fullmatch(line)
        if span is None:
            raise ValueError(f"not a branch of a tree: {line!r}")
        above[len(span["indent"]) // 3 :] = [span["name"]]
        spans.append((" > ".join(above), float(span["ms"])))
    about = dict(pair.split("=", 1) for pair in root["about"].split())
    failed = root["failed"] is not None
    return Tree(text, root["name"], failed, about, root["trace"], tuple(spans))


def _named(spans: Spans) -> str:
    return ", ".join(repr(name) for name, _ in spans) or "none"

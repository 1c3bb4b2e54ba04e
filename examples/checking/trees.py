"""The promises of the demo, held against the request trees that `asok_trace.report()` draws."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    took: float
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
        found = by_id.pop(one.request_id or ABSENT, [])
        # Work that began after the response has the same id, and a trace of its own.
        later = [tree for tree in found if tree.name in one.tasks.values()]
        own = [tree for tree in found if tree not in later]
        if len(own) != 1:
            wrong.append(f"{one}: {len(own)} trees have its id, not 1")
        else:
            wrong += _of_tree(one, own[0], later)
    wrong += [f"a tree of no request: {tree.text}" for own in by_id.values() for tree in own]
    return wrong


def _of_tree(one: Work, tree: Tree, later: Sequence[Tree]) -> Iterator[str]:
    """The tree of a request says of it what its client knows, and so do the trees of what went on
    later."""
    if isinstance(one, Visit):
        page = one.page
        name = page.method if page.route is None else f"{page.method} {page.route}"
        path, user, spans, failed = page.path, page.user, page.spans, one.status >= 500
    else:
        name = f"websocket {one.kind} {one.route}"
        path, user, spans, failed = one.path, one.user, one.spans, False
    below = [*tree.spans, *(span for task in later for span in _as_branch(task))]
    for what, found, expected in (
        ("named", tree.name, name),
        ("of trace", tree.trace_id, one.request_id),
        *(("about url.path", each.about.get("url.path", ABSENT), path) for each in (tree, *later)),
        *(
            ("about user.id", each.about.get("user.id", ABSENT), user or ABSENT)
            for each in (tree, *later)
        ),
        ("failed", tree.failed, failed),
    ):
        if found != expected:
            yield f"{one}: the tree is {what} {found!r}, not {expected!r}"
    if Counter(name for name, _ in below) != Counter(name for name, _ in spans):
        yield f"{one}: below the root are {_named(below)}, not {_named(spans)}"
    for name, at_least in spans:
        for took in (took for found, took in below if found == name):
            if took < at_least:
                yield f"{one}: {name!r} took {took} ms, not at least {at_least}"


def _as_branch(tree: Tree) -> Iterator[tuple[str, float]]:
    """The steps that ``tree`` would be below a root."""
    yield tree.name, tree.took
    for name, took in tree.spans:
        yield f"{tree.name} > {name}", took


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
    took = float(root["ms"])
    return Tree(text, root["name"], took, failed, about, root["trace"], tuple(spans))


def _named(spans: Iterable[tuple[str, float]]) -> str:
    return ", ".join(repr(name) for name, _ in spans) or "none"

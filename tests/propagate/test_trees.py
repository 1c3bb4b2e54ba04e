"""Random trees of work, started in many requests at once: every line of every node carries exactly
its own request, and none is missing. needs: asok"""

import logging
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import asok_trace
from tests.gateway.sites import Site
from tests.propagate.lines import SECONDS, Line
from tests.propagate.trees import KINDS, Forest, Node, log

Kind = st.sampled_from(KINDS)
Tree = st.recursive(
    st.builds(Node, Kind, st.just([])),
    lambda below: st.builds(Node, Kind, st.lists(below, min_size=1, max_size=3)),
    max_leaves=6,
)
Request = st.tuples(st.sampled_from(["wsgi", "asgi"]), st.lists(Tree, min_size=1, max_size=3))


def run(forest: Forest, requests: list[tuple[str, list[Node]]]) -> list[tuple[str, str, Any]]:
    """Send all requests at once; return what the lines of each node have to say."""
    together = threading.Barrier(len(requests), timeout=SECONDS)
    failed: list[BaseException] = []
    roots = [Node("wsgi", trees) for _, trees in requests]

    def request(client: str, root: Node) -> None:
        try:
            together.wait()
            forest.request(client, root)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=request, args=(client, root))
        for (client, _), root in zip(requests, roots, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS * 2)
    forest.end()
    if failed:
        raise failed[0]
    return [wanted for root in roots for wanted in root.expected(root.name)]


def expect(
    site: Site,
    lines: list[Line],
    records: list[logging.LogRecord],
    requests: list[tuple[str, list[Node]]],
) -> None:
    """Run ``requests``; both ways to log say of every node what they have to."""
    lines.clear()
    records.clear()
    forest = Forest(site, log)
    try:
        wanted = Counter(run(forest, requests))
    finally:
        forest.close()
    by_structlog = [
        (line["event"], line.get("request_id"), line.get("task"))
        for line in lines
        if line["event"].startswith("node-")
    ]
    by_stdlib = [
        (record.getMessage(), getattr(record, "request_id", None), getattr(record, "task", None))
        for record in records
        if record.name == "trees"
    ]
    assert Counter(by_structlog) == wanted
    assert Counter(by_stdlib) == wanted


@settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(requests=st.lists(Request, min_size=2, max_size=4))
def test_every_line_carries_its_own_request(
    shop: Site,
    lines: list[Line],
    records: list[logging.LogRecord],
    requests: list[tuple[str, list[Node]]],
) -> None:
    """Two to four requests at once, over WSGI and ASGI, each with its trees."""
    with asok_trace.propagate_threads("carry"):
        expect(shop, lines, records, requests)


@pytest.mark.parametrize("above", KINDS)
def test_every_kind_below_every_other(
    shop: Site, lines: list[Line], records: list[logging.LogRecord], above: str
) -> None:
    """No pair is left to chance."""
    trees = [Node(above, [Node(below, [Node("call", [])]) for below in KINDS])]
    with asok_trace.propagate_threads("carry"):
        expect(shop, lines, records, [("wsgi", trees), ("asgi", [Node(above, [])])])

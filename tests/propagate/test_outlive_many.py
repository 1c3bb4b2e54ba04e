"""Many tasks that outlive one request: at once, and started by each other. needs: asok"""

import threading
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from asok_trace import current, wrap
from tests.gateway.sites import Reply, Site
from tests.propagate.lines import SECONDS, Line, elsewhere, ids, named, say, span
from tests.propagate.test_outlive import BOTH, Made, charge, finished, page

Call = Callable[..., Reply]


@BOTH
def test_many_runs_at_once(
    shop: Site,
    call: Call,
    lines: list[Line],
    spans: InMemorySpanExporter,
    function: Callable[..., Any],
) -> None:
    """All in it at the same time, each with a scope and a span of its own."""
    together = threading.Barrier(8, timeout=SECONDS)

    def run(number: int) -> Any:
        asok_trace.bind(number=number)
        together.wait()
        say("charging", given=str(number))
        together.wait()
        return current()

    async def run_async(number: int) -> Any:
        return run(number)

    wanted: Any = run if function is charge else run_async
    made = page(shop, lambda: wrap(wanted, outlive=True))
    reply = call(shop.app, "/page")
    scopes: list[Any] = []

    def start(number: int) -> None:
        scopes.append(finished(made[0](number)))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len({id(scope) for scope in scopes}) == 8
    assert not any(scope.open for scope in scopes)
    assert ids(lines, "charging") == [reply.ids[0]] * 8
    assert all(line["number"] == line["given"] for line in lines if line["event"] == "charging")
    tasks = [found for found in spans.get_finished_spans() if found.name == wanted.__name__]
    assert len({found.context.span_id for found in tasks}) == 8


def test_outlive_within_outlive(
    shop: Site, call: Call, lines: list[Line], spans: InMemorySpanExporter
) -> None:
    """The inner task has the request's id and its own name; its span is below the outer's while
    that runs, and afterwards a root with a link to it."""
    kept: Made = []

    def inner() -> None:
        say("inner")

    def outer() -> None:
        asok_trace.bind(step="outer")
        kept.append(wrap(inner, outlive=True))
        elsewhere(kept[0])
        say("outer")

    made = page(shop, lambda: wrap(outer, outlive=True))
    reply = call(shop.app, "/page")
    elsewhere(made[0])
    elsewhere(kept[0])
    within, after = [line for line in lines if line["event"] == "inner"]
    assert ids(lines, "inner") == ids(lines, "outer") * 2 == [reply.ids[0]] * 2
    assert (within["task"], within["step"], within["user"]) == ("inner", "outer", "7")
    assert named(lines, "outer")["task"] == "outer"
    below, later = [found for found in spans.get_finished_spans() if found.name == "inner"]
    above = span(spans, "outer")
    assert below.parent == above.context
    assert later.parent is None
    assert [link.context for link in later.links] == [above.context]
    assert after["trace_id"] == f"{later.context.trace_id:032x}"

"""Very many lines outside any request, from very many places: memory stays bounded."""

import gc
import tracemalloc
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import structlog

import asok_trace
from asok_trace.core import findings

MIB = 1024 * 1024


@pytest.fixture
def log() -> Any:
    """A logger of structlog whose lines go nowhere."""
    findings.serve()
    return structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[asok_trace.inject, lambda *_: ""]
    )


def many_places(number: int) -> list[CodeType]:
    """Programs that log once, each in code of its own."""
    return [
        compile(f"def place_{one}(): log.info('at place {one}')\nplace_{one}()", "made.py", "exec")
        for one in range(number)
    ]


def visit(places: list[CodeType], log: Any) -> None:
    """Log at each of them."""
    for number, place in enumerate(places):
        exec(place, {"__name__": f"made_{number}", "log": log})


def test_ten_thousand_places(log: Any) -> None:
    """The first are kept, all are counted, and it takes less than three megabytes."""
    places = many_places(10_000)
    visit(places[:10], log)
    findings.clear()
    findings.serve()
    tracemalloc.start()
    try:
        visit(places, log)
        gc.collect()  # the functions
        # Not what whoever measures coverage keeps of each of them.
        ours = [tracemalloc.Filter(True, str(Path(asok_trace.__file__).parent / "*"))]
        grown = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)
    finally:
        tracemalloc.stop()
    assert findings.counts() == {"outside": 10_000}
    assert len(findings.sites) == findings.SITES
    assert grown < 3 * MIB


def test_many_hits_at_one_place(log: Any) -> None:
    """One finding, with all of them counted, and no memory at all."""
    number = 100_000

    def tick(times: int) -> None:
        for _ in range(times):
            log.info("tick")

    tick(10)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tick(number)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert [finding.count for finding in asok_trace.findings()] == [number + 10]
    assert grown < 0.1 * MIB

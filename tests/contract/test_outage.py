"""A collector that is down, slow or broken while an application serves many users: no request fails
or waits, memory stays bounded, what is lost is counted and told once, and it recovers by itself.

needs: asok, flask, quart, gunicorn, uvicorn, opentelemetry.exporter.otlp.proto.http
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.outage import (
    DOWN,
    LATE,
    ROOM,
    SECONDS,
    SILENT,
    STATES,
    Collector,
    collecting,
    running,
    told,
)
from tests.serving import Served

FRAMEWORKS = ["asok", "flask", "quart"]
THINGS = ("spans", "log lines", "metrics")
LOST = ("spans are being lost", "log lines are being lost", "metrics are not exported")
AGAIN = tuple(f"{things} are exported again" for things in THINGS)


class Site:
    """An application that runs, and its collector."""

    def __init__(self, server: Served, collector: Collector, folder: Path) -> None:
        self.server = server
        self.collector = collector
        self._folder = folder

    def load(self) -> None:
        """Eight users at once, each of whom gets ten answers."""
        statuses: list[int] = []

        def use() -> None:
            statuses.extend(self.server.get("/work").status for _ in range(10))

        users = [threading.Thread(target=use) for _ in range(8)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert statuses == [200] * 80

    def told(self) -> Any:
        """What the application says of its queues."""
        said = told(self._folder)
        assert max(said["queued"]) <= ROOM
        return said

    def lines(self, since: int, of: tuple[str, ...]) -> list[str]:
        """Of these, what it has said since, in this order."""
        said = [line["message"] for line in self.own(since)]
        return [one for one in of for line in said if line.startswith(f"asok_trace: {one}")]

    def own(self, since: int) -> list[dict[str, Any]]:
        """The lines that asok_trace has logged since."""
        return [line for line in self.server.lines[since:] if line.get("name") == "asok_trace"]

    def until_told(self, since: int, of: tuple[str, ...]) -> None:
        """Wait until each of these is said, while one user works on."""
        deadline = time.monotonic() + SECONDS
        while len(self.lines(since, of)) < len(of):
            assert time.monotonic() < deadline, (self.lines(since, of), self.server.output)
            assert self.server.get("/work").status == 200
            self.told()
            time.sleep(0.05)

    def assert_counted(self) -> None:
        """Of what has ended, what did not arrive is what was counted, and it stays so."""
        deadline = time.monotonic() + SECONDS
        agreed = 0
        while agreed < 2:
            said = self.told()
            arrived = {"traces": len(self.collector.spans), "logs": len(self.collector.logs)}
            missing = {
                signal: number - said["dropped"][signal] for signal, number in said["ended"].items()
            }
            agreed = agreed + 1 if missing == arrived else 0
            assert time.monotonic() < deadline, (said, arrived)
            time.sleep(0.05)

    def assert_exported(self) -> None:
        """The next request's span and lines arrive."""
        [trace_id] = self.server.get("/work").ids
        deadline = time.monotonic() + SECONDS
        spans: list[str] = []
        lines: list[str] = []
        while spans != ["GET /work"] or not {"working", "request"} <= set(lines):
            assert time.monotonic() < deadline, (spans, lines)
            time.sleep(0.05)
            spans = [span.name for span in self.collector.spans if span.trace_id == trace_id]
            lines = [line.message for line in self.collector.logs if line.trace_id == trace_id]


@pytest.mark.parametrize(
    ("framework", "states"),
    [("asok", STATES[:3]), ("flask", STATES), ("quart", STATES[:3])],
    ids=FRAMEWORKS,
)
def test_an_outage(framework: str, states: Sequence[str], tmp_path: Path) -> None:
    """Of each kind, one after the other: while eighty requests are answered it takes nothing. All
    that is said of it is one line for what is lost and one when it is over, for spans, log lines
    and metrics each."""
    with (
        collecting(DOWN) as collector,
        running(framework, tmp_path, collector, OTEL_EXPORTER_OTLP_TIMEOUT="2") as server,
    ):
        site = Site(server, collector, tmp_path)
        for state in states:
            since, before = len(server.lines), site.told()["dropped"]
            collector.fail(state)
            site.until_told(since, LOST)
            answered = collector.answered
            site.load()
            assert collector.answered == answered, state
            assert collector.state == state
            collector.recover()
            site.until_told(since, AGAIN)
            site.assert_counted()
            assert site.lines(since, LOST + AGAIN) == [*LOST, *AGAIN], state
            assert len(site.own(since)) == 6, state
            after = site.told()["dropped"]
            assert all(after[signal] > number for signal, number in before.items()), state
            site.assert_exported()
        names = {line.get("name", "") for line in server.lines}
        assert not {name for name in names if name.startswith(("opentelemetry", "urllib3"))}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_slow_collector(framework: str, tmp_path: Path) -> None:
    """Eighty requests are answered before it has answered one. What there was no room for meanwhile
    is counted; what it was given at last arrives."""
    with (
        collecting(LATE) as collector,
        running(framework, tmp_path, collector, OTEL_EXPORTER_OTLP_TIMEOUT="600") as server,
    ):
        site = Site(server, collector, tmp_path)
        since = len(server.lines)
        site.load()
        assert collector.answered == 0
        assert site.told()["dropped"]["traces"] >= 80 - ROOM - ROOM // 2
        assert site.own(since) == []
        collector.recover()
        site.until_told(since, AGAIN[:2])
        site.assert_counted()
        messages = [line["message"] for line in site.own(since)]
        assert len(messages) == 4
        assert sum("there are more than can be exported" in said for said in messages) == 2


@pytest.mark.parametrize("framework", ["flask", "quart"], ids=["gunicorn", "uvicorn"])
@pytest.mark.parametrize("state", [DOWN, SILENT, "503"])
def test_a_server_that_is_stopped_meanwhile(framework: str, state: str, tmp_path: Path) -> None:
    """It ends, while a collector that may take ten minutes has taken nothing, or tells to come
    again."""
    with (
        collecting(state) as collector,
        running(framework, tmp_path, collector, OTEL_EXPORTER_OTLP_TIMEOUT="600") as server,
    ):
        Site(server, collector, tmp_path).load()
        server.stop()
        assert collector.answered == 0

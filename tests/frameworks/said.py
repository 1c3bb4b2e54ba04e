"""Saying something in the log, and what became of it."""

from collections.abc import Callable
from typing import Any

import structlog

Hook = Callable[[Any], Any]
Line = dict[str, Any]


def say(event: str, **keys: Any) -> None:
    """Log a line through structlog."""
    structlog.get_logger().info(event, **keys)


def named(lines: list[Line], event: str) -> Line:
    """The only line of this event."""
    [found] = [line for line in lines if line["event"] == event]
    return found


def canonical(lines: list[Line]) -> Line:
    """The only canonical line."""
    return named(lines, "request")


def users(lines: list[Line], *events: str) -> list[object]:
    """The user of the line of each event; "absent" where it says nothing."""
    return [named(lines, event).get("user", "absent") for event in events]


def stamped(lines: list[Line], path: str, *events: str) -> None:
    """Every event has a line of this path, and all are of one request."""
    found = [named(lines, event) for event in events]
    assert [line.get("path") for line in found] == [path] * len(events)
    assert len({line["request_id"] for line in found}) == 1


def bare(lines: list[Line], *events: str) -> None:
    """Every event has a line that says nothing of any request."""
    for event in events:
        assert not {"request_id", "ip", "user", "path"} & named(lines, event).keys()


def ids(lines: list[Line], *events: str) -> list[str]:
    """The request id of the line of each event."""
    return [named(lines, event)["request_id"] for event in events]

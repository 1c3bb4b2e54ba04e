"""What the pytest plugin says at the end of the run: each place once, with the tests it is in."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Final, TypedDict

import pytest

from asok_trace.core.finding import KINDS, Finding

_NAMED: Final = 3
"""Tests that are named for one place; further ones are counted."""


class Row(TypedDict):
    """A finding of one test, as pytest-xdist can send it."""

    finding: dict[str, Any]
    test: str
    after: bool
    """Whether it showed after the test had ended."""


def row(finding: Finding, test: str, *, after: bool) -> Row:
    """Return ``finding`` as a `Row`."""
    return {"finding": dataclasses.asdict(finding), "test": test, "after": after}


def write(reporter: pytest.TerminalReporter, rows: Iterable[Row], *, strict: bool) -> None:
    """Write what was found, by its kind."""
    merged: dict[tuple[str, str, str], tuple[Finding, dict[str, bool]]] = {}
    for each in rows:
        finding = Finding(**each["finding"])
        place = (finding.slug, finding.key, finding.callsite)
        known, tests = merged.setdefault(place, (finding, {}))
        if known is not finding:
            merged[place] = dataclasses.replace(known, count=known.count + finding.count), tests
        tests[each["test"]] = each["after"] or tests.get(each["test"], False)
    if not merged:
        return
    reporter.section(f"asok_trace: {counted(len(merged))}", yellow=True)
    for slug in KINDS:
        found = [about for place, about in merged.items() if place[0] == slug]
        for finding, tests in found:
            reporter.write_line(str(finding))
            names = list(tests)
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            reporter.write_line(f"  {'tests':<8} {', '.join(names[:_NAMED])}{more}")
            late = [name for name in names if tests[name]]
            if late:
                reporter.write_line(
                    f"  {'late':<8} it showed after {late[0]} had ended"
                    + (": this fails the run" if strict else ""),
                    red=strict,
                )
            reporter.write_line("")
    totals = [
        (slug, [finding.count for (found, *_), (finding, _) in merged.items() if found == slug])
        for slug in KINDS
    ]
    reporter.write_line(
        ", ".join(f"{slug} {sum(times)} at {_places(times)}" for slug, times in totals if times)
    )


def counted(number: int) -> str:
    """``2 findings``."""
    return f"{number} finding" + ("" if number == 1 else "s")


def _places(times: list[int]) -> str:
    return f"{len(times)} place" + ("" if len(times) == 1 else "s")

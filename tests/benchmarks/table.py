"""The printed table: bad numbers are written as they are."""

import math
from typing import NamedTuple

from tests.benchmarks.measure import Spread


class Line(NamedTuple):
    """One line of the table."""

    goal: str
    what: str
    against: str
    value: str
    quartiles: str = ""
    added: str = ""
    limit: str = ""
    verdict: str = ""


HEAD = Line("goal", "what", "against", "ratio", "p25-p75", "adds", "must", "")

INSTRUCTIONS_HEAD = HEAD._replace(quartiles="", added="Ir added")

MEMORY_HEAD = Line("goal", "what", "", "value", "", "", "must", "")


def ratio_line(
    goal: str, what: str, against: str, ratio: Spread, added_ns: float, limit: float | None
) -> Line:
    """Return the line of a comparison in time."""
    quartiles = f"{ratio.low:.2f}-{ratio.high:.2f}"
    added = f"{added_ns:,.0f} ns" if added_ns < 10_000 else f"{added_ns / 1000:,.1f} us"
    must, verdict = _judged(ratio.median, limit)
    if verdict and not ratio.low > 0:  # the difference itself is lost in the noise
        verdict = "too noisy"
    return Line(goal, what, against, f"{ratio.median:.2f} x", quartiles, added, must, verdict)


def instructions_line(
    goal: str, what: str, against: str, ratio: float, added: float, limit: float | None
) -> Line:
    """Return the line of a comparison in instructions."""
    if math.isnan(ratio):
        return Line(goal, what, against, "nan", verdict="not counted on this Python")
    return Line(goal, what, against, f"{ratio:.2f} x", "", f"{added:,.0f}", *_judged(ratio, limit))


def memory_line(goal: str, what: str, value: float, unit: str, limit: float) -> Line:
    """Return the line of an absolute number."""
    digits = 0 if unit != "MiB" else 2
    return Line(
        goal,
        what,
        "",
        f"{value:,.{digits}f} {unit}",
        limit=f"<= {limit:g}",
        verdict="met" if value <= limit else "missed",
    )


def _judged(value: float, limit: float | None) -> tuple[str, str]:
    if limit is None:
        return "", ""
    return f"<= {limit:g} x", "met" if value <= limit else "missed"


def rendered(head: Line, lines: list[Line]) -> str:
    """Return ``lines`` under ``head`` in columns."""
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    rule = Line(*("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            _padded(column, cell, width) for column, (cell, width) in enumerate(cells)
        ).rstrip()
        for cells in (zip(line, widths, strict=True) for line in [head, rule, *lines])
    )


def _padded(column: int, cell: str, width: int) -> str:
    numeric = 3 <= column <= 5
    return cell.rjust(width) if numeric else cell.ljust(width)

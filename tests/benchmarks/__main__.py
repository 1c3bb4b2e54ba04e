"""``python -m tests.benchmarks [--quick] [--ir]``: measure, and print what was found."""

import argparse
import os
import platform
import sys
import time

from tests.benchmarks import instructions, measure, memory, rows, table
from tests.benchmarks.measure import Plan
from tests.benchmarks.rows import Comparison


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it runs: no good numbers")
    parser.add_argument("--ir", action="store_true", help="count instructions, too (valgrind)")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows that contain this text")
    return parser.parse_args()


def chosen(only: str) -> list[list[Comparison]]:
    """The comparisons whose goal or description contains ``only``, by process."""
    wanted = [
        [row for row in group if only.lower() in f"{row.goal} {row.what}".lower()]
        for group in rows.groups()
    ]
    return [group for group in wanted if group]


def times(groups: list[list[Comparison]], plan: Plan) -> list[table.Line]:
    """Measure the comparisons in time."""
    lines = []
    for group in groups:
        print(f"  measuring: {group[0].what}", file=sys.stderr, flush=True)
        turns = plan.turns * max(row.effort for row in group)
        blocks = measure.measured(rows.slots(group), plan._replace(turns=turns))
        every = [turn for block in blocks for turn in block]
        for row in group:
            (_, zero), (_, base), (_, ours) = row.slots
            ratio = measure.ratio(blocks, ours, base, zero)
            added = measure.added(every, ours, zero)
            lines.append(table.ratio_line(row.goal, row.what, base, ratio, added, row.limit))
    return lines


def counts(groups: list[list[Comparison]]) -> list[table.Line]:
    """Measure the comparisons in instructions."""
    wanted = [row for group in groups for row in group if instructions.countable(row.ours)]
    print("  counting instructions: a minute or two", file=sys.stderr, flush=True)
    found = instructions.counts(rows.slots(wanted))
    lines = []
    for row in wanted:
        zero, base, ours = (found[slot] for slot in row.slots)
        ratio, against = (ours - zero) / (base - zero or float("nan")), row.base[1]
        lines.append(
            table.instructions_line(row.goal, row.what, against, ratio, ours - zero, row.limit)
        )
    return lines


def sizes(*, quick: bool) -> list[table.Line]:
    """Measure memory."""
    requests = memory.QUICK_REQUESTS if quick else memory.REQUESTS
    print(f"  measuring: memory over {requests:,} requests", file=sys.stderr, flush=True)
    found = memory.measured(requests)
    over = f"growth over {requests:,} requests"
    return [
        table.memory_line(
            "G13", "an open scope that was logged in", found["scope_bytes"], "B", 600
        ),
        table.memory_line("G13", "scopes left after their requests", found["left"], "", 0),
        table.memory_line("G13", over, found["growth"], "MiB", 1),
        table.memory_line("G13", f"{over}, second half", found["second_half"], "MiB", 0.1),
    ]


def main() -> None:
    """Measure what was asked for and print it."""
    asked = options()
    if asked.ir and not instructions.available():
        sys.exit(instructions.MISSING)
    started = time.monotonic()
    measure.pin()
    groups = chosen(asked.only)
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    print()
    found = times(groups, measure.QUICK if asked.quick else measure.FULL)
    print(table.rendered(table.HEAD, found))
    if asked.ir:
        print()
        print(table.rendered(table.INSTRUCTIONS_HEAD, counts(groups)))
    if not asked.only:
        print()
        print(table.rendered(table.MEMORY_HEAD, sizes(quick=asked.quick)))
    print()
    print(f"Ratios of CPU time, measured in turns. Took {time.monotonic() - started:.0f} s.")
    if asked.quick:
        print("Measured far too briefly to mean anything.")


if __name__ == "__main__":
    main()

"""Turns, medians and quartiles: how the ratios are measured.

The cases of one comparison run in slices of some milliseconds in the order A B C C B A, so that
a steady drift of the machine cancels out within each turn. The processes are pinned to one core,
the clock counts CPU time, and several fresh processes with hash seeds of their own take part,
because the layout of one process in memory is luck.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

ROOT = Path(__file__).parents[2]

Times = Mapping[str, float]
"""Nanoseconds per operation of each case, averaged over one turn."""


class Plan(NamedTuple):
    """How long to measure."""

    processes: int
    turns: int
    slice_ns: int
    block: int
    """Turns whose medians make one value of the distribution."""


FULL = Plan(processes=3, turns=40, slice_ns=4_000_000, block=8)
QUICK = Plan(processes=1, turns=2, slice_ns=300_000, block=1)


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


def pin() -> None:
    """Keep this process, and those it starts, on one core. Where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def command(*arguments: str) -> list[str]:
    """How the worker process is started."""
    return [sys.executable, "-m", "tests.benchmarks.worker", *arguments]


def environment(seed: int) -> dict[str, str]:
    """The environment of a worker process: ours, without what would change what it measures."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ASOK", "OTEL_", "PYTHON"))}
    secret = "a-key-for-benchmarks-that-is-long-enough-0123456789"
    return kept | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT), "SECRET_KEY": secret}


class Worker:
    """A process that runs slices of the cases of one setting whenever it is told to."""

    def __init__(self, setting: str, seed: int, slice_ns: int) -> None:
        self._process = subprocess.Popen(
            command(setting),
            env=environment(seed),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._slice_ns = slice_ns
        self._sizes: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def slice(self, case: str) -> float:
        """Return the nanoseconds per operation of one slice of ``case``."""
        if case not in self._sizes:
            self._run(case, 60)  # what the interpreter specialises, it has specialised by then
            start = time.perf_counter_ns()
            self._run(case, 60)
            took = time.perf_counter_ns() - start  # of which a case may time a part only
            self._sizes[case] = max(1, round(self._slice_ns * 60 / took))
        return self._run(case, self._sizes[case])

    def _run(self, case: str, operations: int) -> float:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(f"{case} {operations}\n")
        pipe_in.flush()
        answer = pipe_out.readline()
        if not answer:
            raise RuntimeError(f"the worker process of {case!r} has died")
        return max(int(answer), 1) / operations


Slot = tuple[str, str]
"""A setting, in a process of its own, and a case that it has."""


@contextmanager
def workers(slots: Sequence[Slot], seed: int, plan: Plan) -> Iterator[dict[str, Worker]]:
    """Start one process for each setting of ``slots``."""
    with ExitStack() as stack:
        settings = dict.fromkeys(setting for setting, _ in slots)
        yield {
            setting: stack.enter_context(Worker(setting, seed, plan.slice_ns))
            for setting in settings
        }


def turns(slots: Sequence[Slot], seed: int, plan: Plan) -> Iterator[Times]:
    """Run all ``slots`` in turns, there and back again, and yield the times of each turn."""
    with workers(slots, seed, plan) as running:
        for number in range(-1, plan.turns):
            there = [running[setting].slice(case) for setting, case in slots]
            back = [running[setting].slice(case) for setting, case in reversed(slots)]
            if number >= 0:  # the first one warms up
                pairs = zip(slots, there, reversed(back), strict=True)
                yield {case: (one + two) / 2 for (_, case), one, two in pairs}


def measured(slots: Sequence[Slot], plan: Plan) -> list[list[Times]]:
    """Return the turns of all processes, in blocks."""
    blocks = []
    for seed in range(1, plan.processes + 1):
        found = list(turns(slots, seed, plan))
        blocks += [found[i : i + plan.block] for i in range(0, len(found), plan.block)]
    return blocks


def added(block: Sequence[Times], case: str, zero: str) -> float:
    """Return the nanoseconds that ``case`` adds to ``zero``: the median of the turns."""
    return statistics.median(times[case] - times[zero] for times in block)


def ratio(blocks: Sequence[Sequence[Times]], ours: str, base: str, zero: str) -> Spread:
    """Return what ``ours`` adds to ``zero``, relative to what ``base`` adds."""
    return spread(
        [added(block, ours, zero) / (added(block, base, zero) or float("nan")) for block in blocks]
    )


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of ``values``."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), low, high)

"""The same comparisons in instructions: they repeat within half a per cent, on any machine.

``valgrind --tool=callgrind`` counts while the worker is inside C's ``ffi_call``, through which it
runs its one slice. Requests are left out: a million instructions each, they differ by a few per
cent from process to process, which is as much as we add, and their cost is in cold caches anyway.
"""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks import measure
from tests.benchmarks.measure import Slot

MISSING = "--ir needs valgrind, which is not installed: apt-get install valgrind"

_OPERATIONS = {"lines": 5_000, "records": 2_000, "registry": 2_000}


def available() -> bool:
    """Whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def countable(slot: Slot) -> bool:
    """Whether this case repeats well enough to be counted."""
    return slot[0].partition(".")[0] in _OPERATIONS


def count(slot: Slot) -> float:
    """Return the instructions per operation of one case; nan if they could not be counted."""
    setting, case = slot
    operations = _OPERATIONS[setting.partition(".")[0]]
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
            *("--collect-atstart=no", "--toggle-collect=ffi_call"),
            *measure.command(setting, case, str(operations)),
        ],
        env=measure.environment(0),
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    # A Python whose ffi_call cannot be seen from outside collects nothing.
    return int(found[1]) / operations if found and int(found[1]) else float("nan")


def counts(slots: list[Slot]) -> dict[Slot, float]:
    """Return the counts of all ``slots``, two processes at a time: counting disturbs nobody."""
    same = {slot: _representative(slot) for slot in slots}
    once = list(dict.fromkeys(same.values()))
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(once, pool.map(count, once), strict=True))
    return {slot: found[same[slot]] for slot in slots}


def _representative(slot: Slot) -> Slot:
    """A floor takes as many instructions in one place as in another: count it once."""
    setting, case = slot
    plain = setting.startswith("lines.") and case in ("nothing", "floor")
    return ("lines.outside_bare", case) if plain else slot

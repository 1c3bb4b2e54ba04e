"""One process that runs slices of one setting, on demand.

``python -m tests.benchmarks.worker SETTING`` reads lines of ``CASE OPERATIONS`` and answers each
with the nanoseconds of CPU time that so many operations took. With ``CASE OPERATIONS`` as further
arguments it runs that one slice for valgrind (see instructions.py), and with ``memory`` as the
setting it prints what memory.py has measured.
"""

import ctypes
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple


class Case(NamedTuple):
    """Something that is measured."""

    run: Callable[[int], int | None]
    """Does that many operations; returns the nanoseconds they took if it has timed them itself."""
    installed: Callable[[], AbstractContextManager[Any]] = nullcontext
    """In place while it runs; entered and left outside the measured time."""


Cases = Mapping[str, Case]
Serve = Callable[[Cases], None]
Setting = Callable[[Serve], None]
"""Prepares a process, and calls ``serve`` with its cases at the place where they shall run."""


def timed(case: Case, operations: int) -> int:
    """Return the nanoseconds of CPU time that ``operations`` of ``case`` take."""
    with case.installed():
        case.run(3)
        start = time.process_time_ns()
        own = case.run(operations)
        took = time.process_time_ns() - start
    return took if own is None else own


def answer(cases: Cases) -> None:
    """Run slices for whoever is at the other end, until they hang up."""
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        name, operations = line.split()
        print(timed(cases[name], int(operations)), flush=True)


def counted(cases: Cases) -> None:
    """Run the one slice that the command line names, through C's ``ffi_call``.

    Nothing else here calls that function, so valgrind can be told to count inside it only.
    """
    case, operations = cases[sys.argv[2]], int(sys.argv[3])
    gc.collect()
    gc.freeze()
    gc.disable()
    with case.installed():
        case.run(60)
        ctypes.PYFUNCTYPE(None)(lambda: case.run(operations) and None)()


def setting(name: str) -> Setting:
    """Return the setting called ``name``; ``lines.user`` is ``SETTINGS["user"]`` of lines.py."""
    module, _, place = name.partition(".")
    if module == "lines":
        from tests.benchmarks.lines import SETTINGS
    elif module == "records":
        from tests.benchmarks.records import SETTINGS
    elif module == "pallets":
        from tests.benchmarks.pallets import SETTINGS
    elif module == "registry":
        from tests.benchmarks.registry import SETTINGS
    elif module == "hops":
        from tests.benchmarks.hops import SETTINGS
    else:
        from tests.benchmarks.requests import SETTINGS
    return SETTINGS[place]


def main() -> None:
    """Serve the setting of the command line."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        if sys.argv[1] == "memory":
            from tests.benchmarks import memory

            memory.report(int(sys.argv[2]))
        else:
            setting(sys.argv[1])(counted if len(sys.argv) > 2 else answer)
        os.chdir(os.path.dirname(folder))


if __name__ == "__main__":
    main()

"""What the tests of orphans share: places in files, threads, and code of a library."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asok_trace.core import findings
from asok_trace.core.callsite import relative
from asok_trace.core.finding import Finding

SECONDS = 20


def place(mark: str) -> str:
    """Where the caller's file has a comment that ends in ``mark``: ``file:line``."""
    filename = sys._getframe(1).f_code.co_filename
    with open(filename, encoding="utf-8") as file:
        [number] = [n for n, line in enumerate(file, 1) if line.rstrip().endswith(f"# {mark}")]
    return f"{relative(filename)}:{number}"


def found() -> list[tuple[str, int]]:
    """The slug and the count of each finding."""
    return [(finding.slug, finding.count) for finding in findings.findings()]


def the_only() -> Finding:
    """The one finding."""
    every = findings.findings()
    assert len(every) == 1, "\n\n".join(map(str, every))
    return every[0]


def in_thread(function: Callable[[], Any]) -> None:
    """Run ``function`` in a thread, to its end."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()


def in_pool(function: Callable[[], Any]) -> Any:
    """Run ``function`` as a job of a pool."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(SECONDS)


def library(source: str, **names: Any) -> dict[str, Any]:
    """The globals of an installed module ``driver`` with this source."""
    made = {"__name__": "driver", **names}
    exec(compile(source, "/env/site-packages/driver.py", "exec"), made)
    return made

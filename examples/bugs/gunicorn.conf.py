"""How gunicorn serves the page of bugs; it reads this file from the directory it is started in."""

import time
from pathlib import Path
from typing import Any

import asok_trace

worker_class = "gthread"
threads = 2


def worker_exit(server: Any, worker: Any) -> None:
    """Leave behind what was found. It is in the worker's memory, not here."""
    time.sleep(0.5)  # the line that is late, and the grace time of the request that is kept
    Path("report.txt").write_text("\n\n".join(map(str, asok_trace.findings())) + "\n", "utf-8")

"""How gunicorn serves the shop; it reads this file from the directory it is started in."""

from pathlib import Path
from typing import Any

import asok_trace

worker_class = "gthread"
threads = 8


def worker_exit(server: Any, worker: Any) -> None:
    """Leave the last requests behind as trees. They are in the worker's memory, not here."""
    Path("report.txt").write_text(asok_trace.report() + "\n", "utf-8")

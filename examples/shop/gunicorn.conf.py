"""How gunicorn serves the shop; it reads this file from the directory it is started in."""

from pathlib import Path
from typing import Any

import asok_trace

worker_class = "gthread"
threads = 8


def post_worker_init(worker: Any) -> None:
    """Start the WebSocket server in the worker: the threads of a server that was started before
    gunicorn forked (``preload_app``) would not be there."""
    from wsgi import ws

    ws.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Leave the last requests behind as trees. They are in the worker's memory, not here."""
    Path("report.txt").write_text(asok_trace.report() + "\n", "utf-8")

"""Asok's queue on Redis: the job runs in `asok worker`, another process, and its lines carry the
request's id all the same. Nothing is to be done there: asok_trace hooks itself up in the worker.

Needs `pip install "asok-trace[asok]" redis` and a Redis: `apt-get install redis-server`, which
starts it, or `docker run -p 6379:6379 redis`. REDIS_URL names one elsewhere.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "an-example-key-that-is-long-enough-0123456789")
os.environ["ASOK_QUEUE_BACKEND"] = "redis"

import structlog
from asok import Asok
from asok.testing import TestClient

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()

PAGE = """
import redis_queue
from asok import background

def get(request):
    redis_queue.log.info("in the request")
    background(redis_queue.send_receipt, 7, _queue="high")
    return "Thank you."
"""


def send_receipt(order: int) -> None:
    log.info("in the worker", order=order, process=os.getpid())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        page = Path(root, "src/pages/checkout/page.py")
        page.parent.mkdir(parents=True)
        page.write_text(PAGE)
        app = Asok(root)
        asok_trace.instrument(app)
        TestClient(app).get("/checkout")

    with subprocess.Popen(
        [sys.executable, "-u", "-m", "asok", "worker"],
        cwd=Path(__file__).parent,  # where it finds this module
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        for line in worker.stdout or ():
            print(line, end="")
            if "completed" in line or "failed" in line:
                worker.send_signal(signal.SIGINT)

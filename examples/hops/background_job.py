"""Asok's `background()`: with `asok_trace.instrument(app)` each attempt of a job is a unit of work
of its own, with the id of its request and `task`, `queue` and `attempt` on its lines.
Needs `pip install "asok-trace[asok]"`.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "an-example-key-that-is-long-enough-0123456789")

import structlog
from asok import Asok
from asok.testing import TestClient

import asok_trace

PAGE = """
import structlog
from asok import background

log = structlog.get_logger()
tries = []

def send_receipt():
    log.info("in the job")
    tries.append(1)
    if len(tries) == 1:
        raise ConnectionError("no mail server")

def get(request):
    log.info("in the request")
    background(send_receipt, _retries=1, _backoff=0).result()
    return "Thank you."
"""

structlog.configure(processors=[asok_trace.inject])

with tempfile.TemporaryDirectory() as root:
    page = Path(root, "src/pages/checkout/page.py")
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)
    app = Asok(root)
    asok_trace.instrument(app)
    TestClient(app).get("/checkout")

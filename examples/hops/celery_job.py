"""Celery: the carrier rides in the headers of the message, which Celery hands to the task as
`self.request.headers`, retries included. This file is the Celery application and the program that
queues a job; it starts a worker for it. With `setup()` the job is in the request's trace, too.

Needs `pip install "celery[redis]"` and a Redis: `apt-get install redis-server`, which starts it, or
`docker run -p 6379:6379 redis`. REDIS_URL names one elsewhere.
"""

import os
import subprocess
import sys
from pathlib import Path

import structlog
from celery import Celery
from opentelemetry import trace

import asok_trace

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
app = Celery("celery_job", broker=REDIS, backend=REDIS)
app.conf.worker_redirect_stdouts = False  # lines of structlog stay lines of JSON

asok_trace.setup()
log = structlog.get_logger()


@app.task(bind=True, max_retries=1)
def charge(self, order: int) -> str:
    with asok_trace.from_carrier(self.request.headers, self.name, attempt=self.request.retries + 1):
        log.info("in the worker", order=order, process=os.getpid())
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return "charged"


if __name__ == "__main__":
    command = [sys.executable, "-m", "celery", "-A", "celery_job", "worker", "--pool=threads"]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL) as worker:
        tracer = trace.get_tracer("shop")
        with asok_trace.scope("checkout"), tracer.start_as_current_span("place order"):
            log.info("in the request")
            job = charge.apply_async([7], headers=asok_trace.to_carrier())
        try:
            job.get(timeout=60)
        finally:
            worker.terminate()

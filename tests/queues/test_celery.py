"""Celery on a real Redis: the example's task, in each kind of worker, goes on with the request.

needs: celery, redis
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.contract.receiver import Receiver, receiving
from tests.queues.processes import WAIT_SECONDS, Process, environment, until

HOPS = Path(__file__).parents[2] / "examples" / "hops"

POOLS = ["solo", "threads", "prefork"]

# What an application does that queues a job of Celery's from a request.
PRODUCER = """
import json
from opentelemetry import trace
import asok_trace
import celery_job

carriers = {}
for user in range(4):
    with asok_trace.scope("checkout"):
        asok_trace.bind(user=user)
        with trace.get_tracer("shop").start_as_current_span("place order"):
            carriers[user] = asok_trace.to_carrier()
            celery_job.charge.apply_async([user], headers=carriers[user])
celery_job.charge.delay(99)
print(json.dumps(carriers))
"""


@pytest.fixture
def collector() -> Iterator[Receiver]:
    """A collector of spans, for one worker."""
    with receiving() as made:
        yield made


@pytest.fixture(params=POOLS)
def worker(
    request: pytest.FixtureRequest,
    redis: Redis,
    redis_url: str,
    collector: Receiver,
    tmp_path: Path,
) -> Iterator[Process]:
    """A worker with this kind of pool."""
    process = Process(
        (
            *(sys.executable, "-m", "celery", "-A", "celery_job", "worker"),
            *("--pool", request.param, "--concurrency", "2"),
            *("--without-gossip", "--without-mingle", "--loglevel", "info"),
        ),
        HOPS,
        tmp_path / "worker.txt",
        settings(redis_url, collector),
    )
    try:
        process.until_printed("ready.")
        yield process
    finally:
        process.stop()


def settings(redis_url: str, collector: Receiver) -> dict[str, str]:
    """The environment of the application and of its worker."""
    return environment(
        REDIS_URL=redis_url,
        PYTHONDONTWRITEBYTECODE="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_METRICS_EXPORTER="none",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )


def produced(redis_url: str, collector: Receiver) -> dict[str, dict[str, str]]:
    """Queue the jobs; return each user's carrier."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER],
        cwd=HOPS,
        env=settings(redis_url, collector),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    carriers: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return carriers


def logged(worker: Process) -> list[dict[str, Any]]:
    """The lines that the task has logged, among what Celery prints, from several processes."""
    return [json.loads(found) for found in re.findall(r'\{"request_id"[^{}]*\}', worker.printed)]


def test_a_task_goes_on_with_its_request(
    worker: Process, redis_url: str, collector: Receiver
) -> None:
    """Lines have the request's id and user, and each try, the second by Celery's own retry, a span
    in the request's trace. A task without headers has an id of its own for each try."""
    carriers = produced(redis_url, collector)
    until(lambda: len(logged(worker)) >= 10, lambda: worker.printed)
    lines = logged(worker)
    assert len(lines) == 10
    assert {line["task"] for line in lines} == {"celery_job.charge"}
    for user, carrier in carriers.items():
        own = [line for line in lines if line["order"] == int(user)]
        assert [line["attempt"] for line in own] == ["1", "2"]
        request_id = carrier["asok-trace-request-id"]
        assert {(line["request_id"], line["user"]) for line in own} == {(request_id, user)}
        trace_id = carrier["traceparent"].split("-")[1]
        assert {line["trace_id"] for line in own} == {trace_id}

        def tries(spans: Any, request_id: str = request_id) -> list[Any]:
            return [
                span
                for span in spans
                if span.name == "celery_job.charge" and span.attributes["request.id"] == request_id
            ]

        spans = tries(collector.until(lambda spans: len(tries(spans)) == 2))
        spans.sort(key=lambda span: span.attributes["asok_trace.job.attempt"])
        assert {span.trace_id for span in spans} == {trace_id}
        assert [span.attributes.get("error.type") for span in spans] == ["Retry", None]
        assert [span.attributes["asok_trace.job.attempt"] for span in spans] == ["1", "2"]
    without = [line for line in lines if line["order"] == 99]
    ids = {line["request_id"] for line in without}
    assert len(ids) == 2
    assert not ids & {carrier["asok-trace-request-id"] for carrier in carriers.values()}
    assert all(line["process"] != os.getpid() for line in lines)

"""`asok worker` does what it did without us: for jobs that are in order, for those that it rejects,
and for those that somebody with the key has made to do harm.

needs: asok, redis, gunicorn
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.contract.receiver import Receiver
from tests.queues.processes import Log, Shop, envelope, job, until

# `asok worker` as it is where asok_trace is not installed: without the entry point.
WITHOUT_US = (
    *(sys.executable, "-c"),
    "import importlib, sys; main = importlib.import_module('asok.cli.main');"
    "main.load_extension_commands = lambda subparsers: None;"
    "sys.argv[1:] = ['worker']; main.main()",
)

ALTERED = json.dumps({**json.loads(envelope(job("note", "altered"))), "sig": "0" * 64})
REJECTED = (
    json.dumps({"job": json.dumps(job("note", "unsigned"))}),
    json.dumps(job("note", "without an envelope")),
    ALTERED,
    envelope(job("note", "of another key"), key="another"),
    "no JSON",
    "{}",
)


class Outcome:
    """What a worker has done with the same jobs, but for times."""

    def __init__(self, shop: Shop, redis: "Redis", log: Log, *command: str) -> None:
        redis.flushall()
        jobs = (
            *REJECTED,
            *(envelope({}), envelope([1]), envelope({"id": "no-function"})),
            envelope(job("note", "a")),
            envelope(job("absent")),
            envelope(job("stubborn", "b", 5, id="for-good", retries=1)),
            envelope(job("stubborn", "c", 1, retries=1)),
            envelope(job("whose", id="whose")),
        )
        with shop.worker(*command, log=log.path) as worker:
            for one in jobs:
                redis.lpush("asok:queue", one)
            worker.until_printed("Job jobs.stubborn completed")
            worker.until_printed("Job jobs.stubborn failed permanently")
        self.printed = sorted(re.sub(r"\d+\.\d{3}s", "", worker.printed).splitlines())
        self.dead = [self._without_time(raw) for raw in redis.lrange("asok:dlq", 0, -1)]
        keys = sorted(redis.keys("asok:job:*"))
        self.states = {key: self._without_time(redis.get(key)) for key in keys}
        self.left = sorted(redis.keys("*"))
        self.logged = sorted(
            (line["levelname"], line["message"]) for line in log.lines(name="asok.worker")
        )

    @staticmethod
    def _without_time(raw: Any) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(raw)
        return {key: value for key, value in told.items() if key not in ("ts", "failed_at")}


@pytest.fixture(scope="module")
def worker(shop: Shop) -> Shop:
    """The worker, which has imported the module of its jobs: from then on it logs to the file."""
    shop.ask("warm", job="note", arguments=["warm"])
    shop.log.until(2, token="warm")
    return shop


@pytest.fixture
def apart(redis: Redis, redis_url: str) -> "Iterator[tuple[Redis, str]]":
    """A database that the module's worker does not look at: a client, and the URL."""
    url = redis_url.removesuffix("0") + "1"
    with Redis.from_url(url) as client:
        yield client, url


def test_results_are_what_they_were(apart: "tuple[Redis, str]", tmp_path: Path) -> None:
    """Output, log, states, the dead-letter queue and every key in Redis are the same with us and
    without."""
    redis, url = apart
    shop = Shop(tmp_path, url)
    plain = Outcome(shop, redis, Log(tmp_path / "plain.jsonl"), *WITHOUT_US)
    ours = Outcome(shop, redis, Log(tmp_path / "ours.jsonl"))
    assert plain.states.pop(b"asok:job:whose")["result"] is None, "we were there"
    assert ours.states.pop(b"asok:job:whose")["result"], "we were not there"
    assert ours.printed == plain.printed
    assert ours.dead == plain.dead
    assert len(ours.dead) == 2
    assert ours.states == plain.states
    assert ours.left == plain.left
    assert ours.logged == plain.logged


def test_a_rejected_job_opens_nothing(worker: Shop, redis: Redis, receiver: Receiver) -> None:
    """What asok logs of an unsigned or altered job carries no id; no span is made, and what it
    says of a request is not believed."""
    carrier = {"asok-trace-request-id": "forged"}
    redis.lpush(
        "asok:queue",
        *REJECTED,
        json.dumps({"job": json.dumps(job("note", "x", asok_trace=carrier)), "sig": "0" * 64}),
    )
    lines = worker.log.until(
        3, message="Rejected unsigned Redis job (no signature). Possible tampering."
    )
    lines += worker.log.until(
        3, message="Rejected Redis job with invalid HMAC signature. Possible tampering."
    )
    assert all("request_id" not in line and "task" not in line for line in lines)
    worker.ask("after", job="note", arguments=["after"])
    receiver.until(lambda spans: sum(of("after", span) for span in spans) == 2)
    names = [span.name for span in receiver.spans if span.resource["service.name"]]
    assert sorted(names) == ["GET /queue", "GET /queue", "note", "note"]
    assert not any(of("forged", span) for span in receiver.spans)


def of(request_id: str, span: Any) -> bool:
    """Whether ``span`` is of this request."""
    return bool(span.attributes.get("request.id") == request_id)


HUGE = "a\n\x1b[31m" * 100_000
HOSTILE: dict[str, Any] = {
    "list": ["asok-trace-request-id"],
    "text": "asok-trace-request-id",
    "number": 7,
    "nothing": None,
    "wrong types": {
        "asok-trace-request-id": ["a"],
        "asok-trace-ip": {"a": 1},
        "asok-trace-user": 7,
        "asok-trace-path": None,
        "traceparent": 7,
        "tracestate": [],
    },
    "huge": {
        "asok-trace-request-id": HUGE,
        "asok-trace-ip": HUGE,
        "asok-trace-user": HUGE,
        "asok-trace-path": HUGE,
        "traceparent": HUGE,
        "tracestate": HUGE,
        HUGE: HUGE,
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_carrier_is_bounded(
    worker: Shop, redis: Redis, receiver: Receiver, name: str
) -> None:
    """In a job whose signature holds: the job runs, under an id of its own, and every field and
    attribute is short and of one line."""
    one = job("note", name, asok_trace=HOSTILE[name], id=HUGE, queue=HUGE, retry_count=[1])
    redis.lpush("asok:queue", envelope(one))
    lines = worker.log.until(2, token=name)
    [request_id] = {line["request_id"] for line in lines}
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    [span] = [
        span
        for span in receiver.until(lambda spans: any(of(request_id, span) for span in spans))
        if of(request_id, span)
    ]
    said = [*span.attributes.values(), *(value for line in lines for value in line.values())]
    assert all(len(value) <= 1024 and value.isprintable() for value in said)
    assert [line["attempt"] for line in lines] == ["1", "1"]


def test_a_bad_setting_does_not_stop_the_worker(apart: "tuple[Redis, str]", tmp_path: Path) -> None:
    """The worker says what is wrong with it, and runs its jobs without us."""
    redis, url = apart
    shop = Shop(tmp_path, url)
    with shop.worker(ASOK_TRACE_LOG_EVENTS="perhaps") as process:
        redis.lpush("asok:queue", envelope(job("whose", id="whose")))
        process.until_printed("Job jobs.whose completed")
    assert 'ASOK_TRACE_LOG_EVENTS="perhaps"' in process.printed
    assert until(lambda: redis.get("asok:job:whose"), lambda: "")
    assert json.loads(redis.get("asok:job:whose"))["result"] is None  # type: ignore[arg-type]


def test_spans_of_the_last_jobs_are_sent(
    apart: "tuple[Redis, str]", receiver: Receiver, tmp_path: Path
) -> None:
    """A worker that is stopped hands over what it still has."""
    redis, url = apart
    shop = Shop(tmp_path, url, receiver.endpoint)
    carrier = {"asok-trace-request-id": "the-last"}
    with shop.worker(OTEL_BSP_SCHEDULE_DELAY="600000", OTEL_SERVICE_NAME="worker") as process:
        redis.lpush("asok:queue", envelope(job("note", "last", asok_trace=carrier)))
        process.until_printed("Job jobs.note completed")
    [span] = [span for span in receiver.spans if of("the-last", span)]
    assert span.resource["service.name"] == "worker"

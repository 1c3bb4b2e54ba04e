"""Asok's own queue on a real Redis: a job in `asok worker` goes on with the request that queued
it, and nobody wrote a line of code for it.

needs: asok, redis, gunicorn
"""

import itertools
import json
import threading
from typing import Any

import pytest
from redis import Redis

import asok_trace
from tests.contract.receiver import Received, Receiver
from tests.queues.processes import Line, Shop, envelope, job, until

_numbers = itertools.count(1)


@pytest.fixture
def request_id() -> str:
    """An id that no other test has."""
    return f"request-{next(_numbers)}"


def stamp(line: Line) -> Line:
    """What of ``line`` it was stamped with, but for the ids of its span."""
    names = ("request_id", "ip", "user", "path", "task", "queue", "attempt")
    return {name: line[name] for name in names if name in line}


def expected(request_id: str, task: str, **other: Any) -> Line:
    """The stamp of a job of a request of user 7."""
    facts = {"ip": "127.0.0.1", "user": "7", "path": "/queue", "queue": "default", "attempt": "1"}
    return {"request_id": request_id, "task": task, **facts, **other}


def spans_of(receiver: Receiver, request_id: str, number: int) -> list[Received]:
    """Wait for so many spans of a request, and return them: the server's, then the jobs' in the
    order in which the worker ended them."""

    def of(spans: Any) -> list[Received]:
        found = [span for span in spans if span.attributes.get("request.id") == request_id]
        return sorted(found, key=lambda span: "asok_trace.task" in span.attributes)

    found = of(receiver.until(lambda spans: len(of(spans)) >= number))
    assert len(found) == number, found
    return found


def state(redis: "Redis", job_id: str) -> Any:
    """What asok says of a job."""
    raw = redis.get(f"asok:job:{job_id}")
    return json.loads(raw) if isinstance(raw, bytes) else {}


def until_status(redis: "Redis", job_id: str, status: str) -> Any:
    """Wait until asok says of a job that it is ``status``."""
    return until(
        lambda: (found := state(redis, job_id)).get("status") == status and found,
        lambda: f"{job_id} is not {status}: {state(redis, job_id)}",
    )


class TestLines:
    def test_a_job_carries_its_request(self, shop: Shop, redis: Redis, request_id: str) -> None:
        """structlog's lines and the standard library's say id, ip, user, path, task, queue and
        attempt; the job's result is as it would be."""
        job_id = shop.ask(request_id, "7", job="note", arguments=["a"])
        lines = shop.log.until(2, token="a")
        assert [stamp(line) for line in lines] == [expected(request_id, "note")] * 2
        assert until_status(redis, job_id, "completed")["result"] == {"token": "a"}

    def test_a_decorated_task_in_a_queue_of_its_own(self, shop: Shop, request_id: str) -> None:
        """`@task(queue="high")` and `.delay()`."""
        shop.ask(request_id, "7", job="urgent", delay=1, arguments=["b"])
        line = shop.log.one(token="b")
        assert stamp(line) == expected(request_id, "urgent", queue="high")

    def test_a_queue_that_the_caller_names(self, shop: Shop, request_id: str) -> None:
        """`background(..., _queue="high")`."""
        shop.ask(request_id, "7", job="note", queue="high", arguments=["c"])
        assert {line["queue"] for line in shop.log.until(2, token="c")} == {"high"}

    def test_a_request_of_nobody(self, shop: Shop, request_id: str) -> None:
        """Without a user there is none on the job's lines."""
        shop.ask(request_id, job="note", arguments=["d"])
        assert [line.get("user") for line in shop.log.until(2, token="d")] == [None, None]

    def test_mail_is_a_job(self, shop: Shop, request_id: str) -> None:
        """Mail.send() goes through the queue: the error of a mail server that is not there
        carries the request which sent the mail."""
        shop.ask("warm-" + request_id, job="note", arguments=["e"])
        shop.log.until(2, token="e")
        shop.ask(request_id, "7", mail=1)
        line = shop.log.one(name="asok.mail")
        assert line["message"].startswith("Failed to send email")
        assert stamp(line) == expected(request_id, "_send_mail_task")


class TestAttempts:
    def test_retries_are_told_apart(
        self, shop: Shop, redis: Redis, receiver: Receiver, request_id: str
    ) -> None:
        """Through the queue of delayed jobs and back: one request, attempts 1, 2 and 3, each with
        a span in the request's trace and asok's own line about it."""
        job_id = shop.ask(request_id, "7", job="stubborn", retries=3, arguments=["f", 2])
        lines = shop.log.until(3, token="f")
        attempts = [expected(request_id, "stubborn", attempt=str(n)) for n in (1, 2, 3)]
        assert [stamp(line) for line in lines] == attempts
        failures = shop.log.until(2, name="asok.worker", request_id=request_id)
        assert [stamp(line) for line in failures] == attempts[:2]
        assert until_status(redis, job_id, "completed")["result"] == "done"

        server, *spans = spans_of(receiver, request_id, 4)
        assert {span.trace_id for span in spans} == {server.trace_id}
        assert [span.attributes["asok_trace.job.status"] for span in spans] == [
            *("retrying", "retrying", "completed"),
        ]
        assert [span.attributes["asok_trace.job.attempt"] for span in spans] == ["1", "2", "3"]
        assert [span.attributes.get("error.type") for span in spans] == [
            *("LookupError", "LookupError", None),
        ]
        assert {line["span_id"] for line in lines} != {lines[0]["span_id"]}

    @pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # asok does
    def test_the_dead_letter_queue_and_back(
        self,
        shop: Shop,
        redis: Redis,
        receiver: Receiver,
        request_id: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A job that failed for good keeps its request; run again by retry_dlq_job(), it goes on
        with that and not with whoever runs it again."""
        from asok.background import get_dlq_jobs, retry_dlq_job

        for name in ("ASOK_QUEUE_BACKEND", "ASOK_REDIS_URL", "SECRET_KEY"):
            monkeypatch.setenv(name, shop.environment[name])
        job_id = shop.ask(request_id, "7", job="stubborn", arguments=["g", 1])
        assert until_status(redis, job_id, "failed")["error"] == "LookupError: try 1"
        [dead] = get_dlq_jobs()
        assert dead["asok_trace"]["asok-trace-request-id"] == request_id

        with asok_trace.scope("operator"):
            assert retry_dlq_job(job_id)
        # Not by its state: asok may write "pending" after the worker has written "completed".
        lines = shop.log.until(2, token="g")
        assert [stamp(line) for line in lines] == [expected(request_id, "stubborn")] * 2
        server, failed, completed = spans_of(receiver, request_id, 3)
        assert failed.trace_id == completed.trace_id == server.trace_id
        assert failed.attributes["asok_trace.job.status"] == "failed"
        assert failed.attributes["messaging.message.id"] == job_id
        assert completed.attributes["asok_trace.job.status"] == "completed"

    def test_jobs_of_jobs(self, shop: Shop, receiver: Receiver, request_id: str) -> None:
        """However deep, a job that a job queues carries the first request, and its trace."""
        shop.ask(request_id, "7", job="parent", queue="high", arguments=["h", 2])
        shop.log.until(2, token="h", task="note")
        lines = shop.log.until(5, token="h")
        queues = ["high", "low", "low"]
        assert [stamp(line) for line in lines] == [
            *(expected(request_id, "parent", queue=queue) for queue in queues),
            *[expected(request_id, "note")] * 2,
        ]
        assert len({span.trace_id for span in spans_of(receiver, request_id, 5)}) == 1

    def test_what_asok_does_not_catch(
        self, shop: Shop, receiver: Receiver, request_id: str
    ) -> None:
        """A job that ends in SystemExit has failed, and the next one runs."""
        shop.ask(request_id, "7", job="leave", arguments=["i"])
        span = spans_of(receiver, request_id, 2)[1]
        assert span.attributes["asok_trace.job.status"] == "failed"
        assert span.attributes["error.type"] == "SystemExit"
        shop.ask("next-" + request_id, job="note", arguments=["j"])
        shop.log.until(2, token="j")


class TestSpans:
    def test_a_job_is_a_span_of_its_request_s_trace(
        self, shop: Shop, receiver: Receiver, request_id: str
    ) -> None:
        """Named after the job, with its facts; lines of the job have its ids."""
        job_id = shop.ask(request_id, "7", job="note", arguments=["k"])
        server, span = spans_of(receiver, request_id, 2)
        assert (server.name, span.name) == ("GET /queue", "note")
        assert server.trace_id == span.trace_id
        assert span.attributes == {
            "request.id": request_id,
            "client.address": "127.0.0.1",
            "user.id": "7",
            "url.path": "/queue",
            "asok_trace.task": "note",
            "messaging.destination.name": "default",
            "messaging.message.id": job_id,
            "asok_trace.job.attempt": "1",
            "asok_trace.job.status": "completed",
        }
        assert {line["trace_id"] for line in shop.log.until(2, token="k")} == {span.trace_id}


class TestConcurrency:
    def test_jobs_at_once_are_never_mixed(self, shop: Shop, receiver: Receiver) -> None:
        """Forty requests queue a job each, which run four at a time and wait for each other
        midway: each line has its own request's id and user."""
        numbers = range(40)

        def ask(some: range) -> None:
            for number in some:
                shop.ask(f"many-{number}", str(number), job="meet", arguments=[f"token-{number}"])

        threads = [threading.Thread(target=ask, args=(numbers[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = shop.log.until(40, event="arrived") + shop.log.until(40, event="met")
        for line in lines:
            number = line["token"].removeprefix("token-")
            assert stamp(line) == expected(f"many-{number}", "meet", user=number)
        for number in numbers:
            server, span = spans_of(receiver, f"many-{number}", 2)
            assert server.trace_id == span.trace_id


class TestWithoutARequest:
    def test_a_job_without_a_carrier_has_an_id_of_its_own(
        self, shop: Shop, redis: Redis, receiver: Receiver
    ) -> None:
        """Queued by an application without us: nothing but id, task, queue and attempt; the id
        is its trace's."""
        redis.lpush("asok:queue", envelope(job("note", "l")), envelope(job("note", "m")))
        ids = []
        for token in ("l", "m"):
            first, second = shop.log.until(2, token=token)
            assert stamp(first) == stamp(second)
            request_id = first["request_id"]
            assert first["trace_id"] == request_id
            assert stamp(first) == {
                "request_id": request_id,
                "task": "note",
                "queue": "default",
                "attempt": "1",
            }
            spans_of(receiver, request_id, 1)
            ids.append(request_id)
        assert ids[0] != ids[1]

"""A job that another process takes from a real Redis, `asok worker`, found in Jaeger.

needs: asok, redis, gunicorn
"""

from pathlib import Path

from tests.jaeger.reading import Jaeger
from tests.queues.processes import Shop


def test_a_job_is_in_the_trace_of_its_request(
    jaeger: Jaeger, redis_url: str, tmp_path: Path
) -> None:
    """The span of the worker's process is under the server span of the other's, and says whose
    request it was; what the job does is under it, asok's own spans included."""
    shop = Shop(tmp_path, redis_url, jaeger.endpoint)
    with (shop.root / "jobs.py").open("a", encoding="utf-8") as jobs:
        jobs.write(JOB)
    shop.environment["OTEL_SERVICE_NAME"] = "queueing"
    with shop.served(), shop.worker(OTEL_SERVICE_NAME="working"):
        shop.ask("to-the-worker", user="7", job="charge")
        [found] = jaeger.until_found("working", request__id="to-the-worker")
        trace_id = found[0].trace_id
        trace = jaeger.until(trace_id, ["GET /queue", "charge", "pay"])
    server, job, step = trace["GET /queue"], trace["charge"], trace["pay"]
    assert (server.service, job.service, step.service) == ("queueing", "working", "working")
    assert (server.tags["span.kind"], job.tags["span.kind"]) == ("server", "consumer")
    assert (server.parent, job.parent, step.parent) == (None, server.id, job.id)
    facts = {"client.address": "127.0.0.1", "user.id": "7", "url.path": "/queue"}
    for span in trace.values():
        assert {**facts, "request.id": "to-the-worker"}.items() <= span.tags.items()
    assert [trace for trace in jaeger.search("queueing") if trace[0].trace_id != trace_id] == []


JOB = '''

from asok import trace


@trace("pay")
def pay():
    pass


def charge():
    """Charge the card."""
    pay()
'''

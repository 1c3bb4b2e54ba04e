"""The jobs of `asok worker` are measured, by the name of their function.

needs: asok, redis, gunicorn
"""

from pathlib import Path

from redis import Redis

from tests.contract.receiver import receiving
from tests.metrics.test_push import plain, points
from tests.queues.processes import Shop


def test_jobs_are_measured(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    """Each of them, with exemplars of their spans. The worker pushes when it ends."""
    with receiving() as receiver:
        shop = Shop(tmp_path, redis_url, receiver.endpoint)
        shop.environment |= {"OTEL_METRIC_EXPORT_INTERVAL": "3600000"}
        with shop.served(), shop.worker(OTEL_METRICS_EXPORTER="otlp"):
            for number in range(3):
                shop.ask(f"request-{number}", "7", job="note", arguments=[f"k{number}"])
            for number in range(3):
                shop.log.until(2, token=f"k{number}")
        found = points(receiver, "asok_trace.job.duration")
    # The lines of a job come before its end, and a worker finishes its jobs.
    [(resource, point)] = found
    assert point.count == 3
    assert plain(point.attributes) == {"asok_trace.kind": "job", "asok_trace.task": "note"}
    exemplars = {exemplar.trace_id.hex() for exemplar in point.exemplars}
    assert exemplars
    assert exemplars <= {span.trace_id for span in receiver.spans}
    assert resource["service.instance.id"]

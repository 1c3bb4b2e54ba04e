"""What a thread and a pool's job pay for being carried or watched, against OpenTelemetry's own
threading instrumentation, which moves OpenTelemetry's context alone.

Started in a scope and under a span. Pool jobs are submitted by the hundred and then waited for;
each thread is started and joined.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import TracerProvider

import asok_trace
from tests.benchmarks.worker import Case, Cases, Serve, Setting

BATCH = 100


def job() -> None:
    """What runs there."""


def threads(operations: int) -> None:
    """One after the other."""
    for _ in range(operations):
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()


class Pool:
    """A pool of one, whose thread is there already."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.executor.submit(job).result()

    def __call__(self, operations: int) -> None:
        submit = self.executor.submit
        for start in range(0, operations, BATCH):
            futures = [submit(job) for _ in range(min(BATCH, operations - start))]
            futures[-1].result()


@contextmanager
def otel_threading() -> Iterator[None]:
    """OpenTelemetry's."""
    instrumentor = ThreadingInstrumentor()
    instrumentor.instrument()
    try:
        yield
    finally:
        instrumentor.uninstrument()


def ours(mode: str) -> AbstractContextManager[Any]:
    """Ours."""
    return asok_trace.propagate_threads(mode)


def cases(run: Any) -> Cases:
    """The same work: untouched, and carried in each way."""
    return {
        "nothing": Case(run),
        "otel_threading": Case(run, otel_threading),
        "carry": Case(run, lambda: ours("carry")),
        "watch": Case(run, lambda: ours("watch")),
    }


def in_request(make: Any) -> Setting:
    """Work that a request starts."""

    def setting(serve: Serve) -> None:
        trace.set_tracer_provider(TracerProvider())
        tracer = trace.get_tracer("benchmark")
        with asok_trace.scope("checkout"), tracer.start_as_current_span("checkout"):
            serve(cases(make()))

    return setting


SETTINGS: dict[str, Setting] = {
    "thread": in_request(lambda: threads),
    "pool": in_request(Pool),
}

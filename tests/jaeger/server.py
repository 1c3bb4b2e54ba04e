"""A Jaeger that keeps its traces in memory, on ports of its own."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.jaeger.reading import Jaeger
from tests.outside import program
from tests.queues.processes import accepts, environment, free_port, listening, until


@contextmanager
def started(where: Path, otlp_port: int | None = None) -> Iterator[Jaeger]:
    """A Jaeger without any traces, which takes spans in on ``otlp_port`` or on a free one."""
    binary = program("jaeger")
    config = where / "config.json"
    taking = 0

    def command(port: int) -> tuple[str, ...]:
        nonlocal taking
        taking = otlp_port or free_port()
        config.write_text(configuration(port, taking), encoding="utf-8")
        return (binary, "--config", str(config))

    with listening(command, where, where / "jaeger.txt", environment()) as (port, process):
        until(lambda: accepts(taking) or not process.alive(), lambda: process.printed)
        assert process.alive(), process.printed
        yield Jaeger(port, taking)
        process.stop(signal.SIGKILL)  # asked to end it waits for ten seconds


def configuration(port: int, otlp_port: int, protocol: str = "http") -> str:
    """What Jaeger is without a configuration, as far as it is needed here, on these ports; spans
    are taken in by OTLP over ``protocol``."""
    return json.dumps(
        {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
                },
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
            },
            "extensions": {
                "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
                "jaeger_query": {
                    "storage": {"traces": "memory"},
                    "http": {"endpoint": f"127.0.0.1:{port}"},
                    "grpc": {"endpoint": "127.0.0.1:0"},
                },
            },
            "receivers": {
                "otlp": {"protocols": {protocol: {"endpoint": f"127.0.0.1:{otlp_port}"}}}
            },
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        }
    )

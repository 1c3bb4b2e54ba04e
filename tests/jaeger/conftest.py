"""One Jaeger for all tests here, in memory, on ports of its own."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jaeger.reading import Jaeger
from tests.queues.conftest import redis_url as redis_url  # a fixture
from tests.queues.processes import accepts, environment, free_port, listening, until

HERE = Path(__file__).parent


def program() -> Path | None:
    """The program: the one that JAEGER names, or that `make jaeger` has built."""
    named = os.environ.get("JAEGER")
    if named:
        return Path(named)
    found = re.search(r"github.com/jaegertracing/jaeger (\S+)", (HERE / "go.mod").read_text())
    assert found is not None
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    built = Path(cache, "asok-trace", f"jaeger-{found[1]}", "jaeger")
    return built if built.exists() else None


def configuration(port: int, otlp_port: int) -> str:
    """What Jaeger is without a configuration, as far as it is needed here, on these ports."""
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
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{otlp_port}"}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        }
    )


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger without any traces."""
    binary = program()
    if binary is None:
        pytest.skip("there is no Jaeger; build it once with: make jaeger (needs Go, and minutes)")
    where = tmp_path_factory.mktemp("jaeger")
    config = where / "config.json"
    otlp_port = 0

    def command(port: int) -> tuple[str, ...]:
        nonlocal otlp_port
        otlp_port = free_port()
        config.write_text(configuration(port, otlp_port), encoding="utf-8")
        return (str(binary), "--config", str(config))

    with listening(command, where, where / "jaeger.txt", environment()) as (port, process):
        until(lambda: accepts(otlp_port) or not process.alive(), lambda: process.printed)
        assert process.alive(), process.printed
        yield Jaeger(port, otlp_port)
        process.stop(signal.SIGKILL)  # asked to end it waits for ten seconds

"""grafana/'s own files in force: Collector, Jaeger, Loki and Prometheus on free loopback ports.

The collector is Jaeger's binary, which is one: it holds every component that collector/ uses.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.jaeger.server import configuration
from tests.outside import GRAFANA, program

SECONDS = 60


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def ask(url: str, **parameters: object) -> Any:
    with urlopen(f"{url}?{urlencode(parameters)}", timeout=SECONDS) as answer:
        return json.loads(answer.read())


def wait_for(what: Any, why: str) -> Any:
    """What ``what()`` returns once that is something; it may fail until then."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            found = what()
        except (OSError, URLError, ValueError, KeyError) as error:
            found, why = None, f"{why}: {error!r}"
        if found or time.monotonic() > end:
            assert found, why
            return found
        time.sleep(0.1)


@contextmanager
def running(folder: Path, *command: object, **environment: str) -> Iterator[None]:
    """A program, ended when it is no longer needed."""
    name = Path(str(command[0])).name
    with (folder / f"{name}-{len(list(folder.iterdir()))}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.kill()  # asked politely, Loki takes ten seconds
            process.wait()


class Stack:
    """Where everything is."""

    def __init__(self) -> None:
        ports = free_ports(8)
        self.otlp, self.grpc, self.metrics, self.jaeger_grpc = ports[:4]
        self.jaeger, self.loki, self.prometheus = (
            f"http://127.0.0.1:{port}" for port in ports[4:7]
        )
        self.unused = ports[7]

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.otlp}"

    def lines(self, expr: str) -> list[dict[str, Any]]:
        """The streams that a LogQL query for lines finds in the last hour."""
        now = time.time_ns()
        parameters = {"query": expr, "start": now - 3600 * 10**9, "end": now}
        found: list[dict[str, Any]] = ask(f"{self.loki}/loki/api/v1/query_range", **parameters)[
            "data"
        ]["result"]
        return found

    def rows(self, expr: str) -> list[dict[str, Any]]:
        """What a LogQL query for numbers finds."""
        found: list[dict[str, Any]] = ask(
            f"{self.loki}/loki/api/v1/query", query=expr, time=time.time_ns()
        )["data"]["result"]
        return found

    def samples(self, expr: str) -> list[dict[str, Any]]:
        """What a PromQL query finds."""
        found: list[dict[str, Any]] = ask(f"{self.prometheus}/api/v1/query", query=expr)["data"][
            "result"
        ]
        return found

    def traces(self, service: str, **tags: str) -> list[dict[str, Any]]:
        """The traces that a search in Jaeger finds."""
        found: list[dict[str, Any]] = ask(
            f"{self.jaeger}/api/traces", service=service, tags=json.dumps(tags), limit=100
        )["data"]
        return found


@contextmanager
def started(folder: Path, collector: str = "collector.yml", **environment: str) -> Iterator[Stack]:
    """Jaeger, Loki, Prometheus, and the collector with this configuration in front of them."""
    stack = Stack()
    jaeger, loki, prometheus = (program(name) for name in ("jaeger", "loki", "prometheus"))
    http = {
        name: getattr(stack, name).rsplit(":", 1)[1] for name in ("jaeger", "loki", "prometheus")
    }
    (folder / "jaeger.json").write_text(
        configuration(int(http["jaeger"]), stack.jaeger_grpc, "grpc")
    )
    text = (GRAFANA / "loki/loki.yml").read_text(encoding="utf-8")
    text = text.replace(": /loki", f": {folder}/loki").replace("3100", http["loki"])
    (folder / "loki.yml").write_text(text)
    text = (GRAFANA / "prometheus/prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("collector:8889", f"127.0.0.1:{stack.metrics}").replace("15s", "1s")
    (folder / "prometheus.yml").write_text(text)
    (folder / "rules.yml").write_bytes((GRAFANA / "prometheus/rules.yml").read_bytes())
    variables = {
        "OTLP_HTTP": f"127.0.0.1:{stack.otlp}",
        "OTLP_GRPC": f"127.0.0.1:{stack.grpc}",
        "METRICS": f"127.0.0.1:{stack.metrics}",
        "JAEGER_GRPC": f"127.0.0.1:{stack.jaeger_grpc}",
        "LOKI_OTLP": f"{stack.loki}/otlp",
        **environment,
    }
    with (
        running(folder, jaeger, "--config", folder / "jaeger.json"),
        running(
            folder,
            *(loki, f"-config.file={folder}/loki.yml"),
            *("-server.http-listen-address=127.0.0.1", "-server.grpc-listen-address=127.0.0.1"),
            f"-server.grpc-listen-port={stack.unused}",
        ),
        running(folder, jaeger, "--config", GRAFANA / "collector" / collector, **variables),
        running(
            folder,
            *(prometheus, f"--config.file={folder}/prometheus.yml"),
            *(f"--storage.tsdb.path={folder}/tsdb", "--enable-feature=exemplar-storage"),
            f"--web.listen-address=127.0.0.1:{http['prometheus']}",
        ),
    ):
        wait_for(lambda: ask(f"{stack.jaeger}/api/services"), "Jaeger does not answer")
        wait_for(lambda: ask(f"{stack.loki}/loki/api/v1/labels"), "Loki does not answer")
        wait_for(lambda: ask(f"{stack.prometheus}/api/v1/status/config"), "no Prometheus")
        wait_for(lambda: _listens(stack.otlp), "no collector")
        yield stack


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True

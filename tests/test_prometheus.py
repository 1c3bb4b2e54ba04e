"""The real Prometheus scrapes the workers of a served application, and each query of each dashboard
and rule returns data. `apt-get install prometheus` has it.

needs: flask, flask_login, opentelemetry.exporter.prometheus
"""

import json
import math
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from grafana import names, queries
from tests.metrics.ports import free
from tests.serving import Served, gunicorn, served

ROOT = Path(__file__).parents[1]
SECONDS = 60.0

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus; apt-get install prometheus has it"
)

# The example, and what it has not: bugs, a page that fails, and work without a login.
PROGRAM = """
import os, threading, time

import structlog
from app import create_app

import asok_trace

app = create_app()
log = structlog.get_logger()


def started(function):
    threading.Thread(target=function).start()
    return str(os.getpid())


def tell():
    log.info("told")


def tell_later():
    while asok_trace.current() is not None:  # until the response is over
        time.sleep(0.05)
    log.info("told later")


def reindex(fails=False):
    if fails:
        raise LookupError("reindex")


@app.get("/who")
def who():
    return str(os.getpid())


@app.get("/boom")
def boom():
    raise LookupError("boom")


@app.get("/lost")
def lost():
    return started(tell)


@app.get("/late")
def late():
    return started(asok_trace.wrap(tell_later))


@app.get("/work")
def work():
    job = asok_trace.wrap(reindex, outlive=True)
    job()
    try:
        job(fails=True)
    except LookupError:
        pass
    return str(os.getpid())
"""


class Prometheus:
    """A server that is running."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _get(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self._url}{path}?{urlencode(parameters)}", timeout=SECONDS) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urlopen(f"{self._url}/-/ready", timeout=SECONDS):
                return True
        except (URLError, ConnectionError):
            return False

    def value(self, expression: str) -> float:
        """The only value of an expression, now."""
        found = self._get("/api/v1/query", query=expression)["result"]
        return float(found[0]["value"][1]) if len(found) == 1 else math.nan

    def has(self, expression: str, *, instant: bool) -> bool:
        """Whether there was any number, now or in the last minute."""
        if instant:
            series = self._get("/api/v1/query", query=expression)["result"]
            values = [one["value"] for one in series]
        else:
            now = time.time()
            span = {"start": str(now - 60), "end": str(now), "step": "1"}
            series = self._get("/api/v1/query_range", query=expression, **span)["result"]
            values = [value for one in series for value in one["values"]]
        return any(math.isfinite(float(value)) for _, value in values)

    def rules(self) -> dict[str, str]:
        """The alerts and their expressions, as it has read them."""
        groups = self._get("/api/v1/rules")["groups"]
        return {rule["name"]: rule["query"] for group in groups for rule in group["rules"]}

    def labels(self) -> dict[str, set[str]]:
        """The labels of each metric."""
        series = self._get("/api/v1/series", **{"match[]": '{otel_scope_name="asok_trace"}'})
        found: dict[str, set[str]] = {}
        for one in series:
            found.setdefault(one["__name__"], set()).update(one)
        return found


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for the next scrapes."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def ports() -> int:
    """The first of the ports that are scraped."""
    return free(5)


@pytest.fixture(scope="module")
def prometheus(ports: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes four ports, and knows the rules."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(ROOT / "grafana/prometheus/rules.yml", folder)
    targets = [f"127.0.0.1:{port}" for port in range(ports, ports + 4)]
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # is YAML
    listening = f"127.0.0.1:{ports + 4}"
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address={listening}",
            ],
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    made = Prometheus(f"http://{listening}")
    try:
        until(made.ready, lambda: (folder / "output.txt").read_text("utf-8"))
        yield made
    finally:
        process.terminate()
        process.wait(SECONDS)


class Shop:
    """The served example, and what was asked of each worker."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.asked: dict[int, int] = {}
        self.paths: Counter[str] = Counter()

    def get(self, path: str) -> None:
        """Ask for a page, which says its worker if it does not fail."""
        answer = self.server.get(path)
        self.paths[path] += 1
        assert answer.status == (500 if path == "/boom" else 200)
        if path != "/boom":
            worker = int(answer.body)
            self.asked[worker] = self.asked.get(worker, 0) + 1

    def both(self, path: str) -> None:
        """Ask until each of two workers has answered."""
        before = dict(self.asked)
        while sum(count > before.get(worker, 0) for worker, count in self.asked.items()) < 2:
            self.get(path)


@pytest.fixture(scope="module")
def shop(ports: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The example in two gunicorn workers."""
    folder = tmp_path_factory.mktemp("shop") / "app"
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / "examples/flask_shop", folder, ignore=ignored)
    environment = {
        "SECRET_KEY": "a-key-for-tests-that-is-long-enough-0123456789",
        "OTEL_TRACES_EXPORTER": "console",  # of what is exported it is said how much was lost
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(ports),
        "ASOK_TRACE_THREADS": "watch",
    }
    command = gunicorn("shop:app", "--workers", "2")
    with served(folder, PROGRAM, *command, **environment) as server:
        yield Shop(server)


COUNT = "sum(http_server_request_duration_seconds_count)"
PATHS = ("/lost", "/late", "/work", "/who")


@pytest.fixture(scope="module")
def driven(prometheus: Prometheus, shop: Shop) -> Shop:
    """Each worker asked for every page twice, with a scrape in between: a series that is new has no
    rate."""
    late = f'sum({names.FINDINGS}{{{names.FINDING}="late"}})'
    for _ in range(2):
        shop.get("/boom")
        for path in PATHS:
            shop.both(path)
        until(
            lambda: (
                prometheus.value(COUNT) == shop.paths.total()
                and prometheus.value(late) == shop.paths["/late"]
            ),
            lambda: shop.server.output,
        )
    return shop


def test_the_sum_of_the_workers_is_what_was_sent(prometheus: Prometheus, driven: Shop) -> None:
    """Each of the two is a target of its own that is up; no other is. What was found and what was
    worked is counted by its name."""
    assert len(driven.asked) == 2
    assert prometheus.value("sum(up)") == 2
    sent = driven.paths
    assert prometheus.value(COUNT) == sent.total()
    assert prometheus.value(f'{COUNT[:-1]}{{error_type="LookupError"}})') == sent["/boom"]
    assert prometheus.value(f"sum({names.ACTIVE})") == 0
    assert prometheus.value(f'sum({names.FINDINGS}{{{names.FINDING}="lost"}})') == sent["/lost"]
    assert prometheus.value(f"sum({names.LATE_LINES})") == sent["/late"]
    worked = f'sum({names.JOBS}{{{names.WORK_NAME}="reindex"}})'
    assert prometheus.value(worked) == 2 * sent["/work"]


def test_no_label_but_these(prometheus: Prometheus, driven: Shop) -> None:
    """What a scrape adds, and what we say; nothing of which there is no end."""
    everywhere = {"__name__", "instance", "job", "otel_scope_name", "otel_scope_version"}
    everywhere |= {"otel_scope_schema_url"}
    known = everywhere | {*names.LABELS, "le", "asok_trace_finding_kind", "url_scheme"}
    for metric, labels in prometheus.labels().items():
        assert labels <= known | {"network_protocol_version"}, metric


@pytest.mark.parametrize(
    "query",
    [pytest.param(q, id=f"{q.dashboard}-{q.panel}-{n}") for n, q in enumerate(
        queries.promql(__rate_interval="10s")
    )],
)  # fmt: skip
def test_each_query_of_each_dashboard_has_data(
    prometheus: Prometheus, driven: Shop, query: queries.Query
) -> None:
    """From a run of the example, of its own: no zero that stands in for data."""
    assert prometheus.has(query.own, instant=query.instant)


def test_each_rule_without_its_threshold_has_data(prometheus: Prometheus, driven: Shop) -> None:
    """What it watches is there, so that it can fire."""
    rules = prometheus.rules()
    assert rules
    for name, expression in rules.items():
        watched, _, threshold = expression.rpartition(" > ")
        float(threshold)
        assert prometheus.has(watched, instant=True), f"{name}: {watched}"


def test_a_worker_that_is_replaced(prometheus: Prometheus, driven: Shop, ports: int) -> None:
    """The new one takes the port of the old, and begins to count anew, which Prometheus sees."""
    old, kept = driven.asked
    kill(old, signal.SIGTERM)
    fresh: set[int] = set()
    deadline = time.monotonic() + SECONDS
    while not fresh:
        assert time.monotonic() < deadline, driven.server.output
        driven.get("/who")
        fresh = driven.asked.keys() - {old, kept}
    [new] = fresh
    both = [f"127.0.0.1:{port}" for port in (ports, ports + 1)]
    up = 'count(up{{instance=~"{}"}} == 1)'.format("|".join(both))
    reset = "sum(max_over_time(resets(http_server_request_duration_seconds_count[1m])[10s:1s]))"
    until(lambda: prometheus.value(up) == 2, lambda: driven.server.output)
    until(lambda: prometheus.value(reset) >= 1, lambda: driven.server.output)
    assert prometheus.value("sum(up)") == 2
    # The pages that did not fail, which said whose they were.
    answered = f'{COUNT[:-1]}{{http_response_status_code="200"}})'
    asked = driven.asked[kept] + driven.asked[new]
    until(lambda: prometheus.value(answered) == asked, lambda: prometheus.value(answered))

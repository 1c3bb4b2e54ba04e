"""Prometheus fetches the metrics of each process from a port of its own.

needs: flask, opentelemetry.exporter.prometheus
"""

import re
import socket
from pathlib import Path

import pytest

import asok_trace
from asok_trace import providers
from tests.metrics.ports import fetched, free, is_free
from tests.programs import run
from tests.serving import gunicorn, served

FLASK = """
import os, asok_trace
from flask import Flask

app = Flask(__name__)
asok_trace.setup(app, service="shop", access_log=False)


@app.get("/items/<int:number>")
def item(number):
    return str(os.getpid())
"""

_COUNT = re.compile(r"^http_server_request_duration_seconds_count\{.*\} ([0-9.]+)$", re.MULTILINE)


def counted(port: int) -> float:
    """How many requests the process behind ``port`` has served."""
    return sum(map(float, _COUNT.findall(fetched(port))))


def environment(port: int) -> dict[str, str]:
    """The scrape endpoint, from ``port`` on."""
    return {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
    }


@pytest.mark.parametrize("preload", [False, True], ids=["after the fork", "preloaded"])
def test_gunicorn(tmp_path: Path, preload: bool) -> None:
    """Each worker has the next port, also where the application was loaded before they were there:
    gunicorn's own process takes none. Together they have counted each request. All are free when
    they have ended."""
    first = free(3)
    command = gunicorn("shop:app", "--workers", "2", *(["--preload"] if preload else []))
    workers: dict[bytes, int] = {}
    with served(tmp_path, FLASK, *command, **environment(first)) as shop:
        while len(workers) < 2 or sum(workers.values()) < 20:
            answer = shop.get(f"/items/{sum(workers.values())}")
            workers[answer.body] = workers.get(answer.body, 0) + 1
        found = [counted(port) for port in (first, first + 1)]
        assert sorted(found) == sorted(workers.values())
        assert is_free(first + 2)
    assert is_free(first)
    assert is_free(first + 1)


PROGRAM = """
import os, threading, asok_trace
from flask import Flask

app = Flask(__name__)
asok_trace.setup(app, service="shop", access_log=False, level="strict", threads="carry")
app.add_url_rule("/", view_func=lambda: "home")
listening = threading.Event()

from asok_trace.stamp import scrape
bound = scrape._bound
def noted(*args):
    server = bound(*args)
    listening.set()
    return server
scrape._bound = noted

def serve():
    assert app.test_client().get("/", buffered=True).status_code == 200
    assert listening.wait(20)
"""

FETCH = "from tests.metrics.ports import fetched, is_free\n"


def test_not_before_the_first_request() -> None:
    """Whoever only loads the application takes no port; its first request does, without waiting."""
    port = free(1)
    run(
        FETCH + PROGRAM + f"assert is_free({port})\nserve()\nassert not is_free({port})",
        **environment(port),
    )


def test_the_endpoint_is_nobodys_request() -> None:
    """The thread that serves it was started in a request, and goes on without it: nothing is found
    in there, and nothing keeps it."""
    port = free(1)
    run(
        f"""{FETCH}{PROGRAM}
serve()
assert "http_server_request_duration_seconds_count" in fetched({port})
[thread] = [one for one in threading.enumerate() if one.name == "asok_trace-scrape"]
assert thread.daemon
asok_trace.assert_clean()
""",
        **environment(port),
    )


def test_a_port_that_is_taken() -> None:
    """By another program: it takes the next one. If no port is left, it is reported once, and
    requests go on."""
    with socket.socket() as taken:
        port = free(2)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        run(f"{FETCH}{PROGRAM}serve()\nassert fetched({port + 1})", **environment(port))
        out = run(
            f"""{PROGRAM}
import io, logging
told = io.StringIO()
logging.getLogger("asok_trace").addHandler(logging.StreamHandler(told))
scrape._PORTS = 1
done = threading.Event()
report = scrape.serving.failed
def failed(error):
    report(error)
    done.set()
class Noted:
    working = True
    failed = staticmethod(failed)
scrape.serving = Noted()
for _ in range(3):
    assert app.test_client().get("/", buffered=True).status_code == 200
assert done.wait(20)
print(told.getvalue())
""",
            **environment(port),
        )
    assert out.count("letting Prometheus fetch the metrics failed") == 1
    assert f"OTEL_EXPORTER_PROMETHEUS_PORT={port}: no port from there on is free" in out


def test_a_forked_child_lets_go_of_the_port() -> None:
    """A child that measures nothing holds no port; one that does has the next."""
    port = free(2)
    run(
        f"""{FETCH}{PROGRAM}
serve()
read, write = os.pipe()
child = os.fork()
if child == 0:
    listening.clear()
    os.read(read, 1)
    serve()
    assert fetched({port + 1}).count("http_server_request_duration_seconds_count{{") == 1
    os._exit(0)
assert is_free({port + 1})
os.write(write, b"1")
assert os.waitpid(child, 0)[1] == 0
""",
        **environment(port),
    )


def test_there_are_no_exemplars() -> None:
    """The official exporter leaves them out, whatever format it is asked for: they go with OTLP
    alone. If this fails, it has learned to, and our documentation is behind."""
    port = free(1)
    out = run(
        f"{FETCH}{PROGRAM}serve()\nprint(fetched({port}))",
        OTEL_TRACES_EXPORTER="console",
        **environment(port),
    )
    assert "http_server_request_duration_seconds_bucket{" in out
    assert out.rstrip().endswith("# EOF") or "# EOF" in out
    assert not re.search(r"_bucket\{.*\} \S+ # \{", out)


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "٣"])
def test_a_port_that_is_none(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at set-up."""
    for variable, value in (environment(1) | {"OTEL_EXPORTER_PROMETHEUS_PORT": port}).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(asok_trace.ConfigError, match=f'PORT="{port}" is no port. Use a number'):
        providers._exporters("metrics")


def test_the_exporter_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that has it is named."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setattr(providers, "entry_points", lambda **_: ())
    with pytest.raises(asok_trace.ConfigError, match=r"Install asok-trace\[prometheus\]"):
        providers._exporters("metrics")

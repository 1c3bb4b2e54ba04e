"""Every process of an application exports its spans: gunicorn's workers, started before or after
the application was loaded, and forked children; also what ends in a process's last moments. A
collector that is down costs requests nothing.

needs: asok, flask, flask_login, quart, quart_auth
"""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.contract.receiver import Received, Receiver, receiving
from tests.programs import run

START_SECONDS = 30.0

ASOK = """\
from asok import Asok

import asok_trace

app = Asok()
app.config["RATE_LIMIT"] = False
asok_trace.setup(app, service="shop", log_events=True)
"""

PAGE = """\
import os

import structlog


def get(request):
    structlog.get_logger().info("serving", worker=os.getpid())
    return str(os.getpid())
"""

PALLETS = """\
import os

import structlog
from {package} import {cls}

import asok_trace

app = {cls}(__name__)
asok_trace.setup(app, service="shop", log_events=True)


@app.get("/")
{define} home():
    structlog.get_logger().info("serving", worker=os.getpid())
    return str(os.getpid())
"""

SOURCES = {
    "asok": {"wsgi.py": ASOK, "src/pages/page.py": PAGE},
    "flask": {"wsgi.py": PALLETS.format(package="flask", cls="Flask", define="def")},
    "quart": {"wsgi.py": PALLETS.format(package="quart", cls="Quart", define="async def")},
}

# What a batch waits for is the end of the process, unless a program flushes.
NEVER = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}

Get = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector."""
    with receiving() as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A directory with an application that setup() has set up; of Asok, unless a test says."""
    for name, source in SOURCES[getattr(request, "param", "asok")].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return tmp_path


def gunicorn(root: Path, *arguments: str, **environment: str) -> AbstractContextManager[Get]:
    """Serve the application in two gunicorn workers."""
    command = ["gunicorn", "--workers", "2", "--bind", "fd://{fd}", *arguments, "wsgi:app"]
    return serving(root, command, environment, exits=(0,))


@contextmanager
def serving(
    root: Path, command: Sequence[str], environment: Mapping[str, str], exits: Sequence[int]
) -> Iterator[Get]:
    """Serve the application, and stop it at the end as an operator would.

    Gives a function that gets a path, over a connection of its own: the status, the request id
    and the body, which says which worker it was."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    with socket.socket() as listening, (root / "output.txt").open("wb") as output:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        process = subprocess.Popen(
            [
                Path(sysconfig.get_path("scripts")) / command[0],
                *(part.format(fd=listening.fileno()) for part in command[1:]),
            ],
            cwd=root,
            env={**inherited, **NEVER, **environment},
            stdout=output,
            stderr=output,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )

        def get(path: str) -> tuple[int, str, str]:
            connection = HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read().decode()
                return response.status, response.headers["X-Request-ID"], body
            finally:
                connection.close()

        try:
            yield get
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_SECONDS) in exits, (root / "output.txt").read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def from_both_workers(get: Get) -> dict[str, str]:
    """Ask until each of two workers has answered: request id -> process id."""
    answers: dict[str, str] = {}
    deadline = time.monotonic() + START_SECONDS
    while len(set(answers.values())) < 2:
        assert time.monotonic() < deadline, f"one worker answered: {answers}"
        status, request_id, worker = get("/")
        assert status == 200, worker
        answers[request_id] = worker
    return answers


# Python 3.12 starts no thread any more when it ends, and gevent looks names up in one: what an HTTP
# exporter has left then stays there.
GEVENT = [] if sys.version_info[:2] == (3, 12) else [("flask", "gevent")]


@pytest.mark.parametrize("preload", [False, True], ids=["after the fork", "preloaded"])
@pytest.mark.parametrize(
    ("shop", "worker"),
    [
        *(("asok", "sync"), ("asok", "gthread")),
        *(("flask", "sync"), ("flask", "gthread"), *GEVENT),
        *(("quart", "asgi"), ("quart", "uvicorn.workers.UvicornWorker")),
    ],
    indirect=["shop"],
)
def test_every_gunicorn_worker_exports(
    receiver: Receiver, shop: Path, worker: str, preload: bool
) -> None:
    """Each request's span arrives, once, from the worker that served it: when the worker goes,
    which is right after the last request here. It has the request id (which is the trace id),
    the log line as an event, and the service's name."""
    arguments = ["--worker-class", worker, *(["--preload"] if preload else [])]
    with gunicorn(shop, *arguments, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as get:
        answers = from_both_workers(get)
        assert receiver.spans == []
    assert_exported(receiver, answers)


@pytest.mark.parametrize("shop", ["quart"], indirect=True)
@pytest.mark.parametrize(
    "command",
    [
        ("uvicorn", "--workers", "2", "--fd", "{fd}", "wsgi:app"),
        ("hypercorn", "--workers", "2", "--bind", "fd://{fd}", "asgi:wsgi:app"),
    ],
    ids=lambda command: command[0],
)
def test_every_asgi_worker_exports(receiver: Receiver, shop: Path, command: Sequence[str]) -> None:
    """The same of the processes that ASGI servers start themselves."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    with serving(shop, command, environment, exits=(0, -signal.SIGTERM)) as get:
        answers = from_both_workers(get)
        assert receiver.spans == []
    assert_exported(receiver, answers)


def assert_exported(receiver: Receiver, answers: Mapping[str, str]) -> None:
    """Each request's span has arrived, once, from the worker that answered."""
    spans = receiver.until(lambda spans: len(spans) >= len(answers))
    assert {span.trace_id for span in spans} == set(answers)
    assert len(spans) == len(answers)
    by_worker: dict[str, set[int]] = {}
    for span in spans:
        assert span.name == "GET /"
        assert span.attributes["request.id"] == span.trace_id
        assert span.events.count("serving") == 1
        assert span.resource["service.name"] == "shop"
        by_worker.setdefault(answers[span.trace_id], set()).add(span.peer)
    one, other = by_worker.values()
    assert not one & other  # no connection has two owners


@pytest.mark.parametrize("shop", ["asok", "quart"], indirect=True)
def test_uvicorn_exports_when_it_is_stopped(receiver: Receiver, shop: Path) -> None:
    """It ends itself by the signal that it got, and nothing registered with atexit runs: what
    has ended is exported when the application is told to shut down."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    command = ["uvicorn", "--fd", "{fd}", "wsgi:app"]
    with serving(shop, command, environment, exits=(0, -signal.SIGTERM)) as get:
        status, request_id, _ = get("/")
        assert status == 200
        assert receiver.spans == []
    [span] = receiver.until(lambda spans: len(spans) >= 1)
    assert span.trace_id == request_id


def test_a_collector_that_is_down_costs_no_request(shop: Path) -> None:
    """Requests are answered while nobody listens at the endpoint, more of them than the queue
    has room for; the workers still stop in time."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        environment = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
            "OTEL_BSP_MAX_QUEUE_SIZE": "4",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        }
        with gunicorn(shop, **environment) as get:
            assert {get("/")[0] for _ in range(40)} == {200}


FORKED = """
import os, sys
import asok_trace
from opentelemetry import trace

asok_trace.setup(service="shop")
provider = trace.get_tracer_provider()

def work(name):
    with asok_trace.scope(name):
        provider.get_tracer("shop").start_span(name).end()

work("parent before")
{flush}
child = os.fork()
work("child" if child == 0 else "parent after")
if child == 0:
    provider.force_flush()
    work("child's last")
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
provider.force_flush()
"""


def named(spans: Sequence[Received]) -> dict[str, Received]:
    return {span.name: span for span in spans}


@pytest.mark.parametrize("flushed", [True, False], ids=["flushed before", "not flushed"])
def test_a_forked_child_exports(receiver: Receiver, flushed: bool) -> None:
    """What it does, and its parent what the parent does, each once; over connections of their
    own, also where the parent had one before."""
    run(
        FORKED.format(flush="provider.force_flush()" if flushed else ""),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        **NEVER,
    )
    spans = receiver.until(lambda spans: len(spans) >= 4)
    assert sorted(span.name for span in spans) == [
        *("child", "child's last", "parent after", "parent before")
    ]
    by_name = named(spans)
    assert by_name["child"].peer != by_name["parent before"].peer
    assert by_name["parent after"].peer == by_name["parent before"].peer


def test_a_child_is_not_held_up_by_its_parents_export(receiver: Receiver) -> None:
    """Forked while a thread of the parent exports, the child still exports its own."""
    run(
        """
import os, sys, threading
import asok_trace
from opentelemetry import trace

asok_trace.setup(service="shop")
provider = trace.get_tracer_provider()
tracer = provider.get_tracer("shop")
going = True

def export():
    while going:
        tracer.start_span("parent").end()
        provider.force_flush()

tracer.start_span("parent").end()
provider.force_flush()  # the first time it imports, and a fork amid an import is Python's own trap
exporting = threading.Thread(target=export)
exporting.start()
for number in range(10):
    child = os.fork()
    if child == 0:
        going = False
        tracer.start_span(f"child {number}").end()
        provider.force_flush()
        os._exit(0)  # the parent's thread is not here to be joined
    assert os.waitpid(child, 0)[1] == 0
going = False
exporting.join()
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        **NEVER,
    )
    children = {span.name for span in receiver.spans if span.name != "parent"}
    assert children == {f"child {number}" for number in range(10)}


def test_the_ring_of_a_forked_child_is_its_own() -> None:
    """It begins empty, and what it keeps its parent never sees."""
    out = run(FORKED.format(flush="") + "\nprint(asok_trace.report())")
    assert out.count("request.id=") == 2
    assert "child" not in out


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{}/v1/traces"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "{}", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_TRACES_EXPORTER": "otlp,console", "OTEL_EXPORTER_OTLP_ENDPOINT": "{}"},
    ],
)
def test_what_the_environment_says(receiver: Receiver, environment: dict[str, str]) -> None:
    """An endpoint for traces alone is enough; several exporters each get every span."""
    out = run(
        """
import asok_trace, sys
from opentelemetry import trace

asok_trace.setup()
trace.get_tracer("shop").start_span("one").end()
""",
        **{variable: value.format(receiver.endpoint) for variable, value in environment.items()},
        **NEVER,
    )
    assert [span.name for span in receiver.spans] == ["one"]
    assert ('"name": "one"' in out) == ("console" in str(environment))


def test_numbers_that_the_wire_has_no_room_for(receiver: Receiver) -> None:
    """A log line with one, made an event, does not fail the export of its batch."""
    run(
        """
import logging, structlog, asok_trace
from opentelemetry import trace

asok_trace.setup(log_events=True)
tracer = trace.get_tracer("shop")
with asok_trace.scope("nightly"), tracer.start_as_current_span("one"):
    structlog.get_logger().info("large", number=2**80, text="\\ud800", none=None)
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
    )
    assert [(span.name, span.events) for span in receiver.spans] == [("one", ["large"])]

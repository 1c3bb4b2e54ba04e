"""Log lines reach a collector, each once, with the trace and the request they are of: from every
process of an application, also in its last moments. A collector that is down or slow costs requests
nothing.

needs: asok, flask, flask_login, quart, quart_auth
"""

import json
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.contract.receiver import Logged, Receiver, receiving
from tests.contract.test_export import from_both_workers, gunicorn, serving
from tests.programs import run

# What is logged by each request, three ways. With CHAIN=stdlib structlog is on top of the
# standard library; else it has its one line, and prints.
LINES = """\
import logging
import os

import structlog


def log():
    structlog.get_logger("shop.page").info("serving", worker=os.getpid(), secret=None)
    logging.getLogger("shop.stock").info("%s left", 3, extra={"item": "hat"})
"""

CONFIGURED = """\
import logging
import os
import sys

import structlog
from pythonjsonlogger.json import JsonFormatter

handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JsonFormatter())
logging.basicConfig(level=logging.INFO, handlers=[handler])
if os.environ.get("CHAIN") == "stdlib":
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
"""

ASOK = (
    CONFIGURED
    + """
from asok import Asok

import asok_trace

app = Asok()
app.config["RATE_LIMIT"] = False
asok_trace.setup(app, service="shop")
"""
)

PAGE = """\
import os

import lines


def get(request):
    lines.log()
    return str(os.getpid())
"""

PALLETS = (
    CONFIGURED
    + """
from {package} import {cls}

import asok_trace
import lines

app = {cls}(__name__)
asok_trace.setup(app, service="shop")


@app.get("/")
{define} home():
    lines.log()
    return str(os.getpid())
"""
)

SOURCES = {
    "asok": {"wsgi.py": ASOK, "src/pages/page.py": PAGE},
    "flask": {"wsgi.py": PALLETS.format(package="flask", cls="Flask", define="def")},
    "quart": {"wsgi.py": PALLETS.format(package="quart", cls="Quart", define="async def")},
}

# What a batch waits for is the end of the process, unless a program flushes.
NEVER = {
    "OTEL_BLRP_SCHEDULE_DELAY": "3600000",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "50000",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "50000",
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector."""
    with receiving() as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A directory with an application that setup() has set up; of Asok, unless a test says."""
    sources = SOURCES[getattr(request, "param", "asok")]
    for name, source in {"lines.py": LINES, **sources}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return tmp_path


def of_requests(lines: Sequence[Logged]) -> list[Logged]:
    """Without what a server says of itself, and what asok adds of each request."""
    return [
        line
        for line in lines
        if "request_id" in line.attributes and not line.logger.startswith("asok.")
    ]


def assert_exported(
    receiver: Receiver, answers: Mapping[str, str], *, access: str | None, stdlib: bool
) -> None:
    """Each line of each request has arrived, once, from the worker that answered."""
    wanted = [("asok_trace.request" if stdlib else "structlog", "request")]
    wanted += [("shop.page" if stdlib else "structlog", "serving"), ("shop.stock", "3 left")]
    lines = of_requests(receiver.logs)
    by_request: dict[str, list[Logged]] = {request_id: [] for request_id in answers}
    for line in lines:
        by_request[line.attributes["request_id"]].append(line)
    by_worker: dict[str, set[int]] = {}
    for request_id, mine in by_request.items():
        worker = answers[request_id]
        told = Counter((line.logger, line.message) for line in mine if line.logger != access)
        assert told == Counter(wanted)
        assert [line.logger for line in mine].count(access or "") == (access is not None)
        for line in mine:
            # The request id is the trace id: we began the trace.
            assert line.trace_id == request_id
            assert len(line.span_id) == 16
            assert line.level == "INFO"
            assert line.attributes["path"] == "/"
            assert line.attributes["ip"] == "127.0.0.1"
            assert not {"trace_id", "span_id", "level", "event"} & set(line.attributes)
            assert line.resource["service.name"] == "shop"
            by_worker.setdefault(worker, set()).add(line.peer)
        by_message = {line.message: line.attributes for line in mine}
        assert by_message["serving"]["worker"] == int(worker)
        assert by_message["3 left"]["item"] == "hat"
        assert by_message["request"]["status"] == 200
        assert by_message["request"]["method"] == "GET"
        assert by_message["request"]["route"] == "/"
        assert by_message["request"]["duration_ms"] > 0
    one, other = by_worker.values()
    assert not one & other  # no connection has two owners


@pytest.mark.parametrize(
    ("shop", "chain", "arguments"),
    [
        ("asok", "one line", ("--worker-class", "sync")),
        ("asok", "stdlib", ("--worker-class", "gthread", "--preload")),
        ("flask", "stdlib", ("--worker-class", "sync")),
        ("flask", "one line", ("--worker-class", "gthread", "--preload")),
        ("quart", "one line", ("--worker-class", "asgi")),
        ("quart", "stdlib", ("--worker-class", "uvicorn.workers.UvicornWorker")),
    ],
    indirect=["shop"],
)
def test_every_gunicorn_worker_exports_its_lines(
    receiver: Receiver, shop: Path, chain: str, arguments: Sequence[str]
) -> None:
    """structlog's, the standard library's, the canonical line and the server's access line: they
    arrive when the worker goes, with the ids of the request that the client was told."""
    with gunicorn(
        shop,
        *("--access-logfile", "-", *arguments),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        CHAIN=chain,
        **NEVER,
    ) as get:
        answers = from_both_workers(get)
        assert receiver.logs == []
    uvicorns = "uvicorn.workers.UvicornWorker" in arguments
    access = "uvicorn.access" if uvicorns else "gunicorn.access"
    assert_exported(receiver, answers, access=access, stdlib=chain == "stdlib")


@pytest.mark.parametrize("shop", ["quart"], indirect=True)
@pytest.mark.parametrize(
    ("command", "access"),
    [
        (("uvicorn", "--workers", "2", "--fd", "{fd}", "wsgi:app"), "uvicorn.access"),
        (("hypercorn", "--workers", "2", "--bind", "fd://{fd}", "asgi:wsgi:app"), None),
    ],
    ids=["uvicorn", "hypercorn"],
)
def test_every_asgi_worker_exports_its_lines(
    receiver: Receiver, shop: Path, command: Sequence[str], access: str | None
) -> None:
    """The same of the processes that ASGI servers start themselves; some end by a signal, at
    which nothing registered with atexit runs."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **NEVER}
    with serving(shop, command, environment, exits=(0, -signal.SIGTERM)) as get:
        answers = from_both_workers(get)
        assert receiver.logs == []
    assert_exported(receiver, answers, access=access, stdlib=False)


@pytest.mark.parametrize("shop", ["flask"], indirect=True)
def test_what_is_printed_is_the_same(receiver: Receiver, shop: Path) -> None:
    """Lines go on being printed, as JSON with the same ids: for those who collect them there, who
    say OTEL_LOGS_EXPORTER=none, and then nothing is exported but the spans."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_LOGS_EXPORTER": "none",
    }
    with gunicorn(shop, **environment) as get:
        answers = from_both_workers(get)
    output = (shop / "output.txt").read_text(encoding="utf-8")
    # Another process's line may begin before this one's end of line is written.
    decode = json.JSONDecoder().raw_decode
    printed = [decode(line)[0] for line in output.splitlines() if line.startswith("{")]
    told = Counter(
        (line["request_id"], line.get("event") or line["message"])
        for line in printed
        if "request_id" in line and line["trace_id"] == line["request_id"] and line["span_id"]
    )
    messages = ("request", "serving", "3 left")
    assert told == Counter((request_id, said) for request_id in answers for said in messages)
    assert receiver.logs == []
    assert {span.trace_id for span in receiver.spans} == set(answers)


@pytest.fixture(params=["down", "silent"])
def collector(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a collector that is not there; or takes connections and says nothing."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        if request.param == "silent":
            nobody.listen()
        yield f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/logs"


def test_a_collector_that_takes_nothing_costs_no_request(shop: Path, collector: str) -> None:
    """Requests are answered meanwhile, more of them than the queue has room for; the workers still
    stop in time."""
    environment = {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": collector,
        "OTEL_BLRP_SCHEDULE_DELAY": "1",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "4",
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "2",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
    }
    with gunicorn(shop, **environment) as get:
        assert {get("/")[0] for _ in range(40)} == {200}


def test_it_goes_on_when_the_collector_is_back(receiver: Receiver) -> None:
    """What is logged while it is away waits in a queue of fixed size; lines that find it full are
    counted. What is logged of the exports, and by what makes them, is not exported."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        away = f"http://127.0.0.1:{port}/v1/logs"
        run(
            """
import logging, os, asok_trace
from asok_trace.stamp import exporting
from opentelemetry import _logs

logging.basicConfig(level=logging.DEBUG)
asok_trace.setup(service="shop")
log = logging.getLogger("shop")
[queue] = _logs.get_logger_provider()._multi_log_record_processor._log_record_processors
client = queue._watched._exporter._made._client
log.info("lost")
queue.force_flush()
assert queue._watched.failing
# While an export is tried: one that has waited its turn is tried as soon as a batch is full.
with queue._batch_processor._export_lock:
    for number in range(25):
        log.info("line %d", number)
    assert len(queue._batch_processor._queue) == 10
    client._endpoint = os.environ["BACK"]
queue.force_flush()
assert not queue._watched.failing
assert exporting.dropped() == {("logs", "queue_full"): 15, ("logs", "export_failed"): 1}
""",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=away,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
            BACK=receiver.endpoint + "/v1/logs",
            **NEVER | {"OTEL_BLRP_MAX_QUEUE_SIZE": "10", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "10"},
        )
    assert [line.message for line in receiver.logs] == [f"line {n}" for n in range(10)]


FORKED = """
import logging, os, sys
import asok_trace
from opentelemetry import _logs

logging.basicConfig(level=logging.INFO)
asok_trace.setup(service="shop")
provider = _logs.get_logger_provider()
log = logging.getLogger("shop")

log.info("parent before")
{flush}
child = os.fork()
log.info("child" if child == 0 else "parent after")
if child == 0:
    provider.force_flush()
    log.info("child's last")
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
provider.force_flush()
"""


@pytest.mark.parametrize("flushed", [True, False], ids=["flushed before", "not flushed"])
def test_a_forked_child_exports(receiver: Receiver, flushed: bool) -> None:
    """What it logs, and its parent what the parent does, each once; over connections of their own,
    also where the parent had one before."""
    run(
        FORKED.format(flush="provider.force_flush()" if flushed else ""),
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=receiver.endpoint + "/v1/logs",
        **NEVER,
    )
    by_message = {line.message: line for line in receiver.logs}
    assert len(receiver.logs) == len(by_message) == 4
    assert set(by_message) == {"child", "child's last", "parent after", "parent before"}
    assert by_message["child"].peer != by_message["parent before"].peer
    assert by_message["parent after"].peer == by_message["parent before"].peer


def test_the_last_words_of_a_process(receiver: Receiver) -> None:
    """What is logged while it ends is exported: a finding's first line, and how often all was
    found in the end. Undone before, nothing is; set up again, it goes on."""
    run(
        """
import logging, threading, asok_trace

def lost():
    for _ in range(3):
        logging.getLogger("shop").warning("lost")

handle = asok_trace.setup(service="shop", threads="watch")
handle.undo()
logging.warning("between")
asok_trace.setup(service="shop", threads="watch")
with asok_trace.scope("nightly") as scope:
    thread = threading.Thread(target=lost)
    thread.start()
    thread.join()
logging.warning(scope.request_id)
""",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=receiver.endpoint + "/v1/logs",
        **NEVER,
    )
    assert all(line.message != "between" for line in receiver.logs)
    finding, total = (line for line in receiver.logs if line.logger == "asok_trace")
    [request_id] = [line.message for line in receiver.logs if line.logger == "root"]
    assert finding.attributes["finding"] == "lost"
    assert finding.attributes["finding_key"].startswith("lost:")
    assert finding.attributes["request_id"] == request_id
    assert re.match(r"asok_trace found in all: .*lost 3 at 1 place\.", total.message)


def test_it_is_asked_for(receiver: Receiver) -> None:
    """By OTEL_LOGS_EXPORTER or an endpoint that is meant for log lines, too. A logger provider of
    somebody else's is left alone, and gets nothing twice."""
    program = """
import logging, asok_trace
{before}
asok_trace.setup(service="shop")
logging.warning("one")
"""
    traces = receiver.endpoint + "/v1/traces"
    run(program.format(before=""), OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=traces)
    before = """
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
_logs.set_logger_provider(LoggerProvider())
"""
    run(program.format(before=before), OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    assert receiver.logs == []
    out = run(program.format(before=""), OTEL_LOGS_EXPORTER="console")
    assert json.loads(out)["body"] == "one"


def test_an_sdk_that_is_too_old() -> None:
    """Setting up says so, before any provider is set, and what to do about it."""
    out = run(
        """
import sys, asok_trace
from opentelemetry import trace

sys.modules["asok_trace.stamp.line_queue"] = None  # as where the SDK has not its names
try:
    asok_trace.setup()
except asok_trace.ConfigError as error:
    print(error)
assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
""",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_LOGS_EXPORTER="otlp",
    )
    assert "opentelemetry-sdk" in out
    assert "OTEL_LOGS_EXPORTER=none" in out

"""`opentelemetry-instrument python app.py` hooks up each Asok, Flask and Quart application, with
no line of ours in the program.

needs: asok, flask, opentelemetry.instrumentation, pythonjsonlogger, quart
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import run
from tests.serving import SECONDS, Document, documents, environment

PAGE = """
import structlog

def get(request):
    structlog.get_logger().info("inside")
    if request.path == "/boom":
        raise LookupError("boom")
    return "hello"
"""

# Each prints what its client got.
ASOK = """
from asok import Asok
from tests.gateway.sites import wsgi

class Shop(Asok):
    pass

app = Shop(".")
for path in ("/", "/boom", "/nowhere"):
    reply = wsgi(app, path)
    tell(path, reply.status, reply.ids)
"""

FLASK = """
from flask import Flask, Response

class Shop(Flask):
    def __init__(self, *args):
        super().__init__(*args)
        self.config["ITS"] = "own"

app = Shop(__name__)

@app.get("/")
def hello():
    structlog.get_logger().info("inside")
    return Response(iter(["hel", "lo"]))

@app.get("/boom")
def boom():
    structlog.get_logger().info("inside")
    raise LookupError("boom")

client = app.test_client()
for path in ("/", "/boom", "/nowhere"):
    reply = client.get(path, buffered=True)
    tell(path, reply.status_code, reply.headers.getlist("X-Request-ID"))
"""

QUART = """
import asyncio
from quart import Quart, Response

class Shop(Quart):
    def __init__(self, *args):
        super().__init__(*args)
        self.config["ITS"] = "own"

app = Shop(__name__)

async def parts():
    yield b"hel"
    yield b"lo"

@app.get("/")
async def hello():
    structlog.get_logger().info("inside")
    return Response(parts())

@app.get("/boom")
async def boom():
    structlog.get_logger().info("inside")
    raise LookupError("boom")

async def main():
    client = app.test_client()
    for path in ("/", "/boom", "/nowhere"):
        reply = await client.get(path)
        tell(path, reply.status_code, reply.headers.getlist("X-Request-ID"))

asyncio.run(main())
"""

START = """
import json, os
import structlog

os.environ["SECRET_KEY"] = "a-key-for-tests-that-is-long-enough-0123456789"

def tell(path, status, ids):
    print(json.dumps({"told": path, "status": status, "ids": ids}))
"""

# What a program says that wants stamped lines of structlog; the rest needs nothing.
CHAIN = """
import asok_trace
structlog.configure(processors=[asok_trace.inject])
"""

PROGRAMS = {"asok": ASOK, "flask": FLASK, "quart": QUART}
OTHERS = "flask,asgi,wsgi,httpx,threading,starlette,fastapi"


def launched(folder: Path, program: str, **variables: str) -> tuple[list[Document], str]:
    """The JSON objects that ``program`` prints under opentelemetry-instrument, and what it
    complains of."""
    for page in ("", "boom"):
        path = folder / "src" / "pages" / page / "page.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE, encoding="utf-8")
    (folder / "shop.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "opentelemetry-instrument", sys.executable, "shop.py"],
        cwd=folder,
        env=environment(
            OTEL_TRACES_EXPORTER="console",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            **variables,
        ),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return documents(done.stdout), done.stderr


@pytest.mark.parametrize("others", ["", OTHERS], ids=["with others", "alone"])
@pytest.mark.parametrize("framework", PROGRAMS)
def test_a_launched_program(tmp_path: Path, framework: str, others: str) -> None:
    """The response to each request has the header; there is one SERVER span for it, with our
    attributes; its lines are stamped with the ids of that span's trace. So it is for subclasses,
    and beside OpenTelemetry's own instrumentors."""
    found, complaints = launched(
        tmp_path,
        START + CHAIN + PROGRAMS[framework],
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=others,
    )
    told = {line["told"]: line for line in found if "told" in line}
    assert [line["status"] for line in told.values()] == [200, 500, 404]
    spans = [line for line in found if line.get("kind") == "SpanKind.SERVER"]
    assert len(spans) == 3
    for path, line in told.items():
        [request_id] = line["ids"]
        [about] = [s["attributes"] for s in spans if s["attributes"]["request.id"] == request_id]
        assert about["url.path"] == path
        assert about["http.response.status_code"] == line["status"]
        lines = [one for one in found if one.get("request_id") == request_id]
        events = [one["event"] for one in lines if one["event"] in ("inside", "request")]
        assert events == (["request"] if path == "/nowhere" else ["inside", "request"])
        assert {one["trace_id"] for one in lines} == {request_id}
    assert "Failed to detach" not in complaints
    assert "asok_trace" not in complaints.replace("/asok_trace/", "")


def test_the_standard_library_s_records_are_stamped(tmp_path: Path) -> None:
    """A program that knows nothing of us: its logging is stamped all the same."""
    program = """
import json, logging, sys
from flask import Flask

class Json(logging.Formatter):
    def format(self, record):
        return json.dumps({"logged": record.msg, "id": getattr(record, "request_id", None)})

handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(Json())
logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
app = Flask(__name__)

@app.get("/")
def hello():
    logging.getLogger("shop").info("inside")
    return "hello"

reply = app.test_client().get("/")
print(json.dumps({"told": reply.headers.getlist("X-Request-ID")}))
"""
    found, _ = launched(tmp_path, program)
    [told] = [line["told"] for line in found if "told" in line]
    assert [line["id"] for line in found if line.get("logged") == "inside"] == told


def test_a_program_that_sets_up_itself(tmp_path: Path) -> None:
    """What the program says of its application holds, whatever the launcher has done before it;
    undo() gives the application back."""
    program = (
        START
        + """
import asok_trace
from flask import Flask

app = Flask(__name__)
handle = asok_trace.setup(app, request_id_header="X-Trace", access_log=False)
reply = app.test_client().get("/", buffered=True)
ids = reply.headers.getlist("X-Trace") + reply.headers.getlist("X-Request-ID")
tell("/", reply.status_code, ids)
handle.undo()
reply = app.test_client().get("/", buffered=True)
tell("/undone", reply.status_code, reply.headers.getlist("X-Trace"))
"""
    )
    found, _ = launched(tmp_path, program, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=OTHERS)
    told = {line["told"]: line["ids"] for line in found if "told" in line}
    assert (len(told["/"]), told["/undone"]) == (1, [])
    assert not any(line.get("event") == "request" for line in found)
    assert len([line for line in found if line.get("kind") == "SpanKind.SERVER"]) == 1


def test_the_sdk_is_disabled(tmp_path: Path) -> None:
    """OTEL_SDK_DISABLED=true makes no span, and the ids are there all the same."""
    found, _ = launched(tmp_path, START + CHAIN + FLASK, OTEL_SDK_DISABLED="true")
    told = [line["ids"] for line in found if "told" in line]
    assert [len(ids) for ids in told] == [1, 1, 1]
    assert not any("context" in line for line in found)


CLASSES = """
import gc, logging, os, weakref
os.environ["SECRET_KEY"] = "a-key-for-tests-that-is-long-enough-0123456789"
import asok, flask, quart
from asok_trace.stamp import stdlib
from asok_trace.tools import instrumentors

pairs = (
    (instrumentors.AsokInstrumentor, asok.Asok, "."),
    (instrumentors.FlaskInstrumentor, flask.Flask, "shop"),
    (instrumentors.QuartInstrumentor, quart.Quart, "shop"),
)
def hooked(app):
    return "_asok_trace" in vars(app)

before = [(cls(name), cls.__init__) for _, cls, name in pairs]
for instrumentor, _, _ in pairs:
    instrumentor().instrument()
during = [cls(name) for _, cls, name in pairs]
refs = [weakref.ref(cls(name)) for _, cls, name in pairs[1:]]
gc.collect()
print("before", [hooked(app) for app, _ in before])
print("during", [hooked(app) for app in during])
print("freed", [ref() is None for ref in refs])
print("signature", flask.Flask.__init__.__wrapped__ is before[1][1])
for number, (instrumentor, cls, name) in enumerate(pairs):
    instrumentor().uninstrument()
    gone = hooked(during[number]), hooked(cls(name))
    print("uninstrumented", *gone, cls.__init__ is before[number][1])
    print("logging", stdlib.active())
for instrumentor, cls, name in pairs:
    instrumentor().instrument()
    print("again", hooked(cls(name)))
"""


def test_instrument_and_uninstrument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the three classes, applications made while it is on are hooked up, and given back
    afterwards; none is kept alive, and it can be turned on again."""
    monkeypatch.chdir(tmp_path)
    told = [line for line in run(CLASSES).splitlines() if line.split(" ")[0] in WORDS]
    assert told == [
        "before [False, False, False]",
        "during [True, True, True]",
        "freed [True, True]",
        "signature True",
        "uninstrumented False False True",
        "logging True",
        "uninstrumented False False True",
        "logging True",
        "uninstrumented False False True",
        "logging False",
        *["again True"] * 3,
    ]


WORDS = ("before", "during", "freed", "signature", "uninstrumented", "logging", "again")


def test_a_framework_that_is_not_there(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Without it nothing is done: OpenTelemetry says what it has missed."""
    from asok_trace.tools.instrumentors import QuartInstrumentor

    monkeypatch.setattr(QuartInstrumentor, "_needs", ("a-package-that-nobody-has >= 1",))
    instrumentor = QuartInstrumentor()
    instrumentor.instrument()
    assert not instrumentor.is_instrumented_by_opentelemetry
    assert "a-package-that-nobody-has" in caplog.text

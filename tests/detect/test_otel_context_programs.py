"""`OTEL_PYTHON_CONTEXT=asok_trace_strict`, from outside: programs and servers that set it, or not.

needs: asok, flask, gunicorn, pythonjsonlogger, quart, uvicorn
"""

from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.serving import gunicorn, served, uvicorn

STRICT = {"OTEL_PYTHON_CONTEXT": "asok_trace_strict"}

ORDERS = {
    "opentelemetry first": "import opentelemetry.context, asok_trace",
    "asok_trace first": "import asok_trace, opentelemetry.context",
    "inject first": "from asok_trace import inject; import opentelemetry.context",
    "stamper first": "from asok_trace import SpanStamper; import opentelemetry.context",
    "setup first": "import asok_trace; asok_trace.setup(); import opentelemetry.context",
    "our module first": "import asok_trace.detect.otel_context; import opentelemetry.context",
    "flask": "import flask, asok_trace; asok_trace.setup(flask.Flask('shop'))",
    "quart": "import asok_trace, quart; asok_trace.setup(quart.Quart('shop'))",
    "asok": "import asok_trace, asok; asok_trace.setup(asok.Asok('.'))",
}

USE = """
import logging
import sys

logging.basicConfig(format="%(name)s %(levelname)s %(message)s", stream=sys.stdout)
import contextvars, opentelemetry.context as api
print(type(api._RUNTIME_CONTEXT).__name__)
token = api.attach(api.Context())
contextvars.copy_context().run(api.detach, token)
api.detach(token)
"""


def _quiet(program: str, **environment: str) -> str:
    return programs.run(
        program, OTEL_TRACES_EXPORTER="none", SECRET_KEY="a-key-for-tests" * 4, **environment
    )


@pytest.mark.parametrize("order", ORDERS)
def test_whichever_is_imported_first(order: str) -> None:
    """The strict context is in use, and reports instead of OpenTelemetry."""
    printed = _quiet(ORDERS[order] + USE, **STRICT)
    assert "\nStrictContext\n" in f"\n{printed}"
    assert printed.count("foreign: ") == 1
    assert "opentelemetry" not in printed.replace("opentelemetry.context", "")
    assert "Failed to" not in printed


@pytest.mark.parametrize("order", ["opentelemetry first", "asok_trace first", "flask"])
def test_without_the_variable_the_plain_context_is_untouched(order: str) -> None:
    """Its class, its tokens and its own complaint."""
    program = f"""{ORDERS[order]}{USE}
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext as Plain
assert type(api._RUNTIME_CONTEXT) is Plain
assert set(vars(api._RUNTIME_CONTEXT)) == {{"_current_context"}}
assert type(token) is contextvars.Token
assert asok_trace.findings() == []
assert "asok_trace.detect.otel_context" not in sys.modules
"""
    printed = _quiet(program)
    assert "\nContextVarsRuntimeContext\n" in f"\n{printed}"
    assert "opentelemetry.context ERROR Failed to detach context" in printed


AT_EXIT = """
import opentelemetry.context as api
from opentelemetry.sdk.trace import TracerProvider

class Circle:
    pass

def numbers():
    with TracerProvider().get_tracer("shop").start_as_current_span("numbers"):
        yield 1

kept = api.attach(api.Context())
circle = Circle()
circle.me, circle.token = circle, api.attach(api.Context())
circle.numbers = numbers()
next(circle.numbers)
"""


def test_nothing_is_said_while_the_interpreter_ends() -> None:
    """What is still attached then is nobody's mistake, and half of the modules are gone."""
    program = f"import os, sys\nos.dup2(1, 2)\n{AT_EXIT}"
    assert _quiet(program, **STRICT) == ""


LATE = """
import logging, sys

class Handler(logging.Handler):
    def emit(self, record):
        print(record.levelname, record.getMessage())

logging.getLogger("asok_trace").addHandler(Handler())
logging.getLogger("asok_trace").setLevel(logging.INFO)
import asok_trace, flask
"""
TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""
INSTRUMENT = """
for name in ("a", "b"):
    asok_trace.instrument(flask.Flask(name), level="strict")
"""
TOO_LATE = [
    (TRACED + INSTRUMENT, {}, 1),
    ("asok_trace.setup(flask.Flask('a'), level='strict')", {}, 1),
    ("asok_trace.setup(level='strict')", {}, 1),
    (TRACED + INSTRUMENT, STRICT, 0),
    ("asok_trace.setup(flask.Flask('a'), level='strict')", STRICT, 0),
    (INSTRUMENT, {}, 0),  # nobody traces
    (TRACED + INSTRUMENT.replace("strict", "basic"), {}, 0),
]


@pytest.mark.parametrize(("program", "environment", "times"), TOO_LATE)
def test_strict_that_comes_too_late_says_so_once(
    program: str, environment: dict[str, str], times: int
) -> None:
    """What to set, and where; nothing where it is set, or where nobody traces."""
    printed = _quiet(LATE + program, **environment)
    assert printed.count("OTEL_PYTHON_CONTEXT=asok_trace_strict in the environment") == times
    assert printed.count("INFO asok_trace:") == times


APP = """
import contextvars
import asok_trace
import opentelemetry.context as api
from opentelemetry import trace

tracer = trace.get_tracer("shop")

def report():
    slugs = [finding.slug for finding in asok_trace.findings()]
    return " ".join([type(api._RUNTIME_CONTEXT).__name__, *slugs])

def bug():
    token = api.attach(trace.set_span_in_context(tracer.start_span("moved")))
    contextvars.copy_context().run(api.detach, token)
    return "done"

def work():
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        return "fine"

def steps():
    with tracer.start_as_current_span("stream"):
        for number in range(3):
            with tracer.start_as_current_span("step"):
                yield str(number)
"""

FLASK = (
    APP
    + """
import flask

app = flask.Flask("shop")
for view in (work, report, bug):
    app.add_url_rule(f"/{view.__name__}", view.__name__, view)
app.add_url_rule("/stream", "stream", lambda: flask.Response(steps()))
app.add_url_rule("/held", "held", lambda: flask.Response(flask.stream_with_context(steps())))
asok_trace.setup(app, level="strict")
"""
)

QUART = (
    APP
    + """
import quart

app = quart.Quart("shop")

app.get("/report")(report)
app.get("/held")(work)

@app.get("/work", endpoint="async_work")
async def async_work():
    return work()

@app.get("/bug", endpoint="async_bug")
async def async_bug():
    return bug()

@app.get("/stream")
async def stream():
    async def body():
        with tracer.start_as_current_span("stream"):
            yield "a"
            yield "b"
    return quart.Response(body())

asok_trace.setup(app, level="strict")
"""
)

ASOK = (
    APP
    + """
import pathlib
import asok

for name, source in {
    "work": "import shop\\ndef get(request):\\n    return shop.work()\\n",
    "report": "import shop\\ndef get(request):\\n    return shop.report()\\n",
    "bug": "import shop\\ndef get(request):\\n    return shop.bug()\\n",
    "held": "import shop\\nasync def get(request):\\n    return shop.work()\\n",
    "stream": "import shop\\ndef get(request):\\n    yield from shop.steps()\\n",
}.items():
    folder = pathlib.Path("src/pages") / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "page.py").write_text(source)
app = asok.Asok(".")
asok_trace.setup(app, level="strict")
"""
)

SITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "flask, gunicorn": (FLASK, gunicorn("shop:app", "--threads", "4")),
    "quart, uvicorn": (QUART, uvicorn("shop:app")),
    "asok, gunicorn": (ASOK, gunicorn("shop:app", "--threads", "4")),
    "asok, uvicorn": (ASOK, uvicorn("shop:app")),
}


@pytest.mark.parametrize("site", SITES)
def test_a_server_that_is_right_has_no_findings(site: str, tmp_path: Path) -> None:
    """Streams included, many requests at a time; then one that is wrong has exactly one. And
    OpenTelemetry complains of nothing."""
    program, command = SITES[site]
    variables: dict[str, Any] = {**STRICT, "OTEL_TRACES_EXPORTER": "none"}
    variables["SECRET_KEY"] = "a-key-for-tests" * 4
    with served(tmp_path, program, *command, **variables) as running:
        for _ in range(3):
            paths = [f"/{p}?{n}" for n in range(4) for p in ("work", "stream", "held")]
            answers = running.together(paths)
            assert {answer.status for answer in answers.values()} == {200}
        assert running.get("/report").body == b"StrictContext"
        assert running.get("/bug").status == 200
        assert running.get("/report").body == b"StrictContext foreign"
    assert "Failed to detach" not in running.output

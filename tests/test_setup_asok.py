"""`setup(app)` with a real application: its requests in the log and in the report; and what
`instrument` alone does not need.

needs: asok
"""

import json
from pathlib import Path

import pytest

from tests.programs import run

SECRET_KEY = "a-key-for-tests-that-is-long-enough-0123456789"

# An application with one page, and a client of it.
START = """
import json, logging, pathlib, sys
import structlog
from asok import Asok
from asok.testing import TestClient
import asok_trace

root = pathlib.Path({root!r})
page = root / "src" / "pages" / "page.py"
page.parent.mkdir(parents=True, exist_ok=True)
page.write_text('''
import structlog

def get(request):
    structlog.get_logger().info("serving")
    return "ok"
''')
app = Asok(str(root))
app._session_store.stop_cleanup_timer()
logging.getLogger("asok").handlers.clear()

def get(path="/"):
    response = TestClient(app).get(path)
    assert response.status_code == 200, response.body
    return response.headers["X-Request-ID"]
"""


@pytest.fixture
def start(tmp_path: Path) -> str:
    """The beginning of a program with an application."""
    return START.format(root=str(tmp_path))


def test_one_call_does_it_all(start: str) -> None:
    """A request is two stamped lines on the console, the page's and the canonical one, and a
    span in the report, with its id, path and duration."""
    out = run(
        start
        + """
asok_trace.setup(app)
print(get())
print(asok_trace.report())
""",
        SECRET_KEY=SECRET_KEY,
    )
    serving, canonical, request_id, tree = out.splitlines()
    lines = [json.loads(serving), json.loads(canonical)]
    assert [line["event"] for line in lines] == ["serving", "request"]
    for line in lines:
        assert line["request_id"] == line["trace_id"] == request_id
        assert len(line["span_id"]) == 16
        assert line["path"] == "/"
    assert tree.startswith("GET /  ")
    assert f"ms  request.id={request_id}  url.path=/" in tree


def test_twice_and_back(start: str) -> None:
    """Again it changes nothing: one span, one canonical line. undo() gives the application and
    the log lines back."""
    out = run(
        start
        + """
first = asok_trace.setup(app)
second = asok_trace.setup(app)
get()
second.undo()
get()
first.undo()
assert not {"_wsgi_call", "_asgi_call", "_asok_trace"} & vars(app).keys()
assert "X-Request-ID" not in TestClient(app).get("/").headers
assert not structlog.is_configured()
assert asok_trace.report().count("GET /") == 2, asok_trace.report()
""",
        SECRET_KEY=SECRET_KEY,
    )
    said = [json.loads(line)["event"] for line in out.splitlines() if line.startswith("{")]
    assert said == ["serving", "request"] * 2


def test_an_instrumented_application_stays_so(start: str) -> None:
    """setup(app) after instrument(app) adds the rest, and takes the rest back alone; other
    settings are refused before anything is set."""
    run(
        start
        + """
asok_trace.instrument(app)
try:
    asok_trace.setup(app, access_log=False)
except asok_trace.ConfigError as error:
    assert "is instrumented already" in str(error)
else:
    raise AssertionError
assert not structlog.is_configured()
asok_trace.setup(app).undo()
assert get()
""",
        SECRET_KEY=SECRET_KEY,
    )


def test_the_spans_of_the_applications_own_provider(start: str) -> None:
    """A provider that is there gets the server span, and every span inside it is stamped."""
    run(
        start
        + """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
page.write_text('''
from opentelemetry import trace

def get(request):
    with trace.get_tracer("shop").start_as_current_span("work"):
        return "ok"
''')
asok_trace.setup(app)
request_id = get()
work, server = exporter.get_finished_spans()
assert (work.name, server.name) == ("work", "GET /")
for span in work, server:
    assert span.attributes["request.id"] == request_id
    assert span.attributes["url.path"] == "/"
assert trace.get_tracer_provider() is provider
""",
        SECRET_KEY=SECRET_KEY,
    )


def test_instrument_alone_needs_no_opentelemetry(start: str) -> None:
    """Where nobody has set an SDK up, lines are stamped, no span is started and no module of
    OpenTelemetry is ever imported; not even by log_events."""
    out = run(
        start
        + """
structlog.configure(processors=[asok_trace.inject])
asok_trace.instrument(app, log_events=True)
asok_trace.stamp_logging()
print(get())
assert not [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]
""",
        SECRET_KEY=SECRET_KEY,
    )
    serving, canonical, request_id = out.splitlines()
    for line in json.loads(serving), json.loads(canonical):
        assert line["request_id"] == request_id
        assert "trace_id" not in line

"""`RequestIdPropagator`: an outgoing call carries the request's id if ``OTEL_PROPAGATORS`` says
so, and only then.

needs: httpx, opentelemetry.instrumentation, opentelemetry.instrumentation.httpx
"""

from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
from opentelemetry.context import Context

import asok_trace
from asok_trace.core import settings
from asok_trace.frameworks import lookup
from asok_trace.propagate.propagator import RequestIdPropagator, sending
from tests.programs import run

NAMED = "tracecontext,baggage,asok_trace"

# A server in a thread keeps the headers of what it is asked; `call()` asks it with an
# instrumented client, in a span.
PROGRAM = """
import http.server, threading

{imports}
import httpx
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider

received = []

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        received.append({{name.lower(): value for name, value in self.headers.items()}})
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
thread = threading.Thread(target=server.serve_forever, daemon=True)
thread.start()
trace.set_tracer_provider(TracerProvider())
HTTPXClientInstrumentor().instrument()
tracer = trace.get_tracer("calls")

def call():
    with httpx.Client(trust_env=False) as client, tracer.start_as_current_span("call") as span:
        reply = client.get(f"http://127.0.0.1:{{server.server_port}}/")
    assert reply.status_code == 204
    headers = received.pop()
    trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    assert headers["traceparent"].split("-")[1] == trace_id, headers
    return headers

{body}
server.shutdown()
server.server_close()
thread.join(30)
"""

IN_A_REQUEST = """
with asok_trace.scope("a") as scope:
    headers = call()
"""


def program(body: str, imports: str = "import asok_trace") -> str:
    return PROGRAM.format(imports=imports, body=body)


FIRST = {
    "ours": "import asok_trace; asok_trace.scope",
    "ours, all of it": "import asok_trace; asok_trace.instrument; asok_trace.inject",
    "ours, the propagator": "import asok_trace.propagate.propagator, asok_trace",
    "theirs": "import opentelemetry.propagate, asok_trace",
    "theirs, all of it": "import opentelemetry.sdk.trace, opentelemetry.propagate, asok_trace",
}


@pytest.mark.parametrize("imports", FIRST.values(), ids=FIRST.keys())
def test_an_outgoing_call_carries_the_id(imports: str) -> None:
    """With asok_trace in OTEL_PROPAGATORS, whichever library is imported first: the request's
    id, and the trace of its span."""
    check = 'assert headers["x-request-id"] == scope.request_id, headers'
    run(program(IN_A_REQUEST + check, imports), OTEL_PROPAGATORS=NAMED)


@pytest.mark.parametrize("environment", [{}, {"OTEL_PROPAGATORS": "tracecontext,baggage"}])
def test_never_on_its_own_account(environment: dict[str, str]) -> None:
    """Without our name in OTEL_PROPAGATORS no id leaves the process, but the trace does."""
    run(program(IN_A_REQUEST + 'assert "x-request-id" not in headers, headers'), **environment)


def test_outside_any_request_there_is_no_id() -> None:
    """Neither before a request, nor after it."""
    check = """
assert "x-request-id" not in call()
with asok_trace.scope("a"):
    call()
assert "x-request-id" not in call()
"""
    run(program(check), OTEL_PROPAGATORS=NAMED)


def test_each_call_carries_the_id_of_its_own_request() -> None:
    """From threads of two requests at once."""
    check = """
from concurrent.futures import ThreadPoolExecutor
barrier = threading.Barrier(2)
def ask():
    barrier.wait(30)
    with httpx.Client(trust_env=False) as client:
        client.get(f"http://127.0.0.1:{server.server_port}/", headers={"name": scope_name()})
def scope_name():
    return asok_trace.current().request_id
with asok_trace.propagate_threads(), ThreadPoolExecutor(2) as pool:
    jobs = []
    for name in "ab":
        with asok_trace.scope(name):
            jobs.append(pool.submit(asok_trace.wrap(ask, outlive=True)))
    for job in jobs:
        job.result(30)
assert len({headers["name"] for headers in received}) == 2
for headers in received:
    assert headers["x-request-id"] == headers["name"]
"""
    run(program(check), OTEL_PROPAGATORS=NAMED)


def test_the_header_is_the_one_of_the_settings() -> None:
    """``request_id_header``, from ``setup`` or the environment."""
    check = """
assert headers["x-correlation-id"] == scope.request_id, headers
assert "x-request-id" not in headers
"""
    name = "X-Correlation-ID"
    run(
        program(IN_A_REQUEST + check),
        OTEL_PROPAGATORS=NAMED,
        ASOK_TRACE_REQUEST_ID_HEADER=name,
    )
    set_up = f"\nasok_trace.setup(request_id_header={name!r})\n"
    run(program(set_up + IN_A_REQUEST + check), OTEL_PROPAGATORS=NAMED)


def test_a_fault_of_ours_breaks_no_call() -> None:
    """The calls are made, without the id; it is said once."""
    check = """
import logging
from asok_trace.frameworks import lookup
records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("asok_trace").addHandler(handler)
lookup.here = lambda: 1 / 0
with asok_trace.scope("a"):
    for _ in range(2):
        assert "x-request-id" not in call()
[record] = records
assert "sending the request id to another service failed" in record.getMessage()
"""
    run(program(check), OTEL_PROPAGATORS=NAMED)


# In this process.


def test_the_entry_point() -> None:
    """OTEL_PROPAGATORS finds it under our name, and it is what it should be."""
    [found] = entry_points(group="opentelemetry_propagator", name="asok_trace")
    assert found.load() is RequestIdPropagator


@pytest.mark.parametrize("header", ["X-Request-ID", "X-Correlation-ID"])
def test_it_sets_one_field(header: str) -> None:
    """The one it names in `fields`, which others clear before they inject again."""
    settings.set_default(settings.Settings(request_id_header=header))
    propagator, carrier = RequestIdPropagator(), {"other": "kept"}
    with asok_trace.scope("a") as scope:
        propagator.inject(carrier)
    assert carrier == {"other": "kept", header: scope.request_id}
    assert propagator.fields == {header}


def test_it_reads_nothing() -> None:
    """The context comes back as it was, whatever the carrier says; an empty one for None."""
    context = Context({"a": 1})
    propagator = RequestIdPropagator()
    assert propagator.extract({"X-Request-ID": "theirs"}, context) is context
    assert propagator.extract({"X-Request-ID": "theirs"}) == {}
    assert asok_trace.current() is None


def fails(*_args: object) -> None:
    raise LookupError("ours")


@pytest.mark.parametrize(
    "break_it",
    [
        lambda patch: patch.setattr(lookup, "here", fails),
        lambda patch: patch.setattr(settings, "default", fails),
    ],
    ids=["lookup", "settings"],
)
def test_a_fault_is_said_once(
    break_it: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Injecting never raises; the piece is off after the first fault."""
    carrier: dict[str, str] = {}
    with asok_trace.scope("a"):
        break_it(monkeypatch)
        for _ in range(3):
            RequestIdPropagator().inject(carrier)
        monkeypatch.undo()
    assert carrier == {}
    assert not sending.working
    assert len(caplog.records) == 1

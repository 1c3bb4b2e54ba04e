"""`propagate_threads` beside OpenTelemetry's and Sentry's own threading instrumentations, which
replace the same methods: whoever comes first, and whoever leaves first.

needs: sentry_sdk, opentelemetry.instrumentation, opentelemetry.instrumentation.threading
"""

import itertools

import pytest

from tests.programs import run

# `seen()` is asked in every thread and job. A test adds who is installed, in which order, and
# what is checked then.
PROGRAM = """
import gc, threading, weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import sentry_sdk, structlog
from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.transport import Transport

import asok_trace

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("others")
HELD = ContextVar("held", default=None)

events = []

class Caught(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            events.append(event)

handles = []
INSTALL = {
    "ours": lambda: handles.append(asok_trace.propagate_threads()),
    "otel": lambda: ThreadingInstrumentor().instrument(),
    "sentry": lambda: sentry_sdk.init(dsn="http://key@localhost/1", transport=Caught),
}
REMOVE = {
    "ours": lambda: handles.pop().undo(),
    "otel": lambda: ThreadingInstrumentor().uninstrument(),
}

class Held:
    pass

class Thread(threading.Thread):
    def __init__(self, then):
        super().__init__()
        self.then = then
    def run(self):
        self.then()

def seen():
    scope = asok_trace.current()
    return (
        scope and scope.request_id,
        trace.get_current_span().get_span_context().span_id,
        structlog.contextvars.get_contextvars().get("tenant"),
        sentry_sdk.get_isolation_scope()._tags.get("tenant"),
        None if HELD.get() is None else HELD.get() is held(),
    )

def in_thread(make):
    found = []
    thread = make(lambda: found.append(seen()))
    thread.start()
    thread.join(30)
    assert "asok_trace" not in repr(vars(thread).get("run"))
    [one] = found  # it has run, and once
    threads.append(thread)
    return one

threads, pool = [], ThreadPoolExecutor(1)

def everywhere():
    return [
        in_thread(lambda then: threading.Thread(target=then)),
        in_thread(lambda then: threading.Timer(0, then)),
        in_thread(Thread),
        pool.submit(seen).result(30),
        *pool.map(lambda _: seen(), [1]),
    ]

def request(tenant):
    global held
    with asok_trace.scope(tenant) as scope, tracer.start_as_current_span("work") as span:
        HELD.set(Held())
        held = weakref.ref(HELD.get())
        structlog.contextvars.bind_contextvars(tenant=tenant)
        sentry_sdk.get_isolation_scope().set_tag("tenant", tenant)
        expected = seen()
        assert expected[0] == scope.request_id
        for found in everywhere():
            assert found == expected, (found, expected)
    return held

def check():
    for tenant in ("a", "b"):
        with sentry_sdk.isolation_scope():
            held = copy_context().run(request, tenant)
        assert pool.submit(asok_trace.detach(lambda: seen()[0])).result(30) is None
        gc.collect()
        assert held() is None, gc.get_referrers(held())

def not_carried():
    with asok_trace.scope("c"):
        assert not any(found[0] for found in everywhere())
"""


@pytest.mark.parametrize("others", [["otel"], ["sentry"], ["otel", "sentry"]], ids="+".join)
def test_the_whole_context_arrives_whoever_was_there_first(others: list[str]) -> None:
    """Our scope, the current span, structlog's variables and Sentry's tags, in threads, timers
    and jobs; each runs once; and nothing of the request is kept by finished threads or pools."""
    for order in itertools.permutations(["ours", *others]):
        installs = "\n".join(f"INSTALL[{name!r}]()" for name in order)
        run(f"{PROGRAM}\n{installs}\ncheck()\nassert not events, events\n")


@pytest.mark.parametrize("order", [["ours", "otel"], ["otel", "ours"]], ids="-".join)
@pytest.mark.parametrize("leaving", [["ours", "otel"], ["otel", "ours"]], ids="-".join)
def test_leaving_in_either_order(order: list[str], leaving: list[str]) -> None:
    """As long as we are there the context is carried; without us it is not, and every thread
    and job still runs."""
    steps = [f"INSTALL[{name!r}]()" for name in order] + ["check()"]
    for name in leaving:
        steps.append(f"REMOVE[{name!r}]()")
        steps.append("check()" if name == "otel" and leaving[0] == "otel" else "not_carried()")
    run("\n".join([PROGRAM, *steps]))


@pytest.mark.parametrize("order", [["ours", "sentry"], ["sentry", "ours"]], ids="-".join)
def test_leaving_sentry_behind(order: list[str]) -> None:
    """Sentry cannot be taken out again: under it or over it, ours stops carrying, and may be
    called again."""
    steps = [f"INSTALL[{name!r}]()" for name in order]
    run("\n".join([PROGRAM, *steps, "check()", "REMOVE['ours']()", "not_carried()"]))
    run("\n".join([PROGRAM, *steps, "REMOVE['ours']()", "INSTALL['ours']()", "check()"]))


@pytest.mark.parametrize("order", [["ours", "sentry"], ["sentry", "ours"]], ids="-".join)
def test_sentry_still_sees_what_fails_in_a_thread(order: list[str]) -> None:
    """An exception is sent once, with the tags of the request that started the thread."""
    steps = "\n".join(f"INSTALL[{name!r}]()" for name in order)
    run(f"""{PROGRAM}
{steps}
threading.excepthook = lambda args: None
def fail():
    raise LookupError("shop")
with asok_trace.scope("a"):
    sentry_sdk.get_isolation_scope().set_tag("tenant", "a")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join(30)
sentry_sdk.flush()
[event] = events
assert event["exception"]["values"][-1]["type"] == "LookupError"
assert event["tags"]["tenant"] == "a", event["tags"]
""")


@pytest.mark.parametrize("order", [["ours", "sentry"], ["sentry", "ours"]], ids="-".join)
def test_a_thread_of_sentrys_own_is_a_librarys(order: list[str]) -> None:
    """Its worker, which a request's first message starts, lives as long as the process: it does
    not work for that request, nor keep it."""
    steps = "\n".join(f"INSTALL[{name!r}]()" for name in order)
    run(f"""{PROGRAM}
{steps}
from sentry_sdk.worker import BackgroundWorker
worker = BackgroundWorker()
found = []
def message():
    global held
    with asok_trace.scope("a"):
        HELD.set(Held())
        held = weakref.ref(HELD.get())
        worker.submit(lambda: found.append((asok_trace.current(), HELD.get())))
        worker.flush(30)
copy_context().run(message)
assert found == [(None, None)], found
gc.collect()
assert held() is None
worker.kill()
""")


@pytest.mark.parametrize("order", [["ours", "sentry"], ["sentry", "ours"]], ids="-".join)
def test_a_thread_that_cannot_start_beside_sentry(order: list[str]) -> None:
    """It keeps nothing of the request that tried, and works for the one that succeeds."""
    steps = "\n".join(f"INSTALL[{name!r}]()" for name in order)
    run(f"""{PROGRAM}
{steps}
found = []
thread = threading.Thread(target=lambda: found.append(asok_trace.current().name))
names = [name for name in ("_start_new_thread", "_start_joinable_thread")
         if hasattr(threading, name)]
originals = [getattr(threading, name) for name in names]
def refuse(*args, **kwargs):
    raise RuntimeError("can't start new thread")
def try_it():
    global held
    with asok_trace.scope("a"):
        HELD.set(Held())
        held = weakref.ref(HELD.get())
        try:
            thread.start()
        except RuntimeError:
            return
        raise AssertionError
for name in names:
    setattr(threading, name, refuse)
copy_context().run(try_it)
for name, original in zip(names, originals):
    setattr(threading, name, original)
gc.collect()
assert held() is None
with asok_trace.scope("b"):
    thread.start()
    thread.join(30)
assert found == ["b"], found
""")

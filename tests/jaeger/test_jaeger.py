"""What is found in Jaeger: each request a trace, with all that it led to, by whatever id or
finding it is looked for.

needs: asok, flask, quart, gunicorn, uvicorn, pythonjsonlogger
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jaeger.apps import running
from tests.jaeger.reading import Jaeger, Span, Trace
from tests.serving import Answer, Served

FRAMEWORKS = ["asok", "flask", "quart"]


class Site:
    """An application that runs, and the traces of its requests."""

    def __init__(self, framework: str, server: Served, jaeger: Jaeger) -> None:
        self.framework = framework
        self.server = server
        self.jaeger = jaeger

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page, as user 7."""
        return self.server.get(path, **{"X-User": "7", **headers})

    def trace(self, path: str, *names: str) -> Trace:
        """Ask for a page, and return its trace: it has spans of these names and the server's."""
        answer = self.get(path)
        [trace_id] = answer.ids
        return self.jaeger.until(trace_id, [f"GET {route(self, path)}", *names])


def route(site: Site, path: str) -> str:
    """The route of a page."""
    if path in ("/", "/tasks") or site.framework == "asok":
        return path
    return "/<path:_>"


@pytest.fixture(scope="module", params=FRAMEWORKS)
def site(
    request: pytest.FixtureRequest, jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The application of each framework."""
    folder = tmp_path_factory.mktemp(request.param)
    with running(request.param, folder, jaeger.endpoint) as server:
        yield Site(request.param, server, jaeger)


@pytest.fixture(scope="module")
def asok(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The application of Asok, with asok's own tracing switched on."""
    folder = tmp_path_factory.mktemp("traced")
    with running("asok", folder, jaeger.endpoint, TRACING="1") as server:
        yield Site("asok", server, jaeger)


def server_of(trace: Trace) -> Span:
    """The only span of a trace that has no parent."""
    [root] = [span for span in trace.values() if span.parent is None]
    return root


def assert_stamped(trace: Trace, path: str) -> None:
    """Every span says whose it is."""
    root = server_of(trace)
    for span in trace.values():
        facts = ("request.id", "client.address", "user.id", "url.path")
        assert {fact: span.tags.get(fact) for fact in facts} == {
            "request.id": root.trace_id,
            "client.address": "127.0.0.1",
            "user.id": "7",
            "url.path": path,
        }, span


def test_a_request(site: Site) -> None:
    """A trace of the service: a server span as the semantic conventions have it, and under it
    what the view does, whose log line is a log of its span."""
    trace = site.trace("/", "look up")
    server, step = trace["GET /"], trace["look up"]
    assert site.framework in site.jaeger.services()
    assert {server.service, step.service} == {site.framework}
    facts = {
        "span.kind": "server",
        "http.request.method": "GET",
        "http.route": "/",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": site.server.port,
        "network.protocol.version": "1.1",
        "otel.scope.name": "asok_trace",
    }
    assert facts.items() <= server.tags.items()
    assert "error" not in server.tags
    assert step.parent == server.id
    assert step.tags["span.kind"] == "internal"
    assert server.start <= step.start <= step.end <= server.end
    [line] = step.logs
    assert (line["event"], line["level"], line["shelf"]) == ("looking", "info", 3)
    assert_stamped(trace, "/")


def test_a_thread(site: Site) -> None:
    """What a view does in a thread is under what started it."""
    trace = site.trace("/thread", "page", "look up")
    assert trace["page"].parent == server_of(trace).id
    assert trace["look up"].parent == trace["page"].id
    assert_stamped(trace, "/thread")


def test_tasks(site: Site) -> None:
    """Tasks that run at once are each under what started them, with their own steps."""
    trace = site.trace("/tasks", "page", "first", "second", "look up")
    assert trace["page"].parent == server_of(trace).id
    assert trace["first"].parent == trace["second"].parent == trace["page"].id
    assert trace["look up"].parent == trace["first"].id
    assert_stamped(trace, "/tasks")


def test_an_error(site: Site) -> None:
    """The step that failed and the server span are red, and both have the exception; a search for
    its type finds them. (Not one for ``error=true``: this Jaeger compares the text with a boolean,
    where it keeps traces in memory.)"""
    trace = site.trace("/broken", "open till")
    for span in trace.values():
        assert span.tags["error"] is True
        assert span.tags["otel.status_code"] == "ERROR"
        [exception] = [log for log in span.logs if log.get("event") == "exception"]
        assert exception["exception.type"] == "RuntimeError"
        assert exception["exception.message"] == "the till is jammed"
        assert "in break_down" in exception["exception.stacktrace"]
    server = server_of(trace)
    assert server.tags["http.response.status_code"] == 500
    assert server.tags["error.type"] == "RuntimeError"
    assert_stamped(trace, "/broken")
    found = site.jaeger.until_found(site.framework, error__type="RuntimeError")
    assert {span.trace_id for trace in found for span in trace} >= {server.trace_id}


def test_an_id_that_the_client_brought(site: Site) -> None:
    """It is the tag to search by, and finds one trace."""
    answer = site.get("/", **{"X-Request-ID": "order-4711"})
    assert answer.ids == ["order-4711"]
    [found] = site.jaeger.until_found(site.framework, request__id="order-4711")
    [root] = [span for span in found if span.parent is None]
    trace = site.jaeger.until(root.trace_id, ["GET /", "look up"])
    assert {span.tags["request.id"] for span in trace.values()} == {"order-4711"}


def test_a_trace_from_outside(site: Site) -> None:
    """A request goes on in the trace of whoever sent it, under its span."""
    trace_id, span_id = f"{hash(site.framework) % 10**12 + 1:032x}", "00f067aa0ba902b7"
    answer = site.get("/", traceparent=f"00-{trace_id}-{span_id}-01")
    trace = site.jaeger.until(trace_id, ["GET /", "look up"])
    server = trace["GET /"]
    assert server.parent == span_id
    assert [server.tags["request.id"]] == answer.ids


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_finding(framework: str, jaeger: Jaeger, tmp_path: Path) -> None:
    """Work that was not carried is found by the tag of what went wrong with it."""
    service = f"{framework}-lost"
    # No thread is given its request.
    variables = {"ASOK_TRACE_THREADS": "watch", "ASOK_TRACE_SERVICE": service}
    with running(framework, tmp_path, jaeger.endpoint, **variables) as server:
        server.get("/lose")
    [[span]] = jaeger.until_found(service, asok_trace__finding="lost")
    assert span.name == "nobody's"
    assert "request.id" not in span.tags


def test_a_background_job(asok: Site) -> None:
    """A job of asok's that begins while its request lasts is in its trace, under its server span;
    an attempt that begins after it is a trace of its own, which links to that span."""
    [trace_id] = asok.get("/job").ids
    asok.get("/over")
    trace = asok.jaeger.until(trace_id, ["GET /job", "charge", "pay"])
    server, first = trace["GET /job"], trace["charge"]
    assert first.parent == server.id
    assert trace["pay"].parent == first.id
    assert first.tags["asok_trace.job.attempt"] == "1"
    assert first.tags["error"] is True
    assert_stamped(trace, "/job")
    [[*spans]] = asok.jaeger.until_found("asok", asok_trace__job__attempt="2")
    second = asok.jaeger.until(spans[0].trace_id, ["charge", "pay"])
    assert server_of(second).links == [(trace_id, server.id)]
    assert {span.tags["request.id"] for span in second.values()} == {trace_id}


class TestAsokOwnTracing:
    def test_its_spans(self, asok: Site) -> None:
        """What ``@trace`` decorates is a span where it is called, as long as it really runs, a
        coroutine or generator function too, decorated before the set-up or after; each is under
        whatever is around it, and has what was put on it. There is one server span."""
        names = ("page", "late", "slow", "inside", "quick", "rows", "quick", "by hand")
        [trace_id] = asok.get("/traced").ids
        asok.jaeger.until(trace_id, ["GET /traced", *names])
        spans = asok.jaeger.trace(trace_id)
        by_id = {span.id: span for span in spans}
        under = {(s.name, by_id[s.parent].name if s.parent else None) for s in spans}
        assert under == {
            ("GET /traced", None),
            ("page", "GET /traced"),
            ("late", "page"),
            ("slow", "late"),
            ("inside", "slow"),
            ("quick", "inside"),
            ("rows", "page"),
            ("quick", "rows"),
            ("by hand", "page"),
        }
        for span in spans:
            around = by_id.get(span.parent or "")
            assert around is None or around.start <= span.start <= span.end <= around.end
            assert span.tags["request.id"] == trace_id
            assert span.tags["user.id"] == "7"
        [by_hand] = [span for span in spans if span.name == "by hand"]
        assert by_hand.tags["shelf"] == 3
        [event] = by_hand.logs
        assert (event["event"], event["on"]) == ("found", "top")

    def test_an_error(self, asok: Site) -> None:
        """A coroutine function that fails is red, with the exception; what the application put on
        the request's span of asok's middleware is on the server span, which is not red."""
        trace = asok.trace("/stumble", "stumble")
        server, step = trace["GET /stumble"], trace["stumble"]
        assert step.tags["error"] is True
        [exception] = step.logs
        assert exception["exception.type"] == "RuntimeError"
        assert "in stumble" in exception["exception.stacktrace"]
        assert server.tags["tenant"] == "north"
        assert "error" not in server.tags
        assert "http.client_ip" not in server.tags

    def test_the_id_that_its_middleware_gives(self, asok: Site) -> None:
        """Asok's own trace id, which its middleware puts on the response, is a tag that finds the
        trace."""
        trace = asok.trace("/", "look up")
        server = trace["GET /"]
        [found] = asok.jaeger.until_found("asok", asok__trace_id=server.tags["asok.trace_id"])
        assert {span.trace_id for span in found} == {server.trace_id}

"""A WSGI body that is streamed: every step of it is part of its request, and however it ends the
scope is closed once and one canonical line is logged. needs: asok"""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

import pytest
import structlog
from asok.context import current_request, request_var
from asok.testing import TestClient

import asok_trace
from asok_trace.core.scope import ACTIVE
from asok_trace.gateway import wsgi as gateway
from tests.gateway import sites
from tests.gateway.sites import Line, Site, Started, canonical, named, say


@pytest.fixture(params=[True, False], ids=["isolated", "shared"])
def isolate(request: pytest.FixtureRequest) -> bool:
    """Whether each call has a context of its own."""
    return bool(request.param)


@pytest.fixture
def stream(site: Site, isolate: bool) -> Callable[..., Any]:
    """Serves one request whose body is ``make()``, and returns it; the path is ``/stream``.

    Asok itself joins what a view yields, so the body is put in its place by a wrapper, as an
    extension would.
    """
    asok = site.app._wsgi_call
    bodies: list[Any] = []

    def other(environ: dict[str, Any], start_response: Any) -> Any:
        whole = asok(environ, start_response)
        return bodies[0] if bodies else whole

    site.app._wsgi_call = other
    asok_trace.instrument(site.app, isolate=isolate)

    def serve(make: Callable[[], Any]) -> Any:
        bodies[:] = [make()]
        served = site.app(sites.environ("/stream"), Started())
        bodies.clear()
        return served

    return serve


class Steps:
    """A generator body that logs each step, and its end."""

    def __call__(self) -> Iterator[bytes]:
        try:
            for number in range(3):
                say(f"step {number}")
                yield b"%d" % number
        finally:
            say("finally")


def assert_ended(lines: list[Line], *events: str) -> None:
    """These lines and the canonical one, all of one request, and nobody is left active."""
    assert [line["event"] for line in lines] == [*events, "request"]
    assert len({line["request_id"] for line in lines}) == 1
    assert {line["path"] for line in lines} == {"/stream"}
    assert ACTIVE.get() is None
    assert request_var.get() is None


ALL = ("step 0", "step 1", "step 2", "finally")


def test_exhausted_and_closed(stream: Callable[..., Any], lines: list[Line]) -> None:
    """As a server does it."""
    body = stream(Steps())
    assert b"".join(body) == b"012"
    assert_ended(lines, *ALL)
    body.close()
    body.close()
    assert_ended(lines, *ALL)


def test_exhausted_and_never_closed(stream: Callable[..., Any], lines: list[Line]) -> None:
    """As asok's test client does it; asking once more gives nothing and logs nothing."""
    body = stream(Steps())
    assert list(body) == [b"0", b"1", b"2"]
    assert next(body, None) is None
    assert_ended(lines, *ALL)


def test_closed_half_way(stream: Callable[..., Any], lines: list[Line]) -> None:
    """The client has gone: what the generator does at its end is still the request's."""
    body = stream(Steps())
    assert next(body) == b"0"
    assert [line["event"] for line in lines] == ["step 0"]
    body.close()
    assert_ended(lines, "step 0", "finally")
    assert next(body, None) is None
    body.close()
    assert_ended(lines, "step 0", "finally")


def test_closed_before_its_first_step(stream: Callable[..., Any], lines: list[Line]) -> None:
    """A HEAD request, or a client that has gone already."""
    body = stream(Steps())
    body.close()
    assert_ended(lines)
    assert canonical(lines)["status"] == 200
    assert list(body) == []


def test_dropped_half_way(stream: Callable[..., Any], lines: list[Line]) -> None:
    """A server that forgets close(): the end of the generator, then the canonical line. Not at
    once: a collection may run while a log handler holds its lock."""
    body = stream(Steps())
    assert next(body) == b"0"
    del body
    gc.collect()
    assert [line["event"] for line in lines] == ["step 0"]
    gateway._end_dropped()
    assert_ended(lines, "step 0", "finally")


def test_dropped_untouched(stream: Callable[..., Any], lines: list[Line]) -> None:
    """Nor was it ever asked for anything."""
    stream(Steps())
    gc.collect()
    gateway._end_dropped()
    assert_ended(lines)


def test_the_next_request_ends_what_was_dropped(
    site: Site, stream: Callable[..., Any], lines: list[Line]
) -> None:
    """Its line stands before those of the next request."""
    stream(Steps())
    gc.collect()
    assert lines == []
    sites.wsgi(site.app, "/plain")
    assert [(line["event"], line["path"]) for line in lines] == [
        ("request", "/stream"),
        ("request", "/plain"),
    ]


def test_what_is_dropped_within_a_lock_does_not_wait_for_it(
    stream: Callable[..., Any], lines: list[Line]
) -> None:
    """A collection while a handler holds its lock logs nothing, so that nothing waits for it."""
    lock = threading.Lock()
    got_it: list[bool] = []

    class Locking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            got_it.append(lock.acquire(timeout=5))
            bodies.clear()
            gc.collect()
            if got_it[-1]:
                lock.release()

    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    logging.getLogger("asok_trace.request").setLevel(logging.INFO)
    bodies = [stream(Steps())]
    handler = Locking()
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("test").error("collecting")
        gateway._end_dropped()
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger("asok_trace.request").setLevel(logging.NOTSET)
    assert got_it == [True, True]  # the line of the test, and the canonical one after it


def test_dropped_while_another_request_runs(
    site: Site, stream: Callable[..., Any], lines: list[Line]
) -> None:
    """The line of the dropped one carries nothing of the request during which it was dropped,
    and that one goes on as before."""
    bodies = [stream(Steps())]
    next(bodies[0])

    @site.view
    def other(request: Any) -> str:
        asok_trace.bind(tenant="other's", user="other's")
        bodies.clear()
        gc.collect()
        say("after")
        return "other"

    sites.wsgi(site.app, "/other")
    gateway._end_dropped()
    after, own, _, dropped = lines[-4:]
    assert [line["event"] for line in lines[1:]] == ["after", "request", "finally", "request"]
    assert (dropped["path"], lines[3]["path"]) == ("/stream", "/stream")
    assert "tenant" not in dropped
    assert dropped.get("user") != "other's"
    assert (after["path"], own["path"]) == ("/other", "/other")
    assert after["request_id"] == own["request_id"] != dropped["request_id"]


def test_raises_half_way(stream: Callable[..., Any], lines: list[Line]) -> None:
    """The server gets the exception; the line says error, with the status that went out."""

    def body() -> Iterator[bytes]:
        yield b"0"
        say("raising")
        raise LookupError("half-way")

    served = stream(body)
    assert next(served) == b"0"
    with pytest.raises(LookupError, match="half-way"):
        next(served)
    assert next(served, None) is None
    served.close()
    assert_ended(lines, "raising")
    line = canonical(lines)
    assert (line["level"], line["status"], line["error"]) == ("error", 200, "LookupError")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_leaves_half_way(stream: Callable[..., Any], lines: list[Line], kind: Any) -> None:
    """What is no Exception passes as well, and ends the request."""

    def body() -> Iterator[bytes]:
        yield b"0"
        raise kind

    served = stream(body)
    next(served)
    with pytest.raises(kind):
        next(served)
    assert_ended(lines)
    assert canonical(lines)["error"] == kind.__name__


def test_close_raises(stream: Callable[..., Any], lines: list[Line]) -> None:
    """The server gets it; the line says so, once."""

    class Body(list[bytes]):
        def close(self) -> None:
            say("closing")
            raise OSError("close")

    served = stream(lambda: Body([b"0"]))
    for _ in range(2):
        with pytest.raises(OSError, match="close"):
            served.close()
    assert lines[0]["request_id"] == canonical(lines)["request_id"]
    assert canonical(lines)["error"] == "OSError"


def test_iter_raises(stream: Callable[..., Any], lines: list[Line]) -> None:
    """A body that cannot be iterated."""

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise LookupError("iter")

    with pytest.raises(LookupError):
        next(iter(stream(Body)))
    assert canonical(lines)["error"] == "LookupError"


def test_a_body_with_an_iterator_of_its_own(stream: Callable[..., Any], lines: list[Line]) -> None:
    """As asok's own streamer: the iterator ends, in the request, before the body is closed."""

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return Steps()()

        def close(self) -> None:
            say("closed")

    body = stream(Body)
    assert next(body) == b"0"
    body.close()
    assert_ended(lines, "step 0", "finally", "closed")
    assert next(body, None) is None


def test_a_step_closes_its_own_body(stream: Callable[..., Any], lines: list[Line]) -> None:
    """The generator refuses, as it would without us; then it goes on to its end."""
    served: list[Any] = []
    refused: list[BaseException] = []

    def body() -> Iterator[bytes]:
        try:
            served[0].close()
        except ValueError as error:
            refused.append(error)
        yield b"0"
        yield b"1"

    served.append(stream(body))
    assert list(served[0]) == [b"0", b"1"]
    assert "already executing" in str(refused[0])
    assert_ended(lines)
    served.clear()


def test_a_step_closes_its_own_iterator(stream: Callable[..., Any], lines: list[Line]) -> None:
    """A body whose close() is harmless at any time: once more, one line."""
    served: list[Any] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            served[0].close()
            say("inside")
            yield b"0"

        def close(self) -> None:
            say("closed")

    served.append(stream(Body))
    assert list(served[0]) == [b"0"]
    assert [line["event"] for line in lines] == ["closed", "request", "inside"]
    assert len({line["request_id"] for line in lines}) == 1
    served.clear()


def test_between_two_steps_nobody_is_active(stream: Callable[..., Any], lines: list[Line]) -> None:
    """What the server does meanwhile is none of the request's; the step sees the request."""
    inside: list[Any] = []

    def body() -> Iterator[bytes]:
        for _ in range(2):
            inside.append((asok_trace.current(), current_request.path))
            yield b"x"

    served = stream(body)
    assert ACTIVE.get() is None
    for _ in served:
        assert ACTIVE.get() is None
        assert asok_trace.current() is None
        assert not current_request
        say("server")
    [scope] = {entry[0] for entry in inside}
    assert scope.request_id == canonical(lines)["request_id"]
    assert {path for _, path in inside} == {"/stream"}
    assert all("request_id" not in line for line in lines if line["event"] == "server")


def test_iterated_by_another_thread(stream: Callable[..., Any], lines: list[Line]) -> None:
    """Each step by a thread of its own, and closed by one more."""
    body = stream(Steps())
    got: list[bytes] = []

    def in_a_thread(function: Callable[[], Any]) -> None:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    for _ in range(2):
        in_a_thread(lambda: got.append(next(body)))
    in_a_thread(body.close)
    assert got == [b"0", b"1"]
    assert_ended(lines, "step 0", "step 1", "finally")


def test_carried_work_goes_on_between_two_steps(
    site: Site, stream: Callable[..., Any], lines: list[Line]
) -> None:
    """A thread that carries the request's context, while the server waits: after a unit of work
    and a request of its own it is the stream's again, and those two are their own."""
    carried: list[Context] = []

    def body() -> Iterator[bytes]:
        carried.append(copy_context())
        yield b"0"
        yield b"1"

    def work() -> None:
        say("before")
        with asok_trace.scope("part"):
            say("part")
        say("between")
        TestClient(site.app).get("/inner")
        say("after")

    site.views["inner"] = lambda request: say("inner") or "inner"
    served = stream(body)
    next(served)
    carried[0].run(work)
    list(served)
    ids = {line["event"]: line["request_id"] for line in lines if line["event"] != "request"}
    inner, own = (line for line in lines if line["event"] == "request")
    assert ids["before"] == ids["between"] == ids["after"] == own["request_id"]
    assert ids["inner"] == inner["request_id"]
    assert len({ids["part"], ids["inner"], ids["after"]}) == 3
    assert (inner["path"], own["path"]) == ("/inner", "/stream")


def test_two_streams_by_turns(stream: Callable[..., Any], lines: list[Line]) -> None:
    """A cooperative server: each line carries its own request's id."""

    def numbered(name: str) -> Callable[[], Iterator[bytes]]:
        def body() -> Iterator[bytes]:
            for _ in range(3):
                say(name)
                yield b"x"

        return body

    one, two = stream(numbered("one")), stream(numbered("two"))
    for _ in range(4):
        next(one, None)
        next(two, None)
    ids = {
        name: {line["request_id"] for line in lines if line["event"] == name}
        for name in ("one", "two")
    }
    assert all(len(found) == 1 for found in ids.values())
    assert ids["one"] != ids["two"]
    assert ACTIVE.get() is None


def test_a_request_inside_a_step(site: Site, stream: Callable[..., Any], lines: list[Line]) -> None:
    """The inner one has its own id; after it the stream goes on with its own."""
    site.views["inner"] = lambda request: say("inner") or "inner"

    def body() -> Iterator[bytes]:
        say("before")
        TestClient(site.app).get("/inner")
        say("after")
        yield b"x"

    list(stream(body))
    inner, outer = named(lines, "inner")["request_id"], named(lines, "before")["request_id"]
    assert inner != outer
    assert named(lines, "after")["request_id"] == outer
    assert [line["request_id"] for line in lines if line["event"] == "request"] == [inner, outer]
    assert ACTIVE.get() is None


def test_lists_and_tuples_are_passed_on_as_they_are(
    site: Site, stream: Callable[..., Any], lines: list[Line]
) -> None:
    """A server measures them to make a Content-Length; the scope is closed by then."""
    for made in ([b"a"], (b"a",)):
        assert stream(lambda made=made: made) is made
    assert [line["event"] for line in lines] == ["request", "request"]


def test_an_application_that_starts_its_response_late(
    site: Site, isolate: bool, lines: list[Line]
) -> None:
    """PEP 3333 lets a generator call start_response in its first step."""

    def late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        write = start_response("201 Created", [("X-Request-ID", "theirs")])
        write(b"first")
        say("inside")
        yield b"second"

    site.app._wsgi_call = late
    asok_trace.instrument(site.app, isolate=isolate)
    written: list[bytes] = []
    started = Started()

    def start_response(*args: Any) -> Any:
        started(*args)
        return written.append

    body = b"".join(site.app(sites.environ("/stream"), start_response))
    assert (written, body) == ([b"first"], b"second")
    assert started.reply(body).ids == [canonical(lines)["request_id"]]
    assert named(lines, "inside")["request_id"] == canonical(lines)["request_id"]
    assert canonical(lines)["status"] == 201


def test_a_stream_of_asoks_own(site: Site, isolate: bool, lines: list[Line]) -> None:
    """Asok joins what a view yields: in the first step, in which the view sees its request."""
    asok_trace.instrument(site.app, isolate=isolate)

    @site.view
    def own(request: Any) -> Any:
        def chunks() -> Iterator[str]:
            say(current_request.path)
            yield "chunk"

        return chunks()

    assert sites.wsgi(site.app, "/own").body.startswith(b"chunk")
    assert named(lines, "/own")["request_id"] == canonical(lines)["request_id"]


def test_asok_swallows_what_its_streams_raise(site: Site, isolate: bool, lines: list[Line]) -> None:
    """So there is no error for us to name; the status is what went out."""
    asok_trace.instrument(site.app, isolate=isolate)

    @site.view
    def own(request: Any) -> Any:
        def chunks() -> Iterator[str]:
            yield "chunk"
            raise LookupError

        return chunks()

    with suppress(LookupError):
        sites.wsgi(site.app, "/own")
    assert canonical(lines)["status"] == 200
    assert ACTIVE.get() is None

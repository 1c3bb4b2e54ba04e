"""Requests inside requests, units of work around and inside them, other requests made current by
hand, several applications in one process: each line belongs to the one it should. needs: asok"""

import logging
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import Any

import pytest
from asok.context import request_context, request_var
from asok.request import Request
from asok.testing import TestClient

import asok_trace
from asok_trace.core.scope import ACTIVE
from asok_trace.gateway import wsgi as gateway
from tests.gateway import sites
from tests.gateway.sites import Line, Reply, Site, Started, named, say

Call = Callable[..., Reply]


@pytest.fixture(params=[True, False], ids=["isolated", "shared"])
def isolate(request: pytest.FixtureRequest) -> bool:
    """Whether each WSGI call has a context of its own."""
    return bool(request.param)


def ends(lines: list[Line]) -> dict[str, Line]:
    """The canonical lines by their paths."""
    found = {line["path"]: line for line in lines if line["event"] == "request"}
    assert len(found) == len([line for line in lines if line["event"] == "request"])
    return found


def of(lines: list[Line], *events: str) -> set[str | None]:
    """The ids of these lines."""
    return {named(lines, event).get("request_id") for event in events}


@pytest.fixture
def asoks_lines() -> Iterator[list[logging.LogRecord]]:
    """What asok itself logs at the start of a WSGI request, stamped."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    handle = asok_trace.stamp_logging()
    logger = logging.getLogger("asok.wsgi")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    handle.undo()


def test_a_request_inside_a_view(
    site: Site, lines: list[Line], asoks_lines: list[logging.LogRecord], isolate: bool
) -> None:
    """All lines of the inner one are its own, from asok's first to the canonical: id, path, user
    and nothing that the outer one has bound. After it, the outer one goes on."""
    asok_trace.instrument(site.app, isolate=isolate)

    @site.view
    def outer(request: Any) -> str:
        request.user = SimpleNamespace(id=7)
        asok_trace.bind(tenant="outer's")
        scope = asok_trace.current()
        say("before")
        TestClient(site.app).get("/inner")
        say("after")
        assert asok_trace.current() is scope
        return "outer"

    site.views["inner"] = lambda request: say("inner") or "inner"
    sites.wsgi(site.app, "/outer")
    gateway._end_dropped()  # as the next request does
    own, inner = ends(lines)["/outer"], ends(lines)["/inner"]
    assert of(lines, "before", "after") == {own["request_id"]}
    assert of(lines, "inner") == {inner["request_id"]} != {own["request_id"]}
    for line in (named(lines, "inner"), inner):
        assert (line["path"], line["user"]) == ("/inner", None)
        assert not {"tenant", "ip"} & line.keys()  # asok's test client has no address
    assert (own["user"], own["tenant"]) == ("7", "outer's")
    first_lines = [vars(record) for record in asoks_lines]
    assert [record["request_id"] for record in first_lines] == [
        own["request_id"],
        inner["request_id"],
    ]
    assert [record["path"] for record in first_lines] == ["/outer", "/inner"]
    assert not {"tenant", "user", "ip"} & first_lines[1].keys()
    assert ACTIVE.get() is None


def test_three_deep(site: Site, lines: list[Line], isolate: bool) -> None:
    """And side by side: each gets its place back."""
    asok_trace.instrument(site.app, isolate=isolate)

    @site.view
    def nest(request: Any) -> str:
        depth = int(request.args["depth"])
        say(f"before {request.args['name']}")
        if depth:
            for side in "ab":
                name = request.args["name"] + side
                TestClient(site.app).get(f"/nest?depth={depth - 1}&name={name}")
        say(f"after {request.args['name']}")
        return "x"

    sites.wsgi(site.app, "/nest", query="depth=2&name=r")
    names = ["r", "ra", "raa", "rab", "rb", "rba", "rbb"]
    ids = [of(lines, f"before {name}", f"after {name}") for name in names]
    assert all(len(found) == 1 for found in ids)
    assert len(set.union(*ids)) == len(names)
    assert len([line for line in lines if line["event"] == "request"]) == len(names)


def test_an_inner_request_that_fails(site: Site, lines: list[Line], isolate: bool) -> None:
    """What escapes it does not take the outer one's place away."""
    asok_trace.instrument(site.app, isolate=isolate)

    @site.view
    def outer(request: Any) -> str:
        with pytest.raises(KeyboardInterrupt):
            TestClient(site.app).get("/inner")
        say("after")
        return "outer"

    @site.view
    def inner(request: Any) -> str:
        raise KeyboardInterrupt

    sites.wsgi(site.app, "/outer")
    assert of(lines, "after") == {ends(lines)["/outer"]["request_id"]}
    assert ends(lines)["/inner"]["error"] == "KeyboardInterrupt"


def test_an_inner_stream_that_outlives_its_view(
    site: Site, lines: list[Line], isolate: bool
) -> None:
    """Left half-read by the outer view, finished by nobody: one line, with its own facts."""
    asok = site.app._wsgi_call

    def other(environ: dict[str, Any], start_response: Any) -> Any:
        whole = asok(environ, start_response)

        def body() -> Iterator[bytes]:
            say("inner")
            yield b"1"
            yield b"2"

        return body() if environ["PATH_INFO"] == "/inner" else whole

    site.app._wsgi_call = other
    asok_trace.instrument(site.app, isolate=isolate)

    @site.view
    def outer(request: Any) -> str:
        asok_trace.bind(tenant="outer's")
        body = site.app(sites.environ("/inner"), Started())
        next(body)
        say("between")
        del body
        say("after")
        return "outer"

    sites.wsgi(site.app, "/outer")
    gateway._end_dropped()  # as the next request does
    own, inner = ends(lines)["/outer"], ends(lines)["/inner"]
    assert of(lines, "inner") == {inner["request_id"]}
    assert of(lines, "between", "after") == {own["request_id"]}
    assert "tenant" not in inner


def test_a_request_inside_carried_work(
    site: Site, lines: list[Line], asoks_lines: list[logging.LogRecord], isolate: bool
) -> None:
    """Work that carries a stream's context calls the application while the stream waits for its
    server: the inner lines are the inner's from the first."""
    asok_trace.instrument(site.app, isolate=isolate)
    carried: list[Context] = []

    @site.view
    def stream(request: Any) -> Any:
        request.user = SimpleNamespace(id=7)

        def chunks() -> Iterator[str]:
            carried.append(copy_context())
            yield "chunk"

        return chunks()

    body = site.app(sites.environ("/stream"), Started())
    next(body)
    carried[0].run(TestClient(site.app).get, "/inner")
    list(body)
    own, inner = (vars(record) for record in asoks_lines)
    assert own["request_id"] == ends(lines)["/stream"]["request_id"]
    assert inner["request_id"] == ends(lines)["/inner"]["request_id"]
    assert (inner["path"], "user" in inner) == ("/inner", False)


def test_inside_a_unit_of_work(site: Site, lines: list[Line], isolate: bool) -> None:
    """A job that calls the application: the request has its own id, then the job goes on."""
    asok_trace.instrument(site.app, isolate=isolate)
    site.views["plain"] = lambda request: say("inner") or "plain"
    with asok_trace.scope("nightly", tenant=5) as unit:
        say("before")
        sites.wsgi(site.app)
        say("after")
        assert asok_trace.current() is unit
    assert of(lines, "before", "after") == {unit.request_id}
    assert of(lines, "inner") == {ends(lines)["/plain"]["request_id"]} != {unit.request_id}
    assert not {"task", "tenant"} & (named(lines, "inner").keys() | ends(lines)["/plain"].keys())


def test_a_unit_of_work_inside(site: Site, call: Call, lines: list[Line]) -> None:
    """It stands in front of the request until it ends, then the request goes on."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        say("before")
        with asok_trace.scope("part"):
            say("inside")
            with asok_trace.scope("part of the part"):
                say("deeper")
            say("inside again")
        say("after")
        return "page"

    [request_id] = call(site.app, "/page").ids
    assert of(lines, "before", "after", "request") == {request_id}
    assert of(lines, "inside") == of(lines, "inside again") != {request_id}
    assert len(of(lines, "inside", "deeper", "after")) == 3
    assert named(lines, "deeper")["task"] == "part of the part"
    assert "task" not in named(lines, "after")


def test_a_unit_of_work_around_an_inner_request(
    site: Site, lines: list[Line], isolate: bool
) -> None:
    """Request, unit, request: each has its place back when the inner one is over."""
    asok_trace.instrument(site.app, isolate=isolate)

    @site.view
    def outer(request: Any) -> str:
        with asok_trace.scope("part"):
            say("unit before")
            TestClient(site.app).get("/inner")
            say("unit after")
        say("outer after")
        return "outer"

    site.views["inner"] = lambda request: say("inner") or "inner"
    [request_id] = sites.wsgi(site.app, "/outer").ids
    assert of(lines, "unit before", "unit after").isdisjoint(of(lines, "inner", "outer after"))
    assert len(of(lines, "unit before", "unit after")) == 1
    assert of(lines, "outer after") == {request_id}
    assert of(lines, "inner") == {ends(lines)["/inner"]["request_id"]}
    assert named(lines, "unit after")["task"] == "part"


def test_the_environ_handed_on(site: Site, lines: list[Line], isolate: bool) -> None:
    """A dispatcher inside the application calls it again with the same environ, or a copy of it:
    one request, one id, one line, one header."""
    asok = site.app._wsgi_call

    def dispatcher(environ: dict[str, Any], start_response: Any) -> Any:
        if "test.dispatched" in environ:
            return asok(environ, start_response)
        say("dispatching")
        return site.app._wsgi_call({**environ, "test.dispatched": True}, start_response)

    site.app._wsgi_call = dispatcher
    asok_trace.instrument(site.app, isolate=isolate)
    site.views["plain"] = lambda request: say("inside") or "plain"
    reply = sites.wsgi(site.app)
    assert [line["event"] for line in lines] == ["dispatching", "inside", "request"]
    assert {line["request_id"] for line in lines} == set(reply.ids)


def test_an_environ_that_is_served_again(site: Site, lines: list[Line], isolate: bool) -> None:
    """After its request has ended it is another request."""
    asok_trace.instrument(site.app, isolate=isolate)
    environ = sites.environ()
    for _ in range(2):
        b"".join(site.app(environ, Started()))
    assert len({line["request_id"] for line in lines}) == 2


# --- another request, made current by hand ----------------------------------------------------


def test_another_request_made_current(site: Site, call: Call, lines: list[Line]) -> None:
    """The id stays this request's, its ip, path and user are the other's; then all are our own
    again. What is bound stays as well."""
    asok_trace.instrument(site.app)
    other = Request(sites.environ("/other", peer="198.51.100.9"))
    other.user = SimpleNamespace(id=8)

    @site.view
    def page(request: Any) -> str:
        request.user = SimpleNamespace(id=7)
        asok_trace.bind(tenant="ours")
        say("before")
        with request_context(other):
            say("inside")
            other.user = SimpleNamespace(id=9)
            say("inside again")
        say("after")
        return "page"

    [request_id] = call(site.app, "/page").ids
    assert {line["request_id"] for line in lines} == {request_id}
    assert {line["tenant"] for line in lines} == {"ours"}
    facts = [(line["ip"], line["path"], line["user"]) for line in lines]
    ours = (sites.PEER, "/page", "7")
    theirs = ("198.51.100.9", "/other")
    assert facts == [ours, (*theirs, "8"), (*theirs, "9"), ours, ours]


def test_another_request_that_was_stamped_before(site: Site, call: Call, lines: list[Line]) -> None:
    """It has an unowned scope from a time without any gateway; inside ours, the id is ours."""
    asok_trace.instrument(site.app)
    other = Request(sites.environ("/other"))
    with request_context(other):
        say("alone")

    @site.view
    def page(request: Any) -> str:
        with request_context(other):
            say("inside")
        return "page"

    [request_id] = call(site.app, "/page").ids
    assert of(lines, "inside") == {request_id} != of(lines, "alone")
    assert named(lines, "inside")["path"] == "/other"
    lines.clear()
    with request_context(other):
        say("alone again")
    assert named(lines, "alone again")["path"] == "/other"


def test_a_request_that_has_ended_made_current(site: Site, call: Call, lines: list[Line]) -> None:
    """A background job that keeps a request: its facts, under this request's id."""
    asok_trace.instrument(site.app)
    kept: list[Any] = []
    site.views["plain"] = lambda request: kept.append(request) or "plain"
    call(site.app, "/earlier")

    @site.view
    def page(request: Any) -> str:
        with request_context(kept[0]):
            say("inside")
        return "page"

    [request_id] = call(site.app, "/page").ids
    assert named(lines, "inside")["request_id"] == request_id
    assert named(lines, "inside")["path"] == "/earlier"
    with request_context(kept[0]):
        say("nowhere")
        assert asok_trace.current() is None  # it is over, whoever makes it current
    assert named(lines, "nowhere")["path"] == "/earlier"


def test_something_that_is_no_request_made_current(
    site: Site, call: Call, lines: list[Line], faults: list[logging.LogRecord]
) -> None:
    """A stub of a test or a job: the lines keep this request's own facts, it is reported at most
    once, and the next request is stamped as ever."""
    asok_trace.instrument(site.app)

    @site.view
    def page(request: Any) -> str:
        with request_context(SimpleNamespace(user="stub")):
            say("inside")
            say("inside again")
        say("after")
        return "page"

    [request_id] = call(site.app, "/page").ids
    assert {line["request_id"] for line in lines} == {request_id}
    assert {line["path"] for line in lines} == {"/page"}
    assert len(faults) <= 1
    lines.clear()
    site.views["plain"] = lambda request: say("fine") or "plain"
    call(site.app)
    assert named(lines, "fine")["user"] is None


# --- several applications -----------------------------------------------------------------------


def test_an_uninstrumented_application_on_the_same_thread(
    make_site: Callable[[], Site], lines: list[Line], isolate: bool
) -> None:
    """Its lines never carry an id of the instrumented one, before or after a page or a stream."""
    ours, theirs = make_site(), make_site()
    asok_trace.instrument(ours.app, isolate=isolate)
    for site in (ours, theirs):
        site.views["plain"] = lambda request: say("page") or "plain"
        site.views["stream"] = lambda request: (say("step") or "x" for _ in range(2))
    for path in ("/plain", "/stream"):
        for site in (theirs, ours, theirs, ours, theirs):
            sites.wsgi(site.app, path)
    own = {line["request_id"] for line in lines if line["event"] == "request"}
    assert len(own) == 4
    others = {
        line["request_id"]
        for line in lines
        if line.get("request_id") not in own and "request_id" in line
    }
    assert len([line for line in lines if line["event"] == "page"]) == 5
    assert len(others) == 3  # its three pages; asok forgets the request before it streams
    assert request_var.get() is None


def test_an_uninstrumented_application_inside_a_view(
    make_site: Callable[[], Site], call: Call, lines: list[Line]
) -> None:
    """Called by a view of ours it is part of our request: its lines have our id, and its own path
    and user. It sets no header."""
    ours, theirs = make_site(), make_site()
    asok_trace.instrument(ours.app)
    theirs.views["plain"] = lambda request: say("theirs") or "plain"

    @ours.view
    def page(request: Any) -> str:
        request.user = SimpleNamespace(id=7)
        assert "X-Request-ID" not in TestClient(theirs.app).get("/theirs").headers
        say("ours")
        return "page"

    [request_id] = call(ours.app, "/page").ids
    assert {line["request_id"] for line in lines} == {request_id}
    assert [(line["path"], line["user"]) for line in lines] == [
        ("/theirs", None),
        ("/page", "7"),
        ("/page", "7"),
    ]


def test_an_uninstrumented_application_after_a_stream_was_left(
    make_site: Callable[[], Site], lines: list[Line], isolate: bool
) -> None:
    """One body of ours is half-read when the other application is called."""
    ours, theirs = make_site(), make_site()
    asok = ours.app._wsgi_call

    def streaming(environ: dict[str, Any], start_response: Any) -> Any:
        asok(environ, start_response)
        return (chunk for chunk in [b"1", b"2"])

    ours.app._wsgi_call = streaming
    asok_trace.instrument(ours.app, isolate=isolate)
    theirs.views["plain"] = lambda request: say("theirs") or "plain"
    body = ours.app(sites.environ(), Started())
    next(body)
    sites.wsgi(theirs.app)
    body.close()
    assert of(lines, "theirs").isdisjoint(of(lines, "request"))


def test_an_uninstrumented_application_in_a_late_thread(
    make_site: Callable[[], Site], call: Call, lines: list[Line]
) -> None:
    """In the context of a request that is over, another application's request is its own."""
    ours, theirs = make_site(), make_site()
    asok_trace.instrument(ours.app)
    theirs.views["plain"] = lambda request: say("theirs") or "plain"
    kept: list[Context] = []
    ours.views["plain"] = lambda request: kept.append(copy_context()) or "plain"
    [request_id] = call(ours.app).ids
    kept[0].run(sites.wsgi, theirs.app, "/theirs")
    assert of(lines, "theirs") != {request_id}
    assert named(lines, "theirs")["path"] == "/theirs"


def test_several_instrumented_applications(
    make_site: Callable[[], Site], call: Call, lines: list[Line]
) -> None:
    """Each by its own settings, on the same thread by turns and inside each other."""
    one, two = make_site(), make_site()
    asok_trace.instrument(one.app, user=lambda request: "one's", request_id_header="X-One")
    asok_trace.instrument(two.app, user=lambda request: "two's", access_log=False)
    for site in (one, two, one):
        site.views["plain"] = lambda request: say("page") or "plain"
        call(site.app)
    assert [line["user"] for line in lines] == ["one's", "one's", "two's", "one's", "one's"]
    lines.clear()
    one.views["outer"] = lambda request: TestClient(two.app).get("/plain").headers["X-Request-ID"]
    reply = call(one.app, "/outer")
    assert (reply.ids, len(reply.all("X-One"))) == ([], 1)
    assert of(lines, "page") == {reply.body.decode()[:32]}
    assert named(lines, "page")["user"] == "two's"
    assert named(lines, "request")["user"] == "one's"


def test_an_application_mounted_in_another(
    make_site: Callable[[], Site], lines: list[Line], isolate: bool
) -> None:
    """Both instrumented, the environ handed from one to the other: one request, one id, and the
    header once."""
    outer, inner = make_site(), make_site()
    asok = outer.app._wsgi_call

    def mounting(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"].startswith("/mounted"):
            return inner.app(environ, start_response)
        return asok(environ, start_response)

    outer.app._wsgi_call = mounting
    for site in (outer, inner):
        asok_trace.instrument(site.app, isolate=isolate)
    inner.views["mounted"] = lambda request: say("inside") or "mounted"
    reply = sites.wsgi(outer.app, "/mounted")
    assert [line["event"] for line in lines] == ["inside", "request"]
    assert {line["request_id"] for line in lines} == set(reply.ids)
    assert len(reply.ids) == 1


def test_a_stub_made_current_outside_any_request(
    site: Site, call: Call, lines: list[Line], faults: list[logging.LogRecord]
) -> None:
    """With `inject` alone: its lines are not stamped, real requests are as ever."""
    for _ in range(2):
        with request_context(SimpleNamespace(user="stub")):
            say("stub")
            assert asok_trace.current() is None
    site.views["plain"] = lambda request: say("fine") or "plain"
    call(site.app)
    assert [line["event"] for line in lines if "request_id" in line] == ["fine"]
    assert len(faults) == 1


@pytest.mark.parametrize("junk", [None, "junk"])
def test_somebody_elses_thing_under_our_key(
    site: Site, lines: list[Line], faults: list[logging.LogRecord], junk: Any
) -> None:
    """With `inject` alone: the request still has one id for all its lines."""
    with request_context(Request({**sites.environ(), "asok_trace.scope": junk})):
        say("one")
        say("two")
    assert len(of(lines, "one", "two")) == 1
    assert None not in of(lines, "one", "two")
    assert not faults


def test_a_request_built_by_hand_from_an_asgi_scope(site: Site, lines: list[Line]) -> None:
    """Outside any request, by the method that we wrap: it has one id of its own."""
    asok_trace.instrument(site.app)
    environ = site.app._build_environ_from_asgi(sites.asgi_scope("/built"), b"")
    with request_context(Request(environ)):
        say("one")
        say("two")
    assert len(of(lines, "one", "two")) == 1
    assert named(lines, "one")["path"] == "/built"

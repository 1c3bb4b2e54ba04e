"""`wrap(outlive=True)`: work that goes on after the response, in a scope and a span of its own.

needs: asok
"""

import asyncio
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asok import current_request
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import asok_trace
from asok_trace import current, wrap
from asok_trace.core.callsite import relative
from tests.gateway.sites import PEER, Reply, Site
from tests.propagate.lines import Line, elsewhere, ids, named, say, span

Call = Callable[..., Reply]
Made = list[Any]


def page(site: Site, make: Callable[[], Any]) -> Made:
    """A page, seen by the user 7, that calls ``make``; what it returns is kept."""
    made: Made = []

    def view(request: Any) -> str:
        request.user = SimpleNamespace(id=7)
        made.append(make())
        return "page"

    site.views["page"] = view
    return made


def charge() -> Any:
    say("charging")
    return current()


async def charge_async() -> Any:
    await asyncio.sleep(0)
    say("charging")
    return current()


def finished(result: Any) -> Any:
    """What a function returned, or its coroutine returns."""
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


BOTH = pytest.mark.parametrize("function", [charge, charge_async])


@BOTH
def test_its_lines_are_those_of_the_request(
    shop: Site, call: Call, lines: list[Line], function: Callable[..., Any]
) -> None:
    """Long after the response: id, ip, user and path are the request's, and ``task`` its name."""
    made = page(shop, lambda: wrap(function, outlive=True))
    reply = call(shop.app, "/page")
    elsewhere(lambda: finished(made[0]()))
    line = named(lines, "charging")
    assert {key: line[key] for key in ("request_id", "ip", "user", "path", "task")} == {
        "request_id": reply.ids[0],
        "ip": PEER,
        "user": "7",
        "path": "/page",
        "task": function.__name__,
    }


@BOTH
def test_it_has_a_scope_of_its_own(
    shop: Site, call: Call, lines: list[Line], function: Callable[..., Any]
) -> None:
    """Of the kind ``task``, open while it runs and closed afterwards, another one for each run;
    outside of it nothing is left."""
    made = page(shop, lambda: wrap(function, outlive=True))
    call(shop.app, "/page")
    is_open: list[bool] = []

    def run() -> list[Any]:
        scopes = [finished(made[0]()) for _ in range(2)]
        assert current() is None
        return scopes

    first, second = elsewhere(run)
    assert first is not second
    assert (first.kind, first.name, first.open) == ("task", function.__name__, False)
    assert (first.method, first.path, first.user) == ("GET", "/page", "7")

    def look() -> None:
        scope = current()
        assert scope is not None
        is_open.append(scope.open)

    page(shop, lambda: elsewhere(wrap(look, outlive=True)))
    assert call(shop.app, "/page").status == 200
    assert is_open == [True]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (functools.partial(charge), "charge"),
        (SimpleNamespace(run=charge).run, "charge"),
        (lambda: charge(), "<lambda>"),
    ],
)
def test_the_name_of_the_task(
    shop: Site, call: Call, lines: list[Line], function: Callable[..., Any], name: str
) -> None:
    """That of the function, also if it is inside a partial."""
    page(shop, lambda: wrap(function, outlive=True)())
    call(shop.app, "/page")
    assert named(lines, "charging")["task"] == name


@BOTH
def test_bind_binds_on_the_task_alone(
    shop: Site, call: Call, lines: list[Line], function: Callable[..., Any]
) -> None:
    """Facts of the request are on its lines; its own are neither on the request's nor on the
    next run's."""

    def bound() -> None:
        charge()
        asok_trace.bind(amount=5)
        say("bound")

    async def bound_async() -> None:
        bound()

    def make() -> None:
        asok_trace.bind(tenant="acme")
        wrapped: Any = wrap(bound if function is charge else bound_async, outlive=True)
        for _ in range(2):
            elsewhere(lambda: finished(wrapped()))
        say("after")

    page(shop, make)
    call(shop.app, "/page")
    assert [line["tenant"] for line in lines if line["event"] == "charging"] == ["acme"] * 2
    assert not [line for line in lines if line["event"] == "charging" and "amount" in line]
    assert [line["amount"] for line in lines if line["event"] == "bound"] == ["5"] * 2
    assert "amount" not in named(lines, "after")


@BOTH
def test_while_the_request_is_open_its_span_is_a_child(
    shop: Site,
    call: Call,
    lines: list[Line],
    spans: InMemorySpanExporter,
    function: Callable[..., Any],
) -> None:
    """Below the span that was current where it was wrapped; its lines carry its own ids."""

    def make() -> None:
        with trace.get_tracer("test").start_as_current_span("inside"):
            wrapped: Any = wrap(function, outlive=True)
        elsewhere(lambda: finished(wrapped()))

    page(shop, make)
    reply = call(shop.app, "/page")
    task = span(spans, function.__name__)
    assert task.parent == span(spans, "inside").context
    assert not task.links
    assert dict(task.attributes or {}) == {
        "request.id": reply.ids[0],
        "client.address": PEER,
        "user.id": "7",
        "url.path": "/page",
        "asok_trace.task": function.__name__,
    }
    assert task.status.status_code is StatusCode.UNSET
    assert named(lines, "charging")["span_id"] == f"{task.context.span_id:016x}"


@BOTH
def test_after_the_request_its_span_is_a_root_with_a_link(
    shop: Site,
    call: Call,
    lines: list[Line],
    spans: InMemorySpanExporter,
    function: Callable[..., Any],
) -> None:
    """A trace is over with its request: each later run is a trace of its own that points there."""
    made = page(shop, lambda: wrap(function, outlive=True))
    reply = call(shop.app, "/page")
    for _ in range(2):
        elsewhere(lambda: finished(made[0]()))
    [server] = [found for found in spans.get_finished_spans() if found.kind.name == "SERVER"]
    tasks = [found for found in spans.get_finished_spans() if found.name == function.__name__]
    for task in tasks:
        assert task.parent is None
        assert [link.context for link in task.links] == [server.context]
        assert (task.attributes or {})["request.id"] == reply.ids[0]
    assert len({found.context.trace_id for found in (server, *tasks)}) == 3


@BOTH
def test_a_span_inside_is_below_it(
    shop: Site, call: Call, spans: InMemorySpanExporter, function: Callable[..., Any]
) -> None:
    """Across what a coroutine awaits; afterwards no span is current."""

    def run() -> None:
        with trace.get_tracer("test").start_as_current_span("below"):
            pass

    async def run_async() -> None:
        await asyncio.sleep(0)
        run()

    wanted: Any = run if function is charge else run_async
    made = page(shop, lambda: wrap(wanted, outlive=True))
    call(shop.app, "/page")
    elsewhere(lambda: finished(made[0]()))
    assert span(spans, "below").parent == span(spans, wanted.__name__).context
    assert not trace.get_current_span().get_span_context().is_valid


@BOTH
def test_an_exception_fails_its_span(
    shop: Site,
    call: Call,
    spans: InMemorySpanExporter,
    function: Callable[..., Any],
) -> None:
    """Recorded with its class, raised unchanged; the request's span is not touched."""
    error = LookupError("no such cart")

    def fail() -> None:
        raise error

    async def fail_async() -> None:
        raise error

    wrapped: Any = fail if function is charge else fail_async
    made = page(shop, lambda: wrap(wrapped, outlive=True))
    call(shop.app, "/page")
    with pytest.raises(LookupError) as raised:
        elsewhere(lambda: finished(made[0]()))
    assert raised.value is error
    failed = span(spans, wrapped.__name__)
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "LookupError"
    [event] = failed.events
    assert (event.attributes or {})["exception.message"] == "no such cart"
    [server] = [found for found in spans.get_finished_spans() if found.kind.name == "SERVER"]
    assert server.status.status_code is StatusCode.UNSET


@BOTH
def test_current_request_raises_with_the_explanation(
    shop: Site, call: Call, function: Callable[..., Any]
) -> None:
    """Even while the request is open; the note names the function, the line and the remedy."""

    def late() -> Any:
        return current_request.path

    async def late_async() -> Any:
        return late()

    wanted: Any = late if function is charge else late_async

    def make() -> None:
        wrapped = wrap(wanted, outlive=True)
        with pytest.raises(RuntimeError, match="outside of request context") as raised:
            elsewhere(lambda: finished(wrapped()))
        [note] = raised.value.__notes__
        line = make.__code__.co_firstlineno + 1
        assert note.startswith(
            f"{wanted.__name__}() was given to asok_trace.wrap(..., outlive=True) at "
            f"{relative(__file__)}:{line} make: it may run after its request has ended"
        )
        assert "Pass what it needs of the request as arguments" in note

    page(shop, make)
    assert call(shop.app, "/page").status == 200


def test_another_runtime_error_gets_no_note(shop: Site, call: Call) -> None:
    """Only the framework's complaint is explained."""
    error = RuntimeError("out of stock")

    def fail() -> None:
        raise error

    made = page(shop, lambda: wrap(fail, outlive=True))
    call(shop.app, "/page")
    with pytest.raises(RuntimeError, match="out of stock"):
        elsewhere(made[0])
    assert not hasattr(error, "__notes__")


@BOTH
def test_outside_any_request_it_is_a_plain_wrap(
    lines: list[Line], spans: InMemorySpanExporter, function: Callable[..., Any]
) -> None:
    """There is nothing to outlive: no scope, no span."""
    wrapped: Any = wrap(function, outlive=True)
    assert elsewhere(lambda: finished(wrapped())) is None
    assert ids(lines, "charging") == [None]
    assert not spans.get_finished_spans()


@BOTH
def test_a_request_that_nobody_instrumented_is_outlived_too(
    site: Site, call: Call, lines: list[Line], function: Callable[..., Any]
) -> None:
    """With the literal one-liner alone: same id, ip, user and path after the request."""
    made = page(site, lambda: (say("page"), wrap(function, outlive=True))[1])
    call(site.app, "/page")
    scope = elsewhere(lambda: finished(made[0]()))
    assert (scope.kind, scope.open) == ("task", False)
    of_page, of_task = named(lines, "page"), named(lines, "charging")
    for key in ("request_id", "ip", "user", "path"):
        assert of_task[key] == of_page[key]
    assert of_task["task"] == function.__name__


def test_a_lambda_that_calls_a_coroutine_function(shop: Site, call: Call) -> None:
    """The work lasts until the coroutine has ended, not until it was made."""
    seen: list[tuple[str, bool]] = []

    async def look() -> None:
        await asyncio.sleep(0)
        scope = current()
        assert scope is not None
        seen.append((scope.kind, scope.open))

    made = page(shop, lambda: wrap(lambda: look(), outlive=True))
    call(shop.app, "/page")
    finished(made[0]())
    assert seen == [("task", True)]

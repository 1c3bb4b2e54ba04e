"""The whole context goes along at once: our scope, Asok's current request, structlog's variables,
OpenTelemetry's span and baggage, and the program's own. needs: asok"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from asok import current_request
from asok.context import request_var
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from tests.gateway.sites import Reply, Site
from tests.propagate.lines import Line, elsewhere, mine, named, say, span

Call = Callable[..., Reply]
Seen = dict[str, Any]


def look() -> Seen:
    """What of the context there is here."""
    say("ran")
    scope = asok_trace.current()
    return {
        "scope": scope and scope.request_id,
        "path": current_request.path if request_var.get() else None,
        "structlog": structlog.contextvars.get_contextvars(),
        "span": trace.get_current_span().get_span_context().span_id,
        "baggage": baggage.get_baggage("tenant"),
        "mine": mine.get(),
    }


async def look_async() -> Seen:
    await asyncio.sleep(0)
    return look()


def furnished(site: Site, make: Callable[[], Any]) -> list[Any]:
    """A page that fills its context, looks at it, and calls ``make``; both results come."""
    made: list[Any] = []

    @site.view
    def page(request: Any) -> str:
        structlog.contextvars.bind_contextvars(cart="5")
        mine.set("the page's")
        token = otel_context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            with trace.get_tracer("test").start_as_current_span("inside"):
                made.extend((look(), make()))
        finally:
            otel_context.detach(token)
        return "page"

    return made


@pytest.mark.parametrize("asynchronous", [False, True])
def test_wrap_takes_the_whole_context_along(
    shop: Site, call: Call, lines: list[Line], spans: InMemorySpanExporter, asynchronous: bool
) -> None:
    """All of it is there in another thread, while the request runs, as it was in the page."""

    def make() -> Seen:
        if asynchronous:
            wrapped = asok_trace.wrap(look_async)
            return elsewhere(lambda: asyncio.run(wrapped()))
        return elsewhere(asok_trace.wrap(look))

    made = furnished(shop, make)
    reply = call(shop.app, "/page")
    here, there = made
    assert here == there
    assert here == {
        "scope": reply.ids[0],
        "path": "/page",
        "structlog": {"cart": "5"},
        "span": span(spans, "inside").context.span_id,
        "baggage": "acme",
        "mine": "the page's",
    }
    first, second = [line for line in lines if line["event"] == "ran"]
    assert {**first, "level": None} == {**second, "level": None}


def test_outlive_takes_all_but_the_request_along(
    shop: Site, call: Call, lines: list[Line], spans: InMemorySpanExporter
) -> None:
    """Asok's current request is gone; the span is one of its own below the page's."""
    made = furnished(shop, lambda: elsewhere(asok_trace.wrap(look, outlive=True)))
    reply = call(shop.app, "/page")
    assert made[1] == {
        **made[0],
        "path": None,
        "span": span(spans, "look").context.span_id,
    }
    assert made[1]["scope"] == reply.ids[0]
    assert named(lines[1:], "ran")["path"] == "/page"


def test_detach_takes_nothing_along(
    shop: Site, call: Call, lines: list[Line], spans: InMemorySpanExporter
) -> None:
    """No request, no scope, no span, no variable, even if it is called in the request."""

    async def call_async() -> Seen:
        return await asok_trace.detach(look_async)()

    def make() -> list[Seen]:
        detached = asok_trace.detach(look)
        return [detached(), elsewhere(detached), elsewhere(asyncio.run, call_async())]

    made = furnished(shop, make)
    call(shop.app, "/page")
    nothing = {
        "scope": None,
        "path": None,
        "structlog": {},
        "span": 0,
        "baggage": None,
        "mine": "nobody's",
    }
    assert made[1] == [nothing] * 3
    late = [line for line in lines if line["event"] == "ran"][1:]
    assert [line.keys() & {"request_id", "path", "trace_id"} for line in late] == [set()] * 3

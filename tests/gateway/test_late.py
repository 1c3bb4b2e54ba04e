"""What goes on after its response, and what is deliberate. needs: asok, flask, quart, starlette"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import quart
import structlog
from asok import Asok
from asok.background import background
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import asok_trace
from asok_trace.detect import leaks as module
from tests.gateway import sites
from tests.gateway.found import leak, leaks, nothing_found, place
from tests.gateway.sites import Line, Site, named

__all__ = ["nothing_found"]

log = structlog.get_logger()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Spans are recorded and stamped from now on; call it for those that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(asok_trace.SpanStamper())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield lambda: list(exporter.get_finished_spans())
    provider.shutdown()


async def ask(app: Any, path: str) -> sites.Reply:
    """One request, as an ASGI server sends it."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(sites.asgi_scope(path), sites.receiving(), send)
    return sites.replied(sent)


@pytest.fixture
def app() -> Iterator[quart.Quart]:
    """An instrumented Quart application."""
    made = quart.Quart("shop")
    handle = asok_trace.instrument(made)
    yield made
    handle.undo()


async def background_tasks(app: quart.Quart) -> None:
    """Wait for them."""
    while app.background_tasks:
        await asyncio.gather(*app.background_tasks)
        await asyncio.sleep(0)  # each is taken out by a callback


def test_a_task_of_a_quart_view(
    app: quart.Quart, lines: list[Line], spans: Callable[[], list[ReadableSpan]]
) -> None:
    """A line and a span after the response: a finding each, once per place, of that request; the
    response is what it was, and the span can be found by its attribute."""
    go = asyncio.Event()
    tasks: list[Any] = []

    async def keeper() -> None:
        await go.wait()
        log.info("late")  # HERE
        trace.get_tracer("shop").start_span("late span").end()  # SPAN

    @app.get("/cart")
    async def cart() -> str:
        tasks.append(asyncio.create_task(keeper()))
        return "cart"

    async def main() -> list[str]:
        replies = [await ask(app, "/cart") for _ in range(2)]
        go.set()
        await asyncio.gather(*tasks)
        return [request_id for reply in replies for request_id in reply.ids]

    ids = asyncio.run(main())
    found = {finding.callsite: finding for finding in leaks()}
    assert set(found) == {place(keeper), place(keeper, "# SPAN")}
    for finding in found.values():
        assert (finding.slug, finding.count) == ("late", 2)
        assert finding.path == "GET /cart"
        assert finding.request_id == ids[0]
        assert finding.task is not None
        assert finding.task.endswith("keeper()")
    assert [line["request_id"] for line in lines if line["event"] == "late"] == ids
    late = [span for span in spans() if span.name == "late span"]
    assert len(late) == 2
    for span in late:
        assert span.attributes is not None
        assert span.attributes["asok_trace.finding"] == "late"
        assert type(span.attributes["asok_trace.late_ms"]) is int


def test_an_asok_view(site: Site, lines: list[Line]) -> None:
    """Under ASGI, where a task goes on in the server's loop."""
    go = asyncio.Event()
    tasks: list[Any] = []

    async def keeper() -> None:
        await go.wait()
        log.info("late")  # HERE

    @site.view
    async def cart(request: Any) -> str:
        tasks.append(asyncio.create_task(keeper()))
        return "cart"

    async def main() -> sites.Reply:
        reply = await ask(site.app, "/async/cart")
        go.set()
        await asyncio.gather(*tasks)
        return reply

    handle = asok_trace.instrument(site.app)
    reply = asyncio.run(main())
    handle.undo()
    found = leak("late")
    assert (found.callsite, found.path) == (place(keeper), "GET /async/cart")
    assert [found.request_id] == reply.ids


def test_a_message_that_is_outlived(app: quart.Quart, lines: list[Line]) -> None:
    """Of a WebSocket: it ends where its handler asks for the next."""
    go = asyncio.Event()
    tasks: list[Any] = []

    async def keeper() -> None:
        await go.wait()
        log.info("late")  # HERE

    @app.websocket("/chat")
    async def chat() -> None:
        await quart.websocket.receive()
        tasks.append(asyncio.create_task(keeper()))
        await quart.websocket.receive()
        go.set()
        await asyncio.gather(*tasks)
        await quart.websocket.send("done")

    async def main() -> None:
        async with app.test_client().websocket("/chat") as socket:
            await socket.send("one")
            await socket.send("two")
            assert await socket.receive() == "done"

    asyncio.run(main())
    found = leak("late")
    assert found.callsite == place(keeper)
    assert "after the message on /chat had ended" in found.message


# --- Quart's background tasks -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync", "partial", "outlive"])
def test_background_tasks_of_quart(
    app: quart.Quart, lines: list[Line], spans: Callable[[], list[ReadableSpan]], kind: str
) -> None:
    """A unit of work each, with the request's id and a span of its own; they get their arguments,
    and the framework's request stays what it is."""
    seen: list[Any] = []

    def mail(to: str, *, copies: int) -> None:
        scope = asok_trace.current()
        assert scope is not None
        seen.append((to, copies, scope.kind, scope.open))
        log.info("mail")

    async def mail_async(to: str, *, copies: int) -> None:
        await asyncio.sleep(0)
        mail(to, copies=copies)

    @app.get("/cart")
    async def cart() -> str:
        if kind == "partial":
            app.add_background_task(functools.partial(mail_async, "ada"), copies=2)
        else:
            given: Any = mail if kind == "sync" else mail_async
            if kind == "outlive":
                given = asok_trace.wrap(given, outlive=True)
            app.add_background_task(given, "ada", copies=2)
        return "cart"

    async def main() -> list[str]:
        reply = await ask(app, "/cart")
        await background_tasks(app)
        return reply.ids

    ids = asyncio.run(main())
    assert seen == [("ada", 2, "task", True)]
    line = named(lines, "mail")
    assert [line["request_id"]] == ids
    assert line["task"].startswith("mail")
    assert "late_ms" not in line
    assert leaks() == []
    [span] = [span for span in spans() if span.name.startswith("mail")]
    assert span.attributes is not None
    assert span.attributes["request.id"] == ids[0]


def test_a_background_task_that_fails(app: quart.Quart, lines: list[Line]) -> None:
    """What Quart says of it is of the request and the task, and in time; so is what the
    application's own handler logs."""
    records: list[logging.LogRecord] = []

    async def mail() -> None:
        raise LookupError("mail")

    @app.get("/cart")
    async def cart() -> str:
        app.add_background_task(mail)
        return "cart"

    async def main() -> list[str]:
        reply = await ask(app, "/cart")
        await background_tasks(app)
        return reply.ids

    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    app.logger.addHandler(handler)
    try:
        with asok_trace.stamp_logging():
            ids = asyncio.run(main())
    finally:
        app.logger.removeHandler(handler)
    [record] = records
    assert [record.request_id] == ids  # type: ignore[attr-defined]
    assert record.task == "mail"  # type: ignore[attr-defined]
    assert not hasattr(record, "late_ms")
    assert leaks() == []


def test_what_outlives_a_background_task(app: quart.Quart, lines: list[Line]) -> None:
    """That is late, and undo() gives the method back."""
    go = asyncio.Event()
    tasks: list[Any] = []

    async def keeper() -> None:
        await go.wait()
        log.info("late")  # HERE

    async def mail() -> None:
        tasks.append(asyncio.create_task(keeper()))

    async def main() -> None:
        app.add_background_task(mail)  # no request: a unit of its own
        await background_tasks(app)
        go.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    found = leak("late")
    assert (found.callsite, found.path) == (place(keeper), "mail")
    assert "add_background_task" in vars(app)
    asok_trace.instrument(app).undo()
    assert "add_background_task" not in vars(app)


# --- what is deliberate --------------------------------------------------------------------------


def test_background_tasks_of_starlette(lines: list[Line]) -> None:
    """They run before the application returns."""

    async def mail() -> None:
        log.info("mail")

    async def cart(request: Any) -> PlainTextResponse:
        return PlainTextResponse("cart", background=BackgroundTask(mail))

    handle = asok_trace.instrument(Starlette(routes=[Route("/cart", cart)]))
    reply = asyncio.run(ask(handle.app, "/cart"))
    handle.undo()
    assert [named(lines, "mail")["request_id"]] == reply.ids
    assert leaks() == []


def test_background_jobs_of_asok(site: Site, call: Any, lines: list[Line]) -> None:
    """While they run, and what Asok says of them."""
    futures: list[Any] = []

    def job() -> None:
        log.info("job")

    @site.view
    def cart(request: Any) -> str:
        futures.append(background(job))
        return "cart"

    handle = asok_trace.instrument(site.app)
    reply = call(site.app, "/cart")
    for future in futures:
        future.result()
    handle.undo()
    assert isinstance(site.app, Asok)
    assert [named(lines, "job")["request_id"]] == reply.ids
    assert leaks() == []


def test_the_ends_of_a_quart_request(app: quart.Quart, lines: list[Line]) -> None:
    """Functions after it, streamed bodies and their ends, errors, and `async with client:`."""

    @app.get("/stream")
    async def stream() -> Any:
        @quart.stream_with_context
        async def steps() -> AsyncIterator[str]:
            try:
                yield "x"
            finally:
                log.info("end of the stream")

        return steps()

    @app.get("/boom")
    async def boom() -> str:
        raise LookupError("boom")

    async def down(error: BaseException | None) -> None:
        log.info("down")

    async def after(response: Any) -> Any:
        log.info("after")
        return response

    app.teardown_request(down)
    app.after_request(after)

    async def main() -> None:
        client = app.test_client()
        for path in ("/stream", "/boom", "/none"):
            for method in ("GET", "HEAD"):
                reply = await client.open(path, method=method)
                await reply.get_data()
        async with client:
            await client.get("/stream")
            log.info("goes on in %s", quart.request.path)
        async with app.test_request_context("/by-hand"):
            await client.get("/stream")
            log.info("by hand")

    asyncio.run(main())
    assert leaks() == []
    assert not [line for line in lines if "late_ms" in line]


# --- containment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["_lateness", "_note_late", "_add_late", "_started", "_name"])
def test_a_fault_of_ours(
    app: quart.Quart,
    lines: list[Line],
    faults: list[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Whoever is late goes on, and it is reported once."""
    go = asyncio.Event()
    tasks: list[Any] = []

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("ours")

    async def keeper() -> None:
        await go.wait()
        log.info("late")
        log.info("later")

    @app.get("/cart")
    async def cart() -> str:
        tasks.append(asyncio.create_task(keeper()))
        return "cart"

    async def main() -> None:
        await ask(app, "/cart")
        go.set()
        await asyncio.gather(*tasks)

    monkeypatch.setattr(module, part, broken)
    asyncio.run(main())
    assert len(faults) == 1
    assert [line["event"] for line in lines if line["event"].startswith("late")] == [
        "late",
        "later",
    ]
    assert leaks() == []

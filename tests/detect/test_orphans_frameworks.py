"""What a view of a real framework starts, watched and carried: found once, or not at all.

needs: asok, flask, quart
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flask
import pytest
import quart
import structlog

import asok_trace
from asok_trace.core import findings
from tests.detect.places import SECONDS, in_thread, place, the_only
from tests.gateway.conftest import make_site, site
from tests.gateway.sites import Site, wsgi

__all__ = ["make_site", "site"]

View = Callable[[], Any]
log = logging.getLogger("shop.orders")


def charge() -> None:
    structlog.get_logger().info("charged")  # the line


def by_thread() -> None:
    thread = threading.Thread(target=charge)
    thread.start()  # by_thread
    thread.join(SECONDS)


def by_timer() -> None:
    timer = threading.Timer(0, charge)
    timer.start()  # by_timer
    timer.join(SECONDS)


def by_pool() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(charge).result(SECONDS)  # by_pool


def by_map() -> None:
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(lambda _: charge(), range(1)))  # by_map


async def by_executor() -> None:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, charge)  # by_executor


async def by_callback() -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(told)

    def told() -> None:
        charge()
        done.set()

    thread = threading.Thread(target=tell)
    thread.start()  # by_callback
    await done.wait()
    await asyncio.to_thread(thread.join, SECONDS)


SYNC = (by_thread, by_timer, by_pool, by_map)
ASYNC = (by_executor, by_callback)


def serve_asok(work: Callable[[], Any], site: Site, **settings: Any) -> tuple[str, str]:
    with asok_trace.instrument(site.app, **settings):
        if inspect.iscoroutinefunction(work):

            @site.view
            async def page(request: Any) -> str:
                await work()
                return "page"

            return wsgi(site.app, "/async/page").ids[0], "/async/page"

        @site.view
        def page(request: Any) -> str:
            work()
            return "page"

        return wsgi(site.app, "/page").ids[0], "/page"


def serve_flask(work: Callable[[], Any], site: Site, **settings: Any) -> tuple[str, str]:
    app = flask.Flask("shop")

    @app.get("/page")
    def page() -> str:
        asyncio.run(work()) if inspect.iscoroutinefunction(work) else work()
        return "page"

    with asok_trace.instrument(app, **settings):
        reply = app.test_client().get("/page", buffered=True)
    assert reply.status_code == 200
    return reply.headers["X-Request-ID"], "/page"


def serve_quart(work: Callable[[], Any], site: Site, **settings: Any) -> tuple[str, str]:
    app = quart.Quart("shop")

    @app.get("/page")
    async def page() -> str:
        result = work()
        if isinstance(result, Awaitable):
            await result
        return "page"

    async def ask() -> Any:
        return await app.test_client().get("/page")

    with asok_trace.instrument(app, **settings):
        reply = asyncio.run(ask())
    assert reply.status_code == 200
    return reply.headers["X-Request-ID"], "/page"


SERVERS = {"asok": serve_asok, "flask": serve_flask, "quart": serve_quart}


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[dict[str, Any]]]:
    """What structlog and the standard library log, stamped."""
    captured: list[dict[str, Any]] = []

    def capture(_logger: Any, _name: str, event: Any) -> Any:
        captured.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[asok_trace.inject, capture])
    with asok_trace.stamp_logging():
        yield captured


@pytest.mark.parametrize("framework", SERVERS)
@pytest.mark.parametrize("work", [*SYNC, *ASYNC])
def test_what_a_view_starts(
    work: Callable[[], Any], framework: str, site: Site, lines: list[dict[str, Any]]
) -> None:
    """Watched: one finding, with the line, the spawn site, and the request. Carried: none."""
    request_id, path = SERVERS[framework](work, site, threads="watch")
    finding = the_only()
    assert (finding.slug, finding.count) == ("lost", 1)
    assert finding.callsite == f"{place('the line')} charge"
    assert finding.origin == f"started at {_spawn(work.__name__)} {work.__name__}"
    assert (finding.request_id, finding.path) == (request_id, f"GET {path}")
    [line] = [line for line in lines if line["event"] == "charged"]
    assert "request_id" not in line

    findings.clear()
    lines.clear()
    request_id, _ = SERVERS[framework](work, site, threads="carry")
    asok_trace.assert_clean(outside=True)
    [line] = [line for line in lines if line["event"] == "charged"]
    assert line["request_id"] == request_id


def _spawn(name: str) -> str:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    [number] = [n for n, line in enumerate(lines, 1) if line.endswith(f"# {name}")]
    return place("the line").rpartition(":")[0] + f":{number}"


@pytest.mark.parametrize("framework", SERVERS)
def test_a_view_that_starts_nothing(framework: str, site: Site) -> None:
    """Lines, tasks and jobs of a request that stay within it are nobody's mistake."""

    async def work() -> None:
        charge()
        log.warning("here")
        await asyncio.create_task(asyncio.sleep(0))
        await asyncio.to_thread(charge)

    SERVERS[framework](work, site, threads="watch")
    asok_trace.assert_clean(outside=True)


def test_what_is_logged_after_and_beside_requests(site: Site) -> None:
    """A plain thread has no request behind it: information, not a mistake."""
    serve_asok(charge, site)
    in_thread(charge)
    assert the_only().slug == "outside"
    asok_trace.assert_clean()


def test_asoks_own_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Asok is not hooked up and threads are watched, its mail thread is lost, not hidden:
    what a web framework starts is the request's."""
    from asok import mail

    monkeypatch.setenv("MAIL_HOST", "127.0.0.1")
    monkeypatch.setenv("MAIL_PORT", "9")  # discarded
    monkeypatch.setenv("MAIL_TLS", "false")
    monkeypatch.setenv("MAIL_FROM", "shop@example.org")
    threads: list[threading.Thread] = []
    started = threading.Thread.start

    def start(self: threading.Thread) -> None:
        threads.append(self)
        started(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    findings.serve()
    with asok_trace.propagate_threads("watch"), asok_trace.scope("checkout"):
        mail.Mail.send("ada@example.org", "subject", "body")  # the mail
        for thread in threads:
            thread.join(SECONDS)
    finding = the_only()
    assert finding.slug == "lost"
    assert finding.origin is not None
    assert place("the mail") in finding.origin
    assert finding.path == "checkout"

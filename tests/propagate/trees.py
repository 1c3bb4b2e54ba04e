"""Random trees of work that leaves its request, and what runs them. needs: asok"""

import asyncio
import functools
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, ClassVar

import structlog

from asok_trace import wrap, wrap_stream
from tests.gateway import sites
from tests.propagate.lines import SECONDS

KINDS = (
    "call",
    "thread",
    "timer",
    "pool",
    "task",
    "to_thread",
    "run_in_executor",
    "generator",
    "async generator",
    "wsgi",
    "asgi",
    "call_later",
    "wrap",
    "outlive",
    "outlive, late",
)

_names = itertools.count()


@dataclass
class Node:
    """One piece of work: how it is started, and the work that it starts."""

    kind: str
    below: list["Node"]
    name: str = field(default_factory=lambda: f"node-{next(_names)}")

    def expected(self, request_id: str, task: str | None = None) -> Iterator[tuple[str, str, Any]]:
        """Yield the name of each node, the id of the request that it belongs to, and its task."""
        if self.kind in ("wsgi", "asgi"):
            request_id, task = self.name, None
        elif self.kind.startswith("outlive"):
            task = f"Forest.visit[{self.name}]"
        yield self.name, request_id, task
        for node in self.below:
            yield from node.expected(request_id, task)


class Forest:
    """Runs trees on a site, whose page ``/visit`` visits the node that the request is named by."""

    def __init__(self, site: sites.Site, log: Callable[[str], object]) -> None:
        self._app = site.app
        self._log = log
        self._nodes: dict[str, Node] = {}
        # What runs after its request, and may start more of the kind.
        self._late: list[threading.Thread] = []
        self.over = threading.Event()
        site.views["visit"] = self._page
        # One for all requests, which reuse its threads; enough of them that jobs which wait for
        # jobs never wait for a thread.
        self._pool = ThreadPoolExecutor(200)

    def close(self) -> None:
        self._pool.shutdown()

    def request(self, client: str, node: Node) -> None:
        """Send the request for ``node``, whose id is its name."""
        self._nodes[node.name] = node
        reply = sites.CLIENTS[client](self._app, "/visit", headers=[("X-Request-ID", node.name)])
        got = (reply.status, reply.body, reply.ids)
        assert got == (200, b"visited", [node.name]), got

    def end(self) -> None:
        """All requests are over; let what outlives them go on, and wait for it."""
        self.over.set()
        while self._late:
            _finished(self._late.pop())

    def _page(self, request: Any) -> str:
        self.visit(self._nodes[request.environ["HTTP_X_REQUEST_ID"]])
        return "visited"

    # --- in a function ------------------------------------------------------------------------

    def visit(self, node: Node) -> None:
        """Log this node's lines, and start what is below it."""
        self._log(node.name)
        for below in node.below:
            start = self._start.get(below.kind)
            if start is None:
                self._in_loop(self._await[below.kind], below)
            else:
                start(self, below)

    def _in_loop(self, start: Callable[["Forest", Node], Awaitable[None]], node: Node) -> None:
        async def main() -> None:
            await start(self, node)

        _outside_loop(lambda: asyncio.run(main()))

    def _thread(self, node: Node) -> None:
        _joined(threading.Thread(target=self.visit, args=(node,)))

    def _timer(self, node: Node) -> None:
        _joined(threading.Timer(0, self.visit, (node,)))

    def _in_pool(self, node: Node) -> None:
        self._pool.submit(self.visit, node).result(SECONDS)

    def _generator(self, node: Node) -> None:
        def body() -> Iterator[None]:
            yield None
            self.visit(node)
            yield None

        assert Context().run(list, wrap_stream(body())) == [None, None]

    def _wsgi(self, node: Node) -> None:
        # Inside a running loop Asok takes a WSGI call for an ASGI one, and answers with the text
        # of a coroutine.
        _outside_loop(lambda: self.request("wsgi", node))

    def _wrapped(self, node: Node) -> None:
        Context().run(wrap(self.visit), node)

    def _outliving(self, node: Node, after: threading.Event | None = None) -> None:
        def visit() -> None:
            if after is not None:
                assert after.wait(SECONDS)
            self.visit(node)

        visit.__qualname__ = f"Forest.visit[{node.name}]"
        thread = threading.Thread(target=wrap(visit, outlive=True))
        thread.start()
        self._late.append(thread)

    _start: ClassVar[dict[str, Callable[["Forest", Node], None]]] = {
        "call": visit,
        "thread": _thread,
        "timer": _timer,
        "pool": _in_pool,
        "generator": _generator,
        "wsgi": _wsgi,
        "wrap": _wrapped,
        "outlive": _outliving,
        "outlive, late": lambda self, node: self._outliving(node, self.over),
    }

    # --- in a coroutine -----------------------------------------------------------------------

    async def visit_async(self, node: Node) -> None:
        """The same in a coroutine; what is below it may be there at the same time."""
        self._log(node.name)
        await asyncio.sleep(0)
        starts = []
        for below in node.below:
            start = self._await.get(below.kind)
            if start is None:
                self._start[below.kind](self, below)
            else:
                starts.append(start(self, below))
        await asyncio.gather(*starts)

    async def _task(self, node: Node) -> None:
        await asyncio.create_task(self.visit_async(node))

    async def _to_thread(self, node: Node) -> None:
        await asyncio.to_thread(self.visit, node)

    async def _run_in_executor(self, node: Node) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, functools.partial(self.visit, node))

    async def _async_generator(self, node: Node) -> None:
        async def body() -> AsyncIterator[None]:
            yield None
            await self.visit_async(node)
            yield None

        async def consume(stream: AsyncIterator[None]) -> int:
            return len([step async for step in stream])

        stream = wrap_stream(body())
        assert await asyncio.create_task(consume(stream), context=Context()) == 2

    async def _asgi(self, node: Node) -> None:
        self._nodes[node.name] = node
        sent: list[sites.Message] = []

        async def send(message: sites.Message) -> None:
            sent.append(message)

        scope = sites.asgi_scope("/visit", headers=[("X-Request-ID", node.name)])
        await self._app(scope, sites.receiving(), send)
        assert sites.replied(sent).ids == [node.name]

    async def _call_later(self, node: Node) -> None:
        loop = asyncio.get_running_loop()
        called = loop.create_future()

        def callback() -> None:
            try:
                self.visit(node)
            finally:
                called.set_result(None)

        loop.call_later(0, callback)
        await called

    _await: ClassVar[dict[str, Callable[["Forest", Node], Coroutine[Any, Any, None]]]] = {
        "task": _task,
        "to_thread": _to_thread,
        "run_in_executor": _run_in_executor,
        "async generator": _async_generator,
        "asgi": _asgi,
        "call_later": _call_later,
    }


def _outside_loop(function: Callable[[], None]) -> None:
    """Call ``function`` where no event loop is running; one that is here waits for it."""
    if asyncio._get_running_loop() is None:
        function()
    else:
        _joined(threading.Thread(target=function))


def _joined(thread: threading.Thread) -> None:
    thread.start()
    _finished(thread)


def _finished(thread: threading.Thread) -> None:
    thread.join(SECONDS)
    assert not thread.is_alive()


def log(event: str) -> None:
    """A line by each of the two ways."""
    structlog.get_logger().info(event)
    logging.getLogger("trees").warning(event)

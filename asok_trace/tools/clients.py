"""One GET at a time, and an answer within a given time whatever the view does: the frameworks' own
test clients, and the least one for any other callable.

No cookie is kept, no redirect followed. An answer is text and numbers: who asks must not be the one
who keeps a request alive.
"""

import asyncio
import inspect
import queue
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote
from wsgiref.util import setup_testing_defaults

from asok_trace.core import text
from asok_trace.tools.lifespan import Lifespan

T = TypeVar("T")

_PEER: Final = "127.0.0.1"
THREAD: Final = "asok_trace-doctor"
"""The name of the threads in which requests are served."""

_ERROR_LIMIT: Final = 200
_SPARE: Final = 1.0
"""Seconds beyond the limit, for what notices by itself that it is over."""


class Answer(NamedTuple):
    """What came back."""

    status: int | None
    error: str | None = None
    """Why there is no status."""


class Failed(Exception):  # noqa: N818  # not an error of ours
    """The application did not start; its text says why."""


class Client(Protocol):
    """Talks to one application."""

    stuck: bool
    """Whether it cannot be asked any more: something in it does not give way."""

    def start(self, seconds: float) -> None:
        """Have the application start. Raises `Failed`."""

    def get(self, path: str, seconds: float) -> Answer:
        """Ask for ``path``. Never raises an Exception."""

    def busy(self) -> bool:
        """Whether something that is not a thread is still at work in the application."""

    def stop(self, seconds: float) -> None:
        """Have the application stop. Never raises an Exception."""


def of(app: Any, kinds: set[str]) -> Client:
    """Return a client for ``app``, which has entries of ``kinds``; none, if its framework is not
    known."""
    if kinds >= {"wsgi", "asgi"}:
        return _Threaded(lambda path, over: _asok(app, path, over))
    if "wsgi" in kinds:
        return _Threaded(lambda path, over: _flask(app, path, over))
    if "asgi" in kinds:
        return _Looped(app, lambda path, _state: _quart(app, path))
    if inspect.iscoroutinefunction(app):
        return _Looped(app, lambda path, state: _asgi(app, path, state))
    return _Threaded(lambda path, over: _wsgi(app, path, over))


Over = Callable[[], bool]
Job = tuple[str, float, "Future[Answer]"]


class _Endless(Exception):  # noqa: N818  # not an error of ours
    """The body goes on and on."""


class _Threaded:
    """WSGI: one thread that serves one request after the other, as servers do. One that hangs is
    left behind, and the next request gets a new thread."""

    stuck = False

    def __init__(self, ask: Callable[[str, Over], int]) -> None:
        self._ask = ask
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def start(self, _seconds: float) -> None:
        threading.Thread(target=self._serve, args=(self._jobs,), name=THREAD, daemon=True).start()

    def _serve(self, jobs: "queue.SimpleQueue[Job | None]") -> None:
        while (job := jobs.get()) is not None:
            path, seconds, answer = job
            try:
                answer.set_result(Answer(self._ask(path, _over(seconds))))
            except _Endless:
                answer.set_result(Answer(None, f"no end of the body within {seconds:g} s"))
            except BaseException as error:  # sys.exit() in a view, too
                answer.set_result(Answer(None, _told(error)))

    def get(self, path: str, seconds: float) -> Answer:
        answer: Future[Answer] = Future()
        self._jobs.put((path, seconds, answer))
        try:
            return answer.result(seconds + _SPARE)
        except TimeoutError:
            self._jobs.put(None)  # it ends when it gives way
            self._jobs = queue.SimpleQueue()
            self.start(seconds)
            return _hangs(seconds)

    def busy(self) -> bool:
        return False

    def stop(self, _seconds: float) -> None:
        self._jobs.put(None)


class _Looped:
    """ASGI: one event loop in a thread of its own, from the application's startup on."""

    def __init__(self, app: Any, ask: Callable[[str, dict[str, Any]], Awaitable[int]]) -> None:
        self._lifespan = Lifespan(app)
        self._ask = ask
        self._loop = asyncio.new_event_loop()
        self._idle: weakref.WeakSet[Any] = weakref.WeakSet()
        self.stuck = False

    def start(self, seconds: float) -> None:
        threading.Thread(target=self._loop.run_forever, name=THREAD, daemon=True).start()
        try:
            failure = self._run(self._lifespan.startup()).result(seconds)
        except TimeoutError:
            failure = f"its startup did not end within {seconds:g} s"
        if failure is not None:
            raise Failed(failure)
        self._idle.update(asyncio.all_tasks(self._loop))

    def get(self, path: str, seconds: float) -> Answer:
        answer = self._run(self._answer(path))
        try:
            return answer.result(seconds)
        except TimeoutError:
            answer.cancel()
            given_way = threading.Event()
            self._loop.call_soon_threadsafe(given_way.set)
            self.stuck = not given_way.wait(_SPARE)
            return _hangs(seconds)

    async def _answer(self, path: str) -> Answer:
        try:
            return Answer(await self._ask(path, dict(self._lifespan.state)))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # sys.exit() in a view would end the loop
            return Answer(None, _told(error))

    def busy(self) -> bool:
        # Timers, as of loop.call_later(), are no tasks, and nobody lists them in public.
        timers = list(getattr(self._loop, "_scheduled", ()))
        tasks = asyncio.all_tasks(self._loop) - set(self._idle)
        return bool(tasks) or not all(timer.cancelled() for timer in timers)

    def stop(self, seconds: float) -> None:
        if not self.stuck:
            try:
                self._run(self._end()).result(seconds)
            except Exception:
                return  # what it could not do in time is not done

    async def _end(self) -> None:
        await self._lifespan.shutdown()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def _asok(app: Any, path: str, over: Over) -> int:
    def served(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # What a server says, and the test client does not.
        environ["REMOTE_ADDR"] = _PEER
        environ["PATH_INFO"] = _wsgi_path(environ["PATH_INFO"])
        environ["wsgi.errors"] = sys.stderr
        body = app(environ, lambda status, headers, *_: start_response(status, headers))
        return _until(body, over)

    status: int = import_module("asok.testing").TestClient(served).get(path).status_code
    return status


def _flask(app: Any, path: str, over: Over) -> int:
    response = app.test_client(use_cookies=False).get(path)
    try:
        for _ in response.response:
            if over():
                raise _Endless
    finally:
        response.close()
    status: int = response.status_code
    return status


def _wsgi(app: Any, path: str, over: Over) -> int:
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "PATH_INFO": _wsgi_path(path),
        "QUERY_STRING": query,
        "REMOTE_ADDR": _PEER,
        "SERVER_NAME": "localhost",
        "HTTP_HOST": "localhost",
        "wsgi.errors": sys.stderr,
    }
    setup_testing_defaults(environ)
    started: list[str] = []

    def start_response(status: str, _headers: object, _error: object = None) -> Callable[..., None]:
        started.append(status)
        return lambda _data: None

    for _ in _until(app(environ, start_response), over):
        pass
    return int(started[-1][:3])


def _until(body: Iterable[bytes], over: Over) -> Iterator[bytes]:
    """Go through ``body`` and close it, as servers do. Who gets the parts need not keep them."""
    try:
        for _ in body:
            if over():
                raise _Endless
            yield b""
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


def _wsgi_path(path: str) -> str:
    return unquote(path).encode().decode("latin-1")


def _over(seconds: float) -> Over:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


async def _quart(app: Any, path: str) -> int:
    status: int = (await app.test_client(use_cookies=False).get(path)).status_code
    return status


async def _asgi(app: Any, path: str, state: dict[str, Any]) -> int:
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": (_PEER, 50000),
        "server": ("localhost", 80),
        "state": state,
    }
    to_come = [{"type": "http.request", "body": b"", "more_body": False}]
    started: list[int] = []
    ended = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if to_come:
            return to_come.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            started.append(message["status"])
        elif not message.get("more_body"):
            ended.set()

    await app(scope, receive, send)
    return started[-1]


def _hangs(seconds: float) -> Answer:
    return Answer(None, f"no answer within {seconds:g} s")


def _told(error: BaseException) -> str:
    said = text.clean(str(error), _ERROR_LIMIT)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__

"""FastAPI and Starlette under a real uvicorn, as any ASGI callable: nothing of theirs is known.

needs: fastapi, pythonjsonlogger, starlette, uvicorn, websockets
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from tests.serving import Document, Served, served, uvicorn

TOGETHER = 12

PROGRAM = f"""
import asyncio, logging, threading
from contextlib import asynccontextmanager

import asok_trace, structlog
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, StreamingResponse

log = structlog.get_logger()
released = asyncio.Event()
waiting = threading.Barrier({TOGETHER}, timeout=60)
awaiting = asyncio.Barrier({TOGETHER})

@asynccontextmanager
async def lifespan(app):
    log.info("up")
    yield {{"answer": 42}}
    log.info("down")

api = FastAPI(lifespan=lifespan)

@api.get("/sync/{{n}}")
def sync(n: int):
    waiting.wait()
    log.info("inside", n=n)
    return n

@api.get("/async/{{n}}")
async def async_(n: int):
    await awaiting.wait()
    log.info("inside", n=n)
    await asyncio.to_thread(logging.getLogger("shop").info, "in a thread")
    return n

@api.get("/state")
async def state(request: Request):
    return request.state.answer

@api.get("/boom")
async def boom():
    raise LookupError("boom")

@api.get("/refused")
async def refused():
    raise HTTPException(418)

@api.get("/stream/sync")
def stream_sync():
    def parts():
        for part in "abc":
            log.info("part", part=part)
            yield part
    return StreamingResponse(parts())

@api.get("/stream/async")
async def stream_async():
    async def parts():
        for part in "abc":
            log.info("part", part=part)
            yield part
    return StreamingResponse(parts())

@api.get("/file")
async def file():
    return FileResponse(__file__)

async def later():
    log.info("background begins")
    await asyncio.wait_for(released.wait(), 60)
    log.info("background ends")

@api.get("/background")
async def background(tasks: BackgroundTasks):
    tasks.add_task(later)
    return "started"

@api.get("/release")
async def release():
    released.set()

@api.websocket("/echo")
async def echo(websocket: WebSocket):
    await websocket.accept()
    log.info("accepted")
    async for text in websocket.iter_text():
        log.info("message", text=text)
        await websocket.send_text(text)

app = asok_trace.setup(api).app
"""

EXPORT = {"OTEL_TRACES_EXPORTER": "console"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The site, serving."""
    with served(tmp_path_factory.mktemp("site"), PROGRAM, *uvicorn("shop:app")) as running:
        yield running


def about(site: Served, request_id: str) -> list[Document]:
    """All lines of a request whose response has been read, up to its canonical one."""
    for _ in range(1000):
        found = [line for line in site.lines if line.get("request_id") == request_id]
        if any(line.get("event") == "request" for line in found):
            return found
        site.get("/state")  # the line is written after the last byte: give it its turn
    raise AssertionError(site.output)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_requests_at_the_same_time(site: Served, kind: str) -> None:
    """Requests that are all inside their handler at once, in threads or tasks, keep their ids
    apart; what they log in threads of their own, and the server's access line, carry it too."""
    answers = site.together([f"/{kind}/{n}" for n in range(TOGETHER)])
    ids = {path: answer.ids[0] for path, answer in answers.items()}
    assert len(set(ids.values())) == TOGETHER
    for path, request_id in ids.items():
        lines = about(site, request_id)
        assert {line["path"] for line in lines} == {path}
        assert {line["ip"] for line in lines} == {"127.0.0.1"}
        [inside] = [line for line in lines if line.get("event") == "inside"]
        assert f"/{kind}/{inside['n']}" == path
        names = {line.get("name") for line in lines}
        assert "uvicorn.access" in names
        assert ("shop" in names) == (kind == "async")


def test_lifespan_and_its_state(site: Served) -> None:
    """The application's lifespan is run, and its state reaches requests."""
    assert site.get("/state").body == b"42"
    assert any(line.get("event") == "up" for line in site.lines)


@pytest.mark.parametrize(
    ("path", "status"), [("/refused", 418), ("/nowhere", 404), ("/sync/x", 422), ("/docs", 200)]
)
def test_each_answer_has_its_status(site: Served, path: str, status: int) -> None:
    """Whatever the framework answers by itself has the header, and a canonical line with the
    status and the ids of the server span."""
    answer = site.get(path)
    assert answer.status == status
    [line] = [one for one in about(site, answer.ids[0]) if one.get("event") == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", path, status)
    assert (len(line["trace_id"]), len(line["span_id"])) == (32, 16)


def test_an_exception(site: Served) -> None:
    """The error page has the header; the exception is on the canonical line, and the server's
    report of it carries the id."""
    answer = site.get("/boom")
    assert (answer.status, len(answer.ids)) == (500, 1)
    lines = about(site, answer.ids[0])
    [line] = [one for one in lines if one.get("event") == "request"]
    assert (line["status"], line["error"], line["level"]) == (500, "LookupError", "error")
    site.get("/state")
    lines = about(site, answer.ids[0])
    assert any(one.get("name") == "uvicorn.error" and "exc_info" in one for one in lines)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_streams(site: Served, kind: str) -> None:
    """Every part of a streamed body is produced inside the request, in a thread or not."""
    answer = site.get(f"/stream/{kind}")
    assert answer.body == b"abc"
    lines = about(site, answer.ids[0])
    events = [line["event"] for line in lines if "event" in line]
    assert events == ["part", "part", "part", "request"]


def test_a_file(site: Served) -> None:
    """A file arrives whole."""
    assert site.get("/file").body == PROGRAM.encode()


def test_background_tasks(site: Served) -> None:
    """The response is there before a background task ends; what that logs carries the id, and the
    canonical line comes after it."""
    answer = site.get("/background")
    assert answer.body == b'"started"'
    assert not any(line.get("event") == "background ends" for line in site.lines)
    site.get("/release")
    events = [line["event"] for line in about(site, answer.ids[0]) if "event" in line]
    assert events == ["background begins", "background ends", "request"]


def test_websockets(site: Served) -> None:
    """The handshake's response has the header; each message is a unit of its own, with the
    connection's id beside its own."""
    url = f"ws://127.0.0.1:{site.port}/echo"
    with websockets.sync.client.connect(url) as client:
        response: Any = client.response
        request_id = response.headers["X-Request-ID"]
        for text in ("one", "two"):
            client.send(text)
            assert client.recv(10) == text
    lines = about(site, request_id)
    assert [line["event"] for line in lines if "event" in line] == ["accepted", "request"]
    assert lines[-1]["status"] == 101 or any(line.get("status") == 101 for line in lines)
    messages = [line for line in site.lines if line.get("connection_id") == request_id]
    assert [line["text"] for line in messages] == ["one", "two"]
    assert len({line["request_id"] for line in messages} - {request_id}) == 2


def test_a_websocket_that_is_refused(site: Served) -> None:
    """A handshake that is closed before it was accepted is a 403, in the line as for the client."""
    with pytest.raises(InvalidStatus, match="403"):
        websockets.sync.client.connect(f"ws://127.0.0.1:{site.port}/nowhere")
    site.get("/state")
    assert any((line.get("path"), line.get("status")) == ("/nowhere", 403) for line in site.lines)


TRACERS = {
    "FastAPI": "FastAPI()",
    "ours": "FastAPI(telemetry={'tracing': False})",
    "ours, in its middleware": "CORSMiddleware(FastAPI(telemetry={'tracing': False}))",
    "FastAPI, in a middleware": "CORSMiddleware(FastAPI())",
    "a middleware of Starlette": (
        "FastAPI(telemetry={'tracing': False}, middleware=[Middleware(OpenTelemetryMiddleware)])"
    ),
}
SITE = """
import asok_trace
from asok_trace import providers
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware

providers.set_up(None)  # the middleware asks for the provider when it is made
api = found = %s
while not isinstance(found, FastAPI):
    found = found.app

@found.get("/user/{n}")
async def user(n: int):
    if not n:
        raise LookupError(n)
    return n

app = asok_trace.setup(api).app
"""


@pytest.mark.parametrize("made", TRACERS.values(), ids=TRACERS)
def test_one_server_span(tmp_path: Path, made: str) -> None:
    """Whether the application traces itself or we do it, there is one SERVER span for each
    request; it carries the request's id, its ids are on the canonical line, and it is exported
    before the server is gone."""
    paths = {"/user/1": 200, "/nowhere": 404, "/user/0": 500}
    if "OpenTelemetryMiddleware" in made:
        del paths["/user/0"]  # of which Starlette makes a 500 when the span has ended
    with served(tmp_path, SITE % made, *uvicorn("shop:app"), **EXPORT) as site:
        answers = {site.get(path).ids[0]: path for path in paths}
    spans = [line for line in site.lines if line.get("kind") == "SpanKind.SERVER"]
    canonical = {line["request_id"]: line for line in site.lines if line.get("event") == "request"}
    assert len(spans) == len(canonical) == len(paths)
    for span in spans:
        about, line = span["attributes"], canonical[span["attributes"]["request.id"]]
        path = answers[about["request.id"]]
        assert (about["url.path"], line["path"]) == (path, path)
        assert about["http.response.status_code"] == line["status"] == paths[path]
        context = span["context"]
        assert context["trace_id"] == f"0x{line['trace_id']}"
        assert context["span_id"] == f"0x{line['span_id']}"
        if made == TRACERS["ours"]:
            assert line["trace_id"] == line["request_id"]


def test_shutting_down(tmp_path: Path) -> None:
    """The lifespan's end is run."""
    with served(tmp_path, PROGRAM, *uvicorn("shop:app")) as site:
        pass
    assert any(line.get("event") == "down" for line in site.lines)

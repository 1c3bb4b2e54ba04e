"""Django under gunicorn and uvicorn, as any WSGI or ASGI callable.

needs: django, gunicorn, pythonjsonlogger, uvicorn
"""

from collections.abc import Iterator

import pytest

from tests.serving import Document, Served, gunicorn, served, uvicorn

TOGETHER = 4

PROGRAM = f"""
import asyncio, logging, threading

import asok_trace, django, structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests",
)
django.setup()
log = structlog.get_logger()
waiting = threading.Barrier({TOGETHER}, timeout=60)
views = []

def sync(request, n):
    waiting.wait()
    log.info("inside", n=n)
    return HttpResponse(str(n))

async def async_(request, n):
    await asyncio.to_thread(waiting.wait)
    log.info("inside", n=n)
    await sync_to_async(logging.getLogger("shop").info)("in a thread")
    return HttpResponse(str(n))

def boom(request):
    raise LookupError("boom")

def stream(request):
    def parts():
        for part in "abc":
            log.info("part", part=part)
            yield part
    return StreamingHttpResponse(parts())

async def stream_async(request):
    async def parts():
        for part in "abc":
            log.info("part", part=part)
            yield part
    return StreamingHttpResponse(parts())

def file(request):
    return FileResponse(open(__file__, "rb"))

def ping(request):
    return HttpResponse("pong")

urlpatterns = [
    path("sync/<int:n>", sync),
    path("async/<int:n>", async_),
    path("boom", boom),
    path("stream", stream),
    path("stream_async", stream_async),
    path("file", file),
    path("ping", ping),
    path("slashed/", ping),
]
wsgi = asok_trace.setup(WSGIHandler()).app
asgi = asok_trace.instrument(ASGIHandler()).app
"""

SERVERS = {
    "gunicorn": gunicorn("shop:wsgi", "--threads", str(TOGETHER)),
    "uvicorn": uvicorn("shop:asgi"),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """The tests run once for each."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[Served]:
    """The site, serving."""
    with served(tmp_path_factory.mktemp("site"), PROGRAM, *SERVERS[server]) as running:
        yield running


def about(site: Served, request_id: str) -> list[Document]:
    """All lines of a request whose response has been read, up to its canonical one."""
    for _ in range(1000):
        found = [line for line in site.lines if line.get("request_id") == request_id]
        if any(line.get("event") == "request" for line in found):
            return found
        site.get("/ping")  # the line is written after the last byte: give it its turn
    raise AssertionError(site.output)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_requests_at_the_same_time(site: Served, kind: str) -> None:
    """Requests that are all inside their view at once keep their ids apart, whichever thread
    Django runs the view in."""
    answers = site.together([f"/{kind}/{n}" for n in range(TOGETHER)])
    ids = {path: answer.ids[0] for path, answer in answers.items()}
    assert len(set(ids.values())) == TOGETHER
    for path, request_id in ids.items():
        lines = about(site, request_id)
        assert {line["path"] for line in lines} == {path}
        assert {line["ip"] for line in lines} == {"127.0.0.1"}
        [inside] = [line for line in lines if line.get("event") == "inside"]
        assert f"/{kind}/{inside['n']}" == path
        assert ("shop" in {line.get("name") for line in lines}) == (kind == "async")


@pytest.mark.parametrize(("path", "status"), [("/ping", 200), ("/nowhere", 404), ("/slashed", 301)])
def test_each_answer_has_its_status(site: Served, path: str, status: int) -> None:
    """The header, and a canonical line with the status and the ids of the server span."""
    answer = site.get(path)
    assert answer.status == status
    lines = about(site, answer.ids[0])
    [line] = [one for one in lines if one.get("event") == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", path, status)
    assert line["trace_id"] == answer.ids[0]
    assert len(line["span_id"]) == 16


def test_an_error_page(site: Served) -> None:
    """Django makes a page of an exception: the status is on the canonical line, and Django's own
    report of it carries the id."""
    answer = site.get("/boom")
    assert (answer.status, len(answer.ids)) == (500, 1)
    lines = about(site, answer.ids[0])
    [line] = [one for one in lines if one.get("event") == "request"]
    assert (line["status"], line["level"]) == (500, "error")
    [report] = [one for one in lines if one.get("name") == "django.request"]
    assert "LookupError: boom" in report["exc_info"]


@pytest.mark.parametrize("path", ["/stream", "/stream_async"])
def test_streams(site: Served, path: str) -> None:
    """Every part of a streamed body is produced inside the request, also where Django has to
    collect an iterator of the other kind."""
    answer = site.get(path)
    assert answer.body == b"abc"
    lines = about(site, answer.ids[0])
    assert [line["part"] for line in lines if "part" in line] == ["a", "b", "c"]
    assert lines[-1].get("event") == "request" or "access" in lines[-1]["name"]


def test_a_file(site: Served) -> None:
    """A file arrives whole, by the server's own file wrapper where there is one."""
    answer = site.get("/file")
    assert answer.body == PROGRAM.encode()
    assert about(site, answer.ids[0])


def test_the_access_line(site: Served, server: str) -> None:
    """The server's own line about the request carries its id."""
    answer = site.get("/ping")
    about(site, answer.ids[0])
    site.get("/ping")  # it is written after ours
    lines = about(site, answer.ids[0])
    assert any(line.get("name") == f"{server}.access" for line in lines)

"""`asok-trace doctor` on applications of other frameworks, and of none. needs: fastapi"""

from pathlib import Path

from tests.tools.doctored import doctor

PLAIN = """
import threading
import structlog

asked = []

def work():
    structlog.get_logger().info("working")

def app(environ, start_response):
    assert environ["REQUEST_METHOD"] == "GET" and "HTTP_COOKIE" not in environ
    if environ["PATH_INFO"] == "/lose":
        threading.Thread(target=work).start()
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield environ["QUERY_STRING"].encode()
"""

FASTAPI = """
import asyncio
from contextlib import asynccontextmanager
import structlog
from fastapi import APIRouter, FastAPI, Request

log = structlog.get_logger()

@asynccontextmanager
async def lifespan(app):
    yield {"ready": True}

app = FastAPI(lifespan=lifespan, openapi_url=None)
router = APIRouter(prefix="/v1")
tasks = set()

@app.get("/")
async def home(request: Request):
    log.info("at home")
    return request.state.ready

@router.get("/items/{item_id}")
def item(item_id: int):
    return item_id

@router.post("/items")
def make():
    return 1

async def mail():
    await asyncio.sleep(0.05)
    log.info("mailing")

@app.get("/order")
async def order():
    task = asyncio.create_task(mail())
    tasks.add(task)
    task.add_done_callback(tasks.discard)

app.include_router(router)
"""


def test_a_wsgi_callable(tmp_path: Path) -> None:
    """/ is requested, and what --path says; nothing else can be known."""
    (tmp_path / "plain.py").write_text(PLAIN, encoding="utf-8")
    done = doctor(tmp_path, "plain:app")
    assert (done.status, done.answers) == (0, {"/": 200})
    assert "--path" in done.document["notes"][0]
    done = doctor(tmp_path, "plain:app", "--path", "/lose?why=bug")
    assert (done.status, done.keys) == (1, ["lost:plain.work"])
    assert done.answers == {"/": 200, "/lose?why=bug": 200}


def test_fastapi(tmp_path: Path) -> None:
    """The routes of it and of its routers are requested, in its lifespan."""
    (tmp_path / "api.py").write_text(FASTAPI, encoding="utf-8")
    done = doctor(tmp_path, "api:app", "--example", "item_id=7")
    assert done.status == 1, done.err
    assert done.answers == {"/": 200, "/order": 200, "/v1/items/7": 200}
    assert done.keys == ["late:api.mail"]


def test_what_is_no_application(tmp_path: Path) -> None:
    """It is refused, with what would be one."""
    (tmp_path / "plain.py").write_text(PLAIN, encoding="utf-8")
    done = doctor(tmp_path, "plain:asked")
    assert (done.status, done.out) == (2, "")
    assert "plain:asked: [] cannot be instrumented: it is no application" in done.err

"""`asok-trace doctor` on real Flask and Quart projects: what it asks for, and what it finds.

needs: flask, quart
"""

from pathlib import Path

import pytest

from tests.tools.doctored import doctor

# What is recorded is written when the process ends: who asked, how, and with what.
FLASK = """
import atexit, json, pathlib, threading
import structlog
from flask import Flask, abort, redirect, request

log = structlog.get_logger()
app = Flask(__name__)
seen = []
atexit.register(lambda: pathlib.Path("seen.json").write_text(json.dumps(seen)))
print("imported")

@app.before_request
def note():
    seen.append([request.method, request.full_path, "Cookie" in request.headers])

@app.get("/")
def home():
    log.info("at home")
    print("printed by a view", flush=True)
    response = app.make_response("home")
    response.set_cookie("visited", "yes")
    return response
"""

BUGS = """
kept = []
done = threading.Event()

def charge():
    log.info("charging")

@app.get("/cart")
def cart():
    charging = threading.Thread(target=charge)
    charging.start()
    charging.join()
    return "cart"

@app.get("/keep")
def keep():
    kept.append(request._get_current_object())
    return "kept"

@app.get("/bind")
def bind():
    structlog.contextvars.bind_contextvars(cart=7)
    return "bound"
"""

ROUTES = """
@app.get("/user/<int:user_id>/<name>")
def user(user_id, name):
    return f"{user_id + 1} {name}"

@app.post("/order")
def order():
    return "ordered"

@app.route("/both", methods=["GET", "POST", "DELETE"])
def both():
    return "both"

@app.get("/old")
def old():
    return redirect("http://elsewhere.example/")

@app.get("/admin/users")
def admin():
    return "admin"

@app.get("/gone")
def gone():
    abort(410)

@app.get("/boom")
def boom():
    raise LookupError("boom")

@app.get("/search")
def search():
    return request.args["q"]
"""


def project(folder: Path, *parts: str) -> Path:
    (folder / "shop.py").write_text("".join(parts), encoding="utf-8")
    return folder


def seen(folder: Path) -> list[list[object]]:
    import json

    found: list[list[object]] = json.loads((folder / "seen.json").read_text(encoding="utf-8"))
    return found


def test_a_clean_application(tmp_path: Path) -> None:
    """Nothing is found, the status is 0, and what the application prints is not in the way."""
    done = doctor(project(tmp_path, FLASK), "shop:app")
    assert done.status == 0, done.err
    assert done.document["ok"] is True
    assert done.answers == {"/": 200}
    assert done.keys == []
    assert "imported" in done.err
    assert "printed by a view" in done.err


def test_seeded_bugs(tmp_path: Path) -> None:
    """A thread that logs without its request, a request in a global, structlog's variables left
    bound: each is found, once, at its place."""
    done = doctor(project(tmp_path, FLASK, BUGS), "shop:app", "--grace", "0.5")
    assert done.status == 1, done.err
    assert done.document["ok"] is False
    slugs = sorted(found["slug"] for found in done.document["findings"])
    assert slugs == ["bleed", "lost", "retained"]
    [lost] = [found for found in done.document["findings"] if found["slug"] == "lost"]
    assert lost["key"] == "lost:shop.charge"
    assert lost["path"] == "GET /cart"
    assert "asok_trace.wrap(charge)" in lost["fix"]
    source = (tmp_path / "shop.py").read_text(encoding="utf-8").splitlines()
    number = source.index("    charging.start()") + 1
    assert lost["origin"] == f"started at shop.py:{number} cart"


def test_what_is_requested(tmp_path: Path) -> None:
    """All routes for GET without parameters, and nothing but GET; no cookie is sent, no redirect
    followed; errors are shown, and are no findings."""
    done = doctor(project(tmp_path, FLASK, ROUTES), "shop:app", "--path", "/search?q=shoes")
    assert done.status == 0, done.err
    assert done.answers == {
        "/": 200,
        "/both": 200,
        "/old": 302,
        "/admin/users": 200,
        "/gone": 410,
        "/boom": 500,
        "/search": 400,
        "/search?q=shoes": 200,
    }
    assert {asked["method"] for asked in done.document["requested"]} == {"GET"}
    assert [one[0] for one in seen(tmp_path)] == ["GET"] * 8
    assert not any(cookie for _, _, cookie in seen(tmp_path))
    assert done.skipped == {
        "/static/<path:filename>": "static files",
        "/user/<int:user_id>/<name>": "--example user_id=... --example name=...",
    }


def test_examples(tmp_path: Path) -> None:
    """A route is requested once there is an example for each of its parameters."""
    folder = project(tmp_path, FLASK, ROUTES)
    done = doctor(folder, "shop:app", "--example", "user_id=7", "--example", "name=Zoë B/x")
    assert done.skipped["/user/<int:user_id>/<name>"].startswith("its example does not fit")
    done = doctor(folder, "shop:app", "--example", "user_id=7", "--example", "name=Zoë B")
    assert done.answers["/user/7/Zo%C3%AB%20B"] == 200
    done = doctor(folder, "shop:app", "--example", "user_id=x", "--example", "name=y")
    assert "user_id='x'" in done.skipped["/user/<int:user_id>/<name>"]
    done = doctor(folder, "shop:app", "--example", "usr=7")
    assert done.document["notes"] == ["--example usr=7 fits no route: none has a parameter usr."]


def test_exclude(tmp_path: Path) -> None:
    """What matches --exclude is not requested: by its path, or by its pattern."""
    done = doctor(
        project(tmp_path, FLASK, ROUTES),
        *("shop:app", "--example", "user_id=7", "--example", "name=y"),
        *("--exclude", "/admin/*", "--exclude", "/user/7/*", "--exclude", "/b*"),
    )
    assert set(done.answers) == {"/", "/old", "/gone", "/search"}
    assert done.skipped["/admin/users"] == "--exclude /admin/*"
    assert done.skipped["/user/<int:user_id>/<name>"] == "--exclude /user/7/*"
    assert not any("admin" in str(path) for _, path, _ in seen(tmp_path))


HANGS = """
import time

@app.get("/hang")
def hang():
    time.sleep(30)

@app.get("/events")
def events():
    def parts():
        try:
            while True:
                time.sleep(0.01)
                yield "x"
        finally:
            pathlib.Path("closed").touch()
    return parts()

@app.get("/quit")
def quit():
    raise SystemExit(3)

@app.get("/last")
def last():
    return "last"
"""


def test_what_does_not_end(tmp_path: Path) -> None:
    """A view that hangs, and a body without an end, are given up after the time-out, the body
    closed; the others are asked, and the command ends."""
    done = doctor(project(tmp_path, FLASK, HANGS), "shop:app", "--timeout", "0.3")
    assert done.status == 0, done.err
    assert done.answers == {"/": 200, "/hang": None, "/events": None, "/quit": None, "/last": 200}
    errors = {asked["path"]: asked["error"] for asked in done.document["requested"]}
    assert errors["/hang"] == "no answer within 0.3 s"
    assert errors["/events"] == "no end of the body within 0.3 s"
    assert errors["/quit"] == "SystemExit: 3"
    assert (tmp_path / "closed").exists()


def test_an_application_that_is_set_up(tmp_path: Path) -> None:
    """An application that carries its threads loses nothing here either; it is looked at at
    strict, and nothing is exported."""
    calls = """
import asok_trace
asok_trace.setup()
asok_trace.instrument(app)
"""
    done = doctor(
        project(tmp_path, FLASK, BUGS, calls),
        *("shop:app", "--exclude", "/keep"),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    assert [found["slug"] for found in done.document["findings"]] == ["bleed"]
    assert done.document["notes"] == []


def test_a_level_of_its_own(tmp_path: Path) -> None:
    """An application that says a level is left at it, and the report says so."""
    calls = '\nimport asok_trace\nasok_trace.instrument(app, level="basic")\n'
    done = doctor(project(tmp_path, FLASK, BUGS, calls), "shop:app")
    assert [found["slug"] for found in done.document["findings"]] == ["lost"]
    [note] = done.document["notes"]
    assert 'level="basic"' in note


OUTSIDE = """
def tick():
    log.info("ticking")
    done.set()

def clock():
    asked.wait()
    tick()

done, asked = threading.Event(), threading.Event()
threading.Thread(target=clock, daemon=True).start()

@app.get("/tick")
def ask():
    asked.set()
    done.wait()
    return "ticked"
"""


def test_outside_any_request(tmp_path: Path) -> None:
    """What runs with no request behind it is shown, and counts only with --outside."""
    folder = project(tmp_path, FLASK, OUTSIDE)
    done = doctor(folder, "shop:app")
    assert (done.status, done.keys) == (0, ["outside:shop.tick"])
    assert doctor(folder, "shop:app", "--outside").status == 1


FACTORY = FLASK.replace("app = Flask", "made = Flask").replace("@app.", "@made.")
FACTORY = FACTORY.replace("app.make", "made.make") + "\ndef create_app():\n    return made\n"


def test_a_factory(tmp_path: Path) -> None:
    """--factory calls it; without, the message names the option."""
    folder = project(tmp_path, FACTORY)
    assert doctor(folder, "shop:create_app", "--factory").answers == {"/": 200}
    done = doctor(folder, "shop:create_app")
    assert (done.status, done.out) == (2, "")
    assert "--factory" in done.err


QUART = """
import asyncio, threading
import structlog
from quart import Quart, request

log = structlog.get_logger()
app = Quart(__name__)
started = []

@app.before_serving
async def start():
    started.append(True)

@app.get("/")
async def home():
    assert started
    log.info("at home")
    return "home"

@app.get("/sync")
def sync():
    return "in a thread"

@app.get("/user/<int:user_id>")
async def user(user_id):
    return str(user_id)
"""

QUART_BUGS = """
tasks = set()

async def mail():
    await asyncio.sleep(0.05)
    log.info("mailing")

@app.get("/order")
async def order():
    task = asyncio.create_task(mail())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return "ordered"

def shrink():
    log.info("shrinking")

@app.get("/upload")
async def upload():
    await asyncio.get_running_loop().run_in_executor(None, shrink)
    return "uploaded"
"""


def test_quart(tmp_path: Path) -> None:
    """A Quart application is started first; a clean one is clean."""
    done = doctor(project(tmp_path, QUART), "shop:app", "--example", "user_id=7")
    assert done.status == 0, done.err
    assert done.answers == {"/": 200, "/sync": 200, "/user/7": 200}
    assert done.keys == []


def test_quart_with_bugs(tmp_path: Path) -> None:
    """A task nobody waits for, and a job of a pool: late, and lost."""
    done = doctor(project(tmp_path, QUART, QUART_BUGS), "shop:app")
    assert done.status == 1
    assert done.keys == ["late:shop.mail", "lost:shop.shrink"]


QUART_HANGS = """
import time
@app.get("/a/waits")
async def waits():
    await asyncio.sleep(60)

@app.get("/b/blocks")
async def blocks():
    time.sleep(60)

@app.get("/c/last")
async def last():
    return "last"
"""


def test_quart_hangs(tmp_path: Path) -> None:
    """A view that waits is given up; one that blocks the loop leaves nothing to be asked after
    it, and the report says so."""
    done = doctor(project(tmp_path, QUART, QUART_HANGS), "shop:app", "--timeout", "0.5")
    assert done.answers["/a/waits"] is None
    assert done.answers["/b/blocks"] is None
    assert "/c/last" not in done.answers
    assert done.skipped["/c/last"] == "GET /b/blocks still blocks the event loop"


def test_quart_that_cannot_start(tmp_path: Path) -> None:
    """A startup that fails is said, with its reason."""
    fails = '\n@app.before_serving\nasync def fail():\n    raise LookupError("no database")\n'
    done = doctor(project(tmp_path, QUART, fails), "shop:app")
    assert (done.status, done.out) == (2, "")
    assert "shop:app cannot be started" in done.err
    assert "no database" in done.err


@pytest.mark.parametrize("grace", ["0", "0.3"])
def test_the_grace_is_an_upper_limit(tmp_path: Path, grace: str) -> None:
    """Work without an end does not hold up the command."""
    endless = """
@app.get("/start")
def start():
    threading.Thread(target=threading.Event().wait).start()
    return "started"
"""
    done = doctor(project(tmp_path, FLASK, endless), "shop:app", "--grace", grace)
    assert (done.status, done.answers["/start"]) == (0, 200)

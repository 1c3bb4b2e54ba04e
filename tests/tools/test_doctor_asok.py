"""`asok-trace doctor` on a real Asok project. needs: asok"""

from pathlib import Path

from tests.tools.doctored import doctor

WSGI = """
import structlog
from asok import Asok

structlog.configure(processors=[structlog.processors.JSONRenderer()])
print("imported")
app = Asok()
app.kept = []
"""

PAGES = {
    "": """
import structlog

def get(request):
    structlog.get_logger().info("at home")
    return f"home {request.ip}"
""",
    "stream": """
def get(request):
    return (part for part in ("a", "b"))
""",
    "shop/[id:int]": """
def get(request):
    return str(request.params["id"] + 1)
""",
    "user/[name]/orders": """
def get(request):
    return request.params["name"]
""",
    "admin-tools": """
def get(request):
    return "tools"
""",
    "form": """
def post(request):
    return "posted"
""",
    "gone": """
def get(request):
    request.abort(404)
""",
}

BUGS = {
    "cart": """
import threading
import structlog

def charge():
    structlog.get_logger().info("charging")

def get(request):
    threading.Thread(target=charge).start()
    return "cart"
""",
    "keep": """
def get(request):
    request.environ["asok.app"].kept.append(request)
    return "kept"
""",
}


def project(folder: Path, pages: dict[str, str], wsgi: str = WSGI) -> Path:
    for path, source in pages.items():
        page = folder / "src" / "pages" / path / "page.py"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(source, encoding="utf-8")
    (folder / "wsgi.py").write_text(wsgi, encoding="utf-8")
    return folder


def test_a_clean_project(tmp_path: Path) -> None:
    """Its pages are those that `asok routes` lists; those in folders with brackets need examples;
    nothing is found."""
    done = doctor(project(tmp_path, PAGES), "wsgi:app", "--example", "id=7", "--exclude", "/admin*")
    assert done.status == 0, done.err
    statuses = done.answers
    assert statuses.pop("/form") in (404, 405)  # it has no GET, which only asking tells
    assert statuses == {"/": 200, "/stream": 200, "/shop/7": 200, "/gone": 404}
    assert done.skipped == {
        "/user/[name]/orders": "--example name=...",
        "/admin-tools": "--exclude /admin*",
    }
    assert done.keys == []
    assert "imported" in done.err


def test_examples(tmp_path: Path) -> None:
    """An example reaches the page as it was given, whatever characters are in it."""
    done = doctor(project(tmp_path, PAGES), "wsgi:app", "--example", "name=Zoë B")
    assert done.answers["/user/Zo%C3%AB%20B/orders"] == 200


def test_seeded_bugs(tmp_path: Path) -> None:
    """A thread that logs without its request, and a request that is kept on the application."""
    done = doctor(project(tmp_path, PAGES | BUGS), "wsgi:app", "--grace", "0.5")
    assert done.status == 1, done.err
    found = {one["slug"]: one for one in done.document["findings"]}
    assert sorted(found) == ["lost", "retained"]
    assert found["lost"]["path"] == "GET /cart"
    assert found["retained"]["path"] == "GET /keep"


def test_an_application_of_its_own_settings(tmp_path: Path) -> None:
    """An application that instruments itself is looked at at strict all the same."""
    calls = "\nimport asok_trace\nasok_trace.instrument(app, access_log=False)\n"
    done = doctor(project(tmp_path, PAGES | BUGS, WSGI + calls), "wsgi:app", "--grace", "0.5")
    assert sorted(one["slug"] for one in done.document["findings"]) == ["lost", "retained"]
    assert done.document["notes"] == []


def test_a_websocket_server_has_no_pages(tmp_path: Path) -> None:
    """It is said, not tried."""
    calls = "\nfrom asok.ws import WebSocketServer\nserver = WebSocketServer(app)\n"
    done = doctor(project(tmp_path, PAGES, WSGI + calls), "wsgi:server")
    assert (done.status, done.out) == (2, "")
    assert "has no pages: it is a WebSocketServer" in done.err

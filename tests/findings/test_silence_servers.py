"""Behind real servers, and on command lines, at the level ``strict``: what is right is silent; and
a thread that belongs to no request is found there all the same.

needs: asok, flask, flask_login, quart, quart_auth, gunicorn, hypercorn, uvicorn, waitress,
    websockets
"""

import dataclasses
import json
import os
import re
import socket
import struct
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.contract.lines import canonical, of_logger
from tests.contract.servers import FRAMEWORKS, SERVERS, Framework, Server
from tests.contract.site import SECRET_KEY, Site
from tests.findings.stage import SECONDS
from tests.serving import environment

GRACE = 0.1
STRICT = {
    "ASOK_TRACE_LEVEL": "strict",
    "ASOK_TRACE_THREADS": "watch",
    "ASOK_TRACE_GRACE": str(GRACE),
    "OTEL_PYTHON_CONTEXT": "asok_trace_strict",
}
SERVED = {
    "asok": ("gunicorn-gthread", "waitress", "uvicorn", "hypercorn-asgi"),
    "flask": ("gunicorn-sync", "gunicorn-gevent", "waitress", "hypercorn-wsgi"),
    "quart": ("uvicorn", "hypercorn-asgi"),
}
_FINDING = re.compile(
    r"^(startup|outside|lost|late|bleed|foreign|unclosed|retained): ", re.MULTILINE
)

# Next to each application: what its further pages do.
_PAGES = f"""
import gc, json, time
import asok_trace
from contract_logs import say
from asok_trace.detect import retained

SLOW = 4 * {GRACE}

def found():
    until = time.monotonic() + SLOW
    while retained.pending() and time.monotonic() < until:
        gc.collect()  # until each that has ended is gone, or should be: uvicorn's timer has one
        time.sleep(0.01)
    return json.dumps([[found.slug, str(found)] for found in asok_trace.findings()])

def pieces():
    for number in range(200):
        if number % 50 == 0:
            say("piece")
        yield "x" * 65536
"""
_ASOK = {
    "found": "from pages import found\ndef get(request):\n    return found()\n",
    "slow": "from pages import SLOW, say, time\n"
    "def get(request):\n    time.sleep(SLOW)\n    say('slow')\n    return 'slow'\n",
    "endless": "from pages import pieces\ndef get(request):\n    return pieces()\n",
}
_FLASK = """
import pages
@app.get("/found")
def found():
    return pages.found()
@app.get("/slow")
def slow():
    pages.time.sleep(pages.SLOW)
    pages.say("slow")
    return "slow"
@app.get("/endless")
def endless():
    return pages.pieces()
"""
_QUART = """
import asyncio, pages, quart
@app.get("/found")
async def found():
    return await asyncio.to_thread(pages.found)
@app.get("/slow")
async def slow():
    await asyncio.sleep(pages.SLOW)
    pages.say("slow")
    return "slow"
@app.get("/endless")
async def endless():
    async def pieces():
        for piece in pages.pieces():
            yield piece
    return quart.Response(pieces())
@app.websocket("/chat")
async def chat():
    pages.say("connected")
    while True:
        text = await quart.websocket.receive()
        pages.say("heard")
        await quart.websocket.send(text)
"""


class _Strict(Site):
    """A site at the level ``strict``, with more pages."""

    def _launch(self) -> None:
        (self.root / "pages.py").write_text(_PAGES, encoding="utf-8")
        if self.framework.name == "asok":
            for name, source in _ASOK.items():
                folder = self.root / "src" / "pages" / name
                folder.mkdir()
                (folder / "page.py").write_text(source, encoding="utf-8")
        else:
            module = self.root / f"{self.framework.module}.py"
            more = _FLASK if self.framework.name == "flask" else _QUART
            module.write_text(module.read_text("utf-8") + more, "utf-8")
        super()._launch()

    def found(self) -> list[list[str]]:
        """What was found so far, slug and text, by the server's own account."""
        found: list[list[str]] = json.loads(self.exchange("GET", "/found").reply.body)
        return found

    def told(self) -> list[str]:
        """What was logged of it."""
        told = [str(line["message"]) for line in of_logger(self.log.since(0), "asok_trace")]
        return told + _FINDING.findall(self.output.read_text("utf-8", "replace"))

    def abandon(self, path: str, *, after: int) -> None:
        """Ask for ``path``, reset the connection after so many bytes, and wait for the end."""
        mark = self.log.mark()
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            if after:
                assert connection.recv(after)
            else:  # not before the server has read it
                time.sleep(GRACE)
        self.log.until(mark, lambda lines: any(line["path"] == path for line in canonical(lines)))


@pytest.fixture(
    params=[
        (framework, server)
        for framework in FRAMEWORKS
        for server in SERVERS
        if server.name in SERVED[framework.name]
    ],
    ids=lambda pair: f"{pair[0].name}-{pair[1].name}",
)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Strict]:
    framework, server = request.param
    made = _made(framework, server, tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _made(framework: Framework, server: Server, root: Path) -> _Strict:
    strict = {**server.environment, **STRICT}
    return _Strict(framework, dataclasses.replace(server, environment=strict), root)


def test_a_server_at_strict(site: _Strict) -> None:
    """Every kind of response, with the server's own lines about it; errors that reach the server;
    clients that go away in the middle of a stream, and before the answer; one that waits for longer
    than the grace time; WebSockets: nothing is found, nor logged. Then a thread of nobody's is."""
    kinds = (*site.framework.kinds, *site.framework.escapes)
    assert {"health", "not found", "head"} <= {kind.name for kind in kinds}
    for kind in kinds:
        site.browser().request(*kind.asked, **kind.request)
    assert site.exchange("GET", "/slow").reply.body.endswith(b"slow")
    site.abandon("/endless", after=1)
    site.abandon("/slow", after=0)
    if site.framework.name == "quart":
        for _ in range(2):
            with connect(f"ws://127.0.0.1:{site.port}/chat", proxy=None) as connection:
                connection.send("hello")
                assert connection.recv(SECONDS) == "hello"
    found = site.found()
    assert not found, "\n\n".join(text for _, text in found)
    assert not site.told()

    site.exchange("GET", "/tick")
    until = time.monotonic() + SECONDS
    while len(site.found()) < 2:  # it says it twice
        assert time.monotonic() < until
    for slug, text in site.found():
        assert slug == "outside", text
        assert re.search(r"contract_logs\.py:\d+ say\n", text)
    assert {text.partition(":")[0] for text in site.told()} == {"outside"}


_SHOP = """
import logging, threading
logging.basicConfig(level=logging.DEBUG, format="%(name)s|%(message)s")
import structlog, asok_trace
from {framework} import {cls} as Application
app = Application({name})
asok_trace.setup(app)
def say():
    structlog.get_logger().info("starting")
    logging.getLogger("shop").info("starting")
say()
thread = threading.Thread(target=say)
thread.start()
thread.join()
"""
_TIDY = """
@app.cli.command("tidy")
def tidy():
    say()
    thread = threading.Thread(target=say)
    thread.start()
    thread.join()
"""
COMMANDS = {
    "asok": ("Asok", "", [("asok", "routes")]),
    "flask": ("Flask", "__name__", [("flask", "--app", "wsgi", "routes"), ("flask", "tidy")]),
    "quart": ("Quart", "__name__", [("quart", "--app", "wsgi", "routes"), ("quart", "tidy")]),
}


@pytest.mark.parametrize(
    ("framework", "command"),
    [(framework, command) for framework in COMMANDS for command in COMMANDS[framework][2]],
    ids=lambda given: given if isinstance(given, str) else given[-1],
)
def test_a_command_line(framework: str, command: tuple[str, ...], tmp_path: Path) -> None:
    """It is no server, and serves no request: whatever it logs, nothing is said of it."""
    cls, name, _ = COMMANDS[framework]
    source = _SHOP.format(framework=framework, cls=cls, name=name)
    (tmp_path / "wsgi.py").write_text(source + (_TIDY if name else ""), "utf-8")
    (tmp_path / "app.py").write_text("from wsgi import app\n", "utf-8")
    page = tmp_path / "src" / "pages" / "cart" / "page.py"
    page.parent.mkdir(parents=True)
    page.write_text("def get(request):\n    return 'cart'\n", "utf-8")
    program, *arguments = command
    ran = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / program, *arguments],
        cwd=tmp_path,
        env=environment(**STRICT, SECRET_KEY=SECRET_KEY, HOME=os.environ["HOME"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS * 3,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert "shop|starting" in ran.stdout
    assert ("/cart" if framework == "asok" else "/static") in ran.stdout or "tidy" in command
    assert "asok_trace" not in ran.stdout
    assert not _FINDING.search(ran.stdout)

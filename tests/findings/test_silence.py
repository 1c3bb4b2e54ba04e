"""Deliberate work is silent, at every level; and a bug among it is not lost.

needs: asok, flask, flask_login, quart, quart_auth, gunicorn, hypercorn, websockets
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

import asok_trace
from asok_trace.core import findings
from tests.contract.servers import FRAMEWORKS, SERVERS, Framework
from tests.contract.site import Site
from tests.examples.demos import EXAMPLES
from tests.findings.stage import SECONDS, Stage, logged, silent, work

log = structlog.get_logger()

# What an application of the examples or the contract runs at its end: what was found, into a file.
TELL = """
import atexit as _atexit, json as _json, os as _os
import asok_trace as _trace
from asok_trace.core import findings as _found
_served, _serve = [False], _found.serve
def _noting():
    _served[0] = True
    _serve()
_found.serve = _noting
def _tell():
    with open(_os.path.abspath(_FILE), "a") as file:
        for found in _trace.findings():
            file.write(_json.dumps([found.slug, str(found)]) + "\\n")
        file.write(_json.dumps(["served", str(_served[0])]) + "\\n")
_atexit.register(_tell)
"""


@pytest.mark.parametrize("mode", ["watch", "carry"])
def test_wrapped_to_outlive(tmp_path: Path, level: str, mode: str) -> None:
    """What was wrapped so goes on after the response."""
    goes_on, pool = threading.Event(), ThreadPoolExecutor(1)
    with logged():
        stage = Stage("flask", tmp_path, level=level, threads=mode, grace=0.0)

        def index():
            stage.wait(goes_on)
            log.info("indexed")

        @stage.view
        def page():
            pool.submit(asok_trace.wrap(index, outlive=True))
            return "page"

        stage.get("/page")
        goes_on.set()
        pool.shutdown()
        silent()
        stage.handle.undo()


def test_detached(flask_stage: Stage) -> None:
    """A detached housekeeper says nothing of its own, or does so in a scope."""
    goes_on, done = threading.Event(), threading.Event()

    def housekeep():
        flask_stage.wait(goes_on)
        with asok_trace.scope("clean"):
            work(done)

    @flask_stage.view
    def page():
        threading.Thread(target=asok_trace.detach(housekeep)).start()
        return "page"

    flask_stage.get("/page")
    goes_on.set()
    flask_stage.wait(done)
    silent()


def test_asoks_background(asok_stage: Stage) -> None:
    """A background job runs on after the response."""
    from asok.background import background

    goes_on, done, jobs = threading.Event(), threading.Event(), []

    def mail():
        asok_stage.wait(goes_on)
        work(done)

    @asok_stage.view
    def page(request):
        jobs.append(background(mail))
        return "page"

    asok_stage.get("/page")
    silent()
    goes_on.set()
    jobs.pop().result(SECONDS)
    silent()


@pytest.mark.parametrize("by", ["schedule", "app.schedule"])
def test_asoks_schedule(asok_stage: Stage, by: str) -> None:
    """A scheduled function is a unit of work of its own, though a request has scheduled it."""
    from asok.scheduler import schedule

    scheduled = schedule if by == "schedule" else asok_stage.app.schedule
    done, tasks = threading.Event(), []

    @asok_stage.view
    def page(request):
        tasks.append(scheduled(0.01, lambda: work(done)))
        return "page"

    asok_stage.get("/page")
    asok_stage.wait(done)
    tasks[0].cancel()
    tasks[0]._thread.join(SECONDS)
    silent()


def test_a_decorated_schedule(asok_stage: Stage) -> None:
    """The decorator ``app.schedule(...)``, before anything was served; its lines come after."""
    served, done = threading.Event(), threading.Event()

    @asok_stage.app.schedule(0.01)
    def tidy():
        asok_stage.wait(served)
        work(done)

    asok_stage.get("/page")
    served.set()
    asok_stage.wait(done)
    tidy.cancel()
    tidy._thread.join(SECONDS)
    silent()


def test_quarts_background_task(tmp_path: Path, level: str) -> None:
    """What Quart was given to run in the background is no task that was forgotten."""

    async def play(stage: Stage) -> None:
        goes_on = asyncio.Event()

        async def index():
            await goes_on.wait()
            log.info("indexed")

        @stage.view
        async def page():
            stage.app.add_background_task(index)
            return "page"

        await stage.ask("/page")
        silent()
        goes_on.set()
        await asyncio.gather(*stage.app.background_tasks)
        silent()

    with logged():
        stage = Stage("quart", tmp_path, level=level, threads="watch", grace=0.0)
        try:
            asyncio.run(play(stage))
        finally:
            stage.handle.undo()


def test_commands_and_startup(flask_stage: Stage) -> None:
    """What is logged before the first request, and by a command of Flask's, is not reported."""

    @flask_stage.app.cli.command("tidy")
    def tidy():
        log.info("tidied")

    log.info("starting")
    runner = flask_stage.app.test_cli_runner()
    assert runner.invoke(args=["tidy"]).exit_code == 0
    silent()
    assert findings.beyond["startup"] == 2  # the line above, and the command's


@pytest.mark.parametrize("seeded", [False, True], ids=["as it is", "seeded"])
@pytest.mark.parametrize("framework", FRAMEWORKS, ids=[one.name for one in FRAMEWORKS])
def test_every_kind_of_response(
    framework: Framework, seeded: bool, tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's test client asks for every kind of response: nothing is found; but for the
    one bug, where there is one."""
    [client] = [s for s in SERVERS if s.name == framework.servers[0]]
    assert client.in_process
    file = tmp_path / "found.jsonl"
    site = _Seeded(
        framework,
        dataclasses.replace(
            client, environment={"ASOK_TRACE_LEVEL": level, "ASOK_TRACE_GRACE": "0"}
        ),
        tmp_path,
    )
    site.ending = TELL.replace("_FILE", repr(str(file)))
    site.seeded = seeded
    try:
        site.start()
        for kind in (*framework.kinds, *(framework.escapes if framework.name == "asok" else ())):
            site.exchange(*kind.asked, **kind.request)
        if framework.name != "asok":
            for kind in framework.escapes:
                site.browser().request(*kind.asked, **kind.request)
        if seeded:
            site.exchange("GET", "/thread")
        assert site._process is not None
        assert site._process.stdin is not None
        site._process.stdin.close()
        site._process.wait(SECONDS)
    finally:
        with contextlib.suppress(ValueError):
            site.stop()
    expect(file, "outside" if seeded else None, r"contract_logs\.py:\d+ say")


class _Seeded(Site):
    """A site that tells what was found at its end; with a bug, if it is seeded: its thread is not
    given a copy of the context."""

    ending = ""
    seeded = False

    def _launch(self) -> None:
        module = self.root / f"{self.framework.module}.py"
        module.write_text(module.read_text("utf-8") + self.ending, "utf-8")
        if self.seeded:
            spoil(
                self.root / "src/pages/thread/page.py"
                if self.framework.name == "asok"
                else self.root / "contract_site.py",
                "contextvars.copy_context()",
                "contextvars.Context()",
            )
        super()._launch()


def spoil(path: Path, part: str, instead: str) -> None:
    """Replace ``part`` of a file."""
    source = path.read_text("utf-8")
    assert part in source
    path.write_text(source.replace(part, instead), "utf-8")


def expect(file: Path, slug: str | None, place: str = "") -> None:
    """Nothing was found but ``slug``, and that in the function at ``place`` alone."""
    found = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert ["served", "True"] in found
    told = [text for kind, text in found if kind not in ("served", slug)]
    assert not told, "\n\n".join(told)
    if slug is not None:
        assert {kind for kind, _ in found} == {"served", slug}
        for text in [text for kind, text in found if kind == slug]:
            assert re.search(rf"\n  at +{place}\n", text), text


EXAMPLE_BUGS: dict[str, tuple[str, str, str, str, str, str]] = {
    # Example: the file that is spoiled, what is replaced, by what, and as what it is found.
    "shop": (
        *("src/pages/checkout/page.py", "background(mail.send_receipt, request.user.id, token)"),
        "__import__('threading').Timer(0.2, __import__('asok_trace').wrap(mail.send_receipt), "
        "(request.user.id, token)).start()",
        *("late", "wsgi.py", r"src/mail\.py:\d+ send_receipt"),
    ),
    "flask_shop": (
        *("app.py", "asok_trace.wrap(send_receipt, outlive=True)", "send_receipt"),
        *("late", "app.py", r"app\.py:\d+ send_receipt"),
    ),
    "quart_chat": (
        *("app.py", "app.add_background_task(index, text)"),
        "asyncio.create_task(index(text))",
        *("late", "app.py", r"app\.py:\d+ index"),
    ),
}


@pytest.mark.parametrize("seeded", [False, True], ids=["as it is", "seeded"])
@pytest.mark.parametrize("example", EXAMPLE_BUGS)
def test_an_example_under_its_load(example: str, seeded: bool, tmp_path: Path, level: str) -> None:
    """The examples, visited by several at once: nothing is found; but for the one bug, where there
    is one."""
    shutil.copytree(EXAMPLES / "checking", tmp_path / "checking")
    copy = shutil.copytree(EXAMPLES / example, tmp_path / example)
    file, part, instead, slug, main, place = EXAMPLE_BUGS[example]
    if seeded:
        spoil(copy / file, part, instead)
    found = tmp_path / "found.jsonl"
    path = copy / main
    path.write_text(path.read_text("utf-8") + TELL.replace("_FILE", repr(str(found))), "utf-8")
    # The demos hand nothing of their environment on.
    spoil(
        tmp_path / "checking" / "serving.py",
        'self._environment |= {"HOME"',
        f'self._environment |= {{"ASOK_TRACE_LEVEL": "{level}", "ASOK_TRACE_GRACE": "1", "HOME"',
    )
    ran = subprocess.run(
        [sys.executable, str(copy / "demo.py")],
        env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    assert found.exists(), ran.stdout[-3000:]
    if not seeded:
        assert ran.returncode == 0, ran.stdout[-3000:]
    expect(found, slug if seeded else None, place)

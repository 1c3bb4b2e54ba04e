"""Asok's other commands are what they were: nothing of ours is loaded but what asok asks for.

needs: asok, redis
"""

import importlib
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from asok_trace.tools import asok_commands
from tests.queues.processes import environment, program

# The entry point's module, and what it stands on.
OURS = {
    *("asok_trace", "asok_trace.tools", "asok_trace.tools.asok_commands"),
    *("asok_trace.core", "asok_trace.core.errors", "asok_trace.core.hooks"),
    "asok_trace.core.names",
}
# The console script, which tells at its end what was loaded.
RUN = """
import atexit, runpy, sys
modules = lambda: [name for name in sys.modules if name.startswith("asok")]
atexit.register(lambda: print(*modules(), file=sys.stderr))
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
WITHOUT_US = "import asok.cli.main as _, sys; main = sys.modules['asok.cli.main']\n"
WITHOUT_US += "main.load_extension_commands = lambda subparsers: None\n" + RUN


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An application without us."""
    page = tmp_path / "src" / "pages" / "page.py"
    page.parent.mkdir(parents=True)
    page.write_text("def get(request):\n    return 'home'\n", encoding="utf-8")
    (tmp_path / "wsgi.py").write_text("from asok import Asok\n\napp = Asok()\n", encoding="utf-8")
    return tmp_path


def ran(
    project: Path, program_text: str, command: Sequence[str], url: str
) -> tuple[int, str, set[str]]:
    """The status and the output of a command, and the modules of asok's and ours it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", program_text, program("asok"), *command],
        cwd=project,
        env=environment(ASOK_QUEUE_BACKEND="redis", ASOK_REDIS_URL=url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "command", [("routes",), ("worker", "status"), ("make", "page", "x"), ("seed",), ("--version",)]
)
def test_a_command_does_what_it_did(
    project: Path, redis_url: str, command: tuple[str, ...]
) -> None:
    """The same output and status as without our entry point, which loads a few small modules."""
    status, output, before = ran(project, WITHOUT_US, command, redis_url)
    (project / "src" / "pages" / "x" / "page.py").unlink(missing_ok=True)
    status_with_us, output_with_us, loaded = ran(project, RUN, command, redis_url)
    assert (status_with_us, output_with_us) == (status, output)
    ours = set() if command == ("--version",) else OURS
    assert loaded - {"asok.cli.worker"} == (before - {"asok.cli.worker"}) | ours


def test_an_asok_without_what_we_hook_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its commands work; what we could not do is said once."""
    worker = importlib.import_module("asok.cli.worker")
    monkeypatch.delattr(worker, "_run_worker_loop")
    for _ in range(2):
        asok_commands.register(None)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("asok_trace", logging.ERROR)
    assert "setting up asok's worker failed" in record.message

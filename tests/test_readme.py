"""The README is true: every code block runs as it stands, and prints what is shown.

needs: asok, flask
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

_BLOCK = re.compile(
    r"(?:^`(?P<file>[^`\n]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_ID = re.compile(r"\b(?:[0-9a-f]{32}|[0-9a-f]{16})\b")
_PORT = "8000"


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    file: str | None


BLOCKS = [Block(m["kind"], m["text"], m["file"]) for m in _BLOCK.finditer(README)]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    """No block slips through because nobody knows what to do with it."""
    assert len(BLOCKS) >= 10
    assert {block.kind for block in BLOCKS} == {"python", "console", "text"}
    assert README.count("```") == 2 * len(BLOCKS)


@dataclass
class Reader:
    """Somebody who does what the README says, in a fresh virtual environment and folder."""

    folder: Path
    server: "subprocess.Popen[str] | None" = None
    printed: str = ""
    """What was printed and not yet compared."""
    ids: dict[str, str] = field(default_factory=dict)
    """An id in the README -> the one that was really made there."""

    def __post_init__(self) -> None:
        environment = self.folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        self.environ = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("ASOK", "SECRET_KEY", "COV_", "PYTEST"))
        } | {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])

    def read(self, block: Block) -> None:
        if block.kind == "text":
            self.compare(block.text)
        elif block.kind == "console":
            self.console(block.text)
        elif block.file is not None:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        else:
            self.printed = self.run(["python", "-W", "error", "-c", block.text])

    def console(self, text: str) -> None:
        for step in text.split("$ ")[1:]:
            command, _, shown = step.partition("\n")
            if command.startswith("make "):
                continue  # the suite itself is one of them; the demo has its own test
            if command.startswith("pip install"):
                command = command.replace("asok-trace[", f"{ROOT}[")
            command = command.replace(_PORT, self.port)
            if command.startswith("gunicorn"):
                self.serve(command)
                continue
            out = self.run(["sh", "-c", command])
            if shown:
                assert self.normal(out) == self.normal(shown, shown=True)

    def run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def serve(self, command: str) -> None:
        self.stop()
        self.server = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", int(self.port))) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"{command} did not start")

    def stop(self) -> None:
        """End the server; what it printed is kept to be compared."""
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.printed, _ = self.server.communicate(timeout=60)
            self.server = None

    def compare(self, shown: str) -> None:
        self.stop()
        assert self.normal(self.printed) == self.normal(shown, shown=True)
        self.printed = ""

    def normal(self, text: str, *, shown: bool = False) -> str:
        """``text`` without what differs each time; ids stay apart and stay the same."""
        if not shown:
            self.seen = _ID.findall(text)
        else:
            for ours, theirs in zip(_ID.findall(text), self.seen, strict=True):
                assert self.ids.setdefault(ours, theirs) == theirs
            assert len(set(self.ids.values())) == len(self.ids)
        text = _ID.sub("<id>", text).replace("\r", "")
        text = re.sub(r'"timestamp": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"', "<time>", text)
        return re.sub(
            r'(?<="duration_ms": )\d+\.\d+|(?<=duration_ms=)\d+\.\d+|\d+\.\d(?= ms)',
            "<duration>",
            text,
        )


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader; their server ends with the test."""
    if shutil.which("curl") is None:
        pytest.skip("the README's console blocks use curl: apt-get install curl")
    made = Reader(tmp_path)
    yield made
    made.stop()


@pytest.mark.timeout(300)
def test_the_readme_from_top_to_bottom(reader: Reader) -> None:
    """A stranger who types it all in sees what it shows."""
    for block in BLOCKS:
        reader.read(block)
    assert reader.printed == ""
    assert len(reader.ids) == 10


def test_the_readme_can_be_wrong(reader: Reader) -> None:
    """The comparison sees a changed word, a missing line and a swapped id."""
    one, two = "1" * 32, "2" * 32
    reader.printed = f"{one} a\n{two} b\n{one} c\n"
    for wrong in (
        f"{one} a\n{two} x\n{one} c\n",
        f"{one} a\n{two} b\n",
        f"{one} a\n{two} b\n{two} c\n",
    ):
        reader.ids.clear()
        with pytest.raises((AssertionError, ValueError)):
            reader.compare(wrong)
    reader.ids.clear()
    reader.compare(f"{two} a\n{one} b\n{two} c\n")

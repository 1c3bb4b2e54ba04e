"""How the demos of the examples are run: as they are, and spoiled in a copy."""

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def demo(example: Path, temporary: Path) -> tuple[int, str]:
    """Run the demo of ``example``, with ``temporary`` for its files; return its status and
    output."""
    temporary.mkdir()
    ran = subprocess.run(
        [sys.executable, str(example / "demo.py")],
        env={"TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    return ran.returncode, ran.stdout


def sources() -> set[Path]:
    """What there is of all examples."""
    found = {path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*")}
    return {path for path in found if "cache" not in str(path)}


def spoiled(example: str, file: str, part: str, instead: str, directory: Path) -> Path:
    """Return a copy of ``example`` in ``directory``, in which ``part`` of ``file`` is replaced."""
    shutil.copytree(EXAMPLES / "checking", directory / "checking")
    copy = shutil.copytree(EXAMPLES / example, directory / example)
    code = (copy / file).read_text("utf-8")
    assert part in code
    (copy / file).write_text(code.replace(part, instead), "utf-8")
    return copy

"""``python -m tests.versions``: the tests of Flask and Quart, with older versions of them, and with
those that need a newer Python than this one, if the machine has it.

The suite itself runs with the newest that this Python takes. Each version gets an environment of
its own.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-versions"

_FLASK = ("asok", "flask-login", "asgiref", "waitress")
_QUART = (
    "asok",
    "flask-login",
    "gevent",
    "waitress",
    "quart-auth",
    "quart-flask-patch",
    "starlette",
    "uvicorn",
    "hypercorn",
    "websockets",
    "httpx",
)
_FLASK_TESTS = (
    "tests/frameworks/test_flask*.py",
    "tests/detect/test_explain.py",
    "tests/gateway/test_judge.py",
    "tests/gateway/test_marks.py",
    "tests/tools/test_cli.py",
)
_QUART_TESTS = (
    "tests/frameworks/test_quart*.py",
    "tests/frameworks/test_pallets*.py",
    "tests/gateway/test_dialogue.py",
    "tests/gateway/test_asgi_websockets.py",
    "tests/gateway/test_containment_pallets.py",
    "tests/gateway/test_late.py",
    "tests/detect/test_explain.py",
    "tests/detect/test_orphans_ends.py",
    "tests/detect/test_orphans_frameworks.py",
    "tests/detect/test_otel_context_requests.py",
    "tests/propagate/test_streams_flask_quart.py",
)
# With the oldest and the newest alone, for the time it takes.
_QUART_ENDS = (*_QUART_TESTS, "tests/findings/test_corpus.py", "tests/tools/test_doctor.py")


class Version(NamedTuple):
    """One version, and what is run with it."""

    requirement: str
    beside: Sequence[str]
    tests: Sequence[str]
    python: tuple[int, int] = (3, 11)
    """The oldest Python that it runs on."""


VERSIONS = (
    Version("flask==2.3.3", _FLASK, _FLASK_TESTS),
    Version("flask==3.0.3", _FLASK, _FLASK_TESTS),
    Version("quart==0.19.9", _QUART, _QUART_ENDS),
    Version("quart==0.20.0", _QUART, _QUART_TESTS),
    Version("quart==0.21.0", _QUART, _QUART_TESTS),
    # One context for the application and the request.
    Version("quart==0.23.1", _QUART, _QUART_ENDS, (3, 13)),
)


def interpreter(least: tuple[int, int]) -> str | None:
    """A Python that is new enough: this one, or another one of the machine."""
    if sys.version_info[:2] >= least:
        return sys.executable
    name = "python{}.{}".format(*least)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(name), *sorted(pyenv.glob("{}.{}.*/bin/python".format(*least)))]
    # pyenv puts a stand-in on the path for versions that are not chosen.
    return next((str(path) for path in found if path and _runs(path)), None)


def _runs(python: str | Path) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def prepared(version: Version, python: str) -> Path:
    """The Python of an environment with that version."""
    folder = HOME / version.requirement
    made = folder / "bin" / "python"
    done = folder / "done"
    wanted = [version.requirement, *version.beside, "--editable", f"{ROOT}[test]"]
    # With what it was made of: our own entry points are in there, too.
    given = "\n".join([*wanted, (ROOT / "pyproject.toml").read_text("utf-8")])
    if not done.exists() or done.read_text("utf-8") != given:
        if python == sys.executable:
            venv.create(folder, with_pip=True)
        else:
            subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [made, "-m", "pip", "--quiet", "install"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, *wanted], check=True)
        done.write_text(given, "utf-8")
    return made


def tests(version: Version) -> list[str]:
    """The files that are run."""
    return [str(path) for pattern in version.tests for path in sorted(ROOT.glob(pattern))]


def main() -> None:
    """Run them all."""
    failed = []
    for version in VERSIONS:
        python = interpreter(version.python)
        print(f"\n{version.requirement}", flush=True)
        if python is None:
            print("  left out: it needs Python {}.{}".format(*version.python))
            continue
        # Older versions warn of what newer ones have changed.
        run = [prepared(version, python), "-m", "pytest", "-q", "-W", "default"]
        if subprocess.run([*run, *tests(version)], cwd=ROOT, check=False).returncode:
            failed.append(version.requirement)
    if failed:
        sys.exit(f"red with {', '.join(failed)}")


if __name__ == "__main__":
    main()

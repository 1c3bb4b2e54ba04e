"""The programs that grafana/ is held against, which pip does not install.

Each is looked for in the variable named after it (``JAEGER=/opt/jaeger``), in PATH, and in the
cache folder that the build scripts use. How to get them:

- promtool and prometheus: ``apt-get install prometheus``
- node and npm: ``apt-get install npm``; their packages are fetched by the tests themselves
- go: https://go.dev/dl; what reads compose files is built with it by the tests themselves
- loki and jaeger: ``tests/grafana/loki/build`` and ``tests/jaeger/build``, which take some minutes
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
NODE = Path(__file__).with_name("node")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asok-trace"


def program(name: str) -> str:
    """Where it is; else the test is skipped, with what to do about it."""
    built = sorted(CACHE.glob(f"{name}-*/{name}"))
    places = [os.environ.get(name.upper()), shutil.which(name), *built]
    for place in places:
        if place and os.access(place, os.X_OK):
            return str(place)
    pytest.skip(f"{name} is not here: {__name__} says how to get it")


def run(name: str, *arguments: str | Path, folder: Path = GRAFANA, **environment: str) -> str:
    """What the program prints; it has to succeed."""
    done = subprocess.run(
        [program(name), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def composer() -> Path:
    """The loader of compose files that ``docker compose`` itself has, built in the cache."""
    go = program("go")
    module = Path(__file__).with_name("compose")
    made = CACHE / f"compose-{hashlib.sha256((module / 'go.sum').read_bytes()).hexdigest()[:16]}"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        package = "github.com/compose-spec/compose-go/v2/cmd"
        done = subprocess.run(
            [go, "build", "-o", made, package], cwd=module, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return made


def packages() -> Path:
    """The folder with the locked packages of node/, installed in the cache."""
    npm = program("npm")
    lock = NODE / "package-lock.json"
    folder = CACHE / f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, folder)
        done = subprocess.run(
            [npm, "ci", "--silent", "--ignore-scripts"], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        (folder / "done").touch()
    return folder


def script(name: str, given: object) -> Any:
    """What node/``name`` makes of ``given``, by way of JSON."""
    folder = packages()
    shutil.copy(NODE / name, folder)  # next to the packages that it imports
    done = subprocess.run(
        [program("node"), folder / name],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

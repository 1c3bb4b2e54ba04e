"""The programs that tests need and pip does not install.

Each is looked for in the variable named after it (``JAEGER=/opt/jaeger``), in PATH, and in a cache
folder. How to get them:

- prometheus and promtool: ``apt-get install prometheus``
- node and npm: ``apt-get install npm``; their packages are fetched by the tests themselves
- go: https://go.dev/dl; what reads compose files is built with it by the tests themselves
- jaeger and loki: ``make jaeger loki`` builds them with go, which takes minutes
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GRAFANA = ROOT / "grafana"
NODE = HERE / "node"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asok-trace"


def program(name: str) -> str:
    """Where it is; else the test is skipped, with what to do about it."""
    places = [os.environ.get(name.upper()), shutil.which(name)]
    if (HERE / name / "go.sum").exists():
        places.append(str(cached(name, "go.sum") / name))
    for place in places:
        if place and os.access(place, os.X_OK):
            return place
    pytest.skip(f"{name} is not here: the docstring of {__name__} says how to get it")


def build(name: str) -> Path:
    """Build a program from its Go module, unless that is done. What its go.sum vouches for is
    asked of nobody else."""
    folder = cached(name, "go.sum")
    made = folder / name
    if not made.exists():
        found = re.search(r"^tool (\S+)$", (HERE / name / "go.mod").read_text(), re.MULTILINE)
        assert found is not None
        part = folder / str(os.getpid())  # until it is whole
        folder.mkdir(parents=True, exist_ok=True)
        go = [program("go"), "build", "-mod=readonly", "-buildvcs=false", "-o", part, found[1]]
        done = subprocess.run(go, cwd=HERE / name, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        part.rename(made)
    return made


def cached(name: str, lock: str) -> Path:
    """The folder for what is made of the folder ``name``, as its ``lock`` pins it."""
    pinned = hashlib.sha256((HERE / name / lock).read_bytes()).hexdigest()[:16]
    return CACHE / f"{name}-{pinned}"


def packages() -> Path:
    """The folder with the locked packages of node/, installed in the cache."""
    folder = cached("node", "package-lock.json")
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, folder)
        npm = [program("npm"), "ci", "--silent", "--ignore-scripts"]
        done = subprocess.run(npm, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / "done").touch()
    return folder


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

"""``python -m tests.suites``: Flask's own tests, with every application instrumented and without.

The suite comes from the sdist of the installed Flask. What fails, or is skipped, must be the same;
then the exit status is 0. It needs an older pytest, and so an environment of its own.

The baseline is a run in which each application has a middleware that does nothing, since whoever
wraps ``app.wsgi_app`` as Flask's documentation shows makes a circle that the application is in;
one test is about there being none. A plain run tells what that changes.
"""

import os
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-suites"
PYTHON = HOME / "bin" / "python"
APPS = HOME / "apps.txt"
NEEDS = ("pytest<9", "asgiref", "greenlet", "python-dotenv")

Outcomes = dict[str, str]


def pip(*arguments: str) -> None:
    """Run pip of the environment."""
    subprocess.run([PYTHON, "-m", "pip", "--quiet", *arguments], check=True)


def prepared(flask: str) -> Path:
    """The folder with the sources of that Flask; it is installed, with what its tests need."""
    folder = HOME / f"flask-{flask}"
    if not folder.exists():
        venv.create(HOME, with_pip=True)
        pip("install", "--upgrade", "pip")
        pip("install", f"flask=={flask}", *NEEDS, "--editable", str(ROOT))
        pip("download", "--no-binary", ":all:", "--no-deps", "--dest", str(HOME), f"flask=={flask}")
        with tarfile.open(HOME / f"flask-{flask}.tar.gz") as archive:
            archive.extractall(HOME, filter="data")
    return folder


def outcomes(report: Path) -> Outcomes:
    """Test -> ``passed``, ``skipped``, or how it failed."""
    found: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        states = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = "+".join(states) or "passed"
    return found


def run(folder: Path, name: str, *arguments: str, **variables: str) -> Outcomes:
    """Run the suite in ``folder``."""
    report = HOME / f"{name}.xml"
    report.unlink(missing_ok=True)
    # Not the plugins of this environment, nor what would configure OpenTelemetry or us.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "ASOK_", "PYTEST"))}
    done = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "--tb=short", f"--junitxml={report}", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT), "SUITES_APPS": str(APPS)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    (HOME / f"{name}.txt").write_text(done.stdout, encoding="utf-8")
    if not report.exists():
        sys.exit(f"The suite did not run:\n{done.stdout}")
    found = outcomes(report)
    passed = sum(outcome == "passed" for outcome in found.values())
    print(f"{name}: {len(found)} tests, {passed} passed")
    return found


def differences(one: Outcomes, other: Outcomes) -> list[str]:
    """Each test whose outcome is not the same."""
    return [
        f"  {name}: {one.get(name, 'not there')} -> {other.get(name, 'not there')}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def main() -> None:
    """Run it both ways and compare."""
    flask = version("flask")
    folder = prepared(flask)
    print(f"Flask {flask}, its own tests, on Python {sys.version.split()[0]}")
    plain = run(folder, "plain")
    plugin = ("-p", "tests.suites.every_app")
    baseline = run(folder, "baseline", *plugin, SUITES_CONTROL="1")
    ours = run(folder, "instrumented", *plugin)
    apps = int(APPS.read_text(encoding="utf-8"))
    print("A middleware that does nothing changes:", *differences(plain, baseline), sep="\n")
    found = differences(baseline, ours)
    print(f"{apps} applications instrumented; that changes:", *found or ["  nothing"], sep="\n")
    # A suite of which nothing passes, or in which nothing is instrumented, says nothing.
    if found or not apps or "passed" not in plain.values():
        sys.exit(f"See {HOME.name}/instrumented.txt.")


if __name__ == "__main__":
    main()

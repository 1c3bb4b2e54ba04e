"""The command in a process of its own, in the folder of a project."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 60
COMMAND = Path(sys.executable).parent / "asok-trace"


class Done(NamedTuple):
    """How it ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed: nothing else may be there."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def answers(self) -> dict[str, int | None]:
        """Path -> status, of --json."""
        return {asked["path"]: asked["status"] for asked in self.document["requested"]}

    @property
    def keys(self) -> list[str]:
        """The keys of what --json says was found."""
        return sorted(found["key"] for found in self.document["findings"])

    @property
    def skipped(self) -> dict[str, str]:
        """Route -> reason, of --json."""
        return {one["route"]: one["reason"] for one in self.document["skipped"]}


def command(
    folder: Path, *arguments: str, start: tuple[str | Path, ...] = (COMMAND,), **variables: str
) -> Done:
    """Run ``asok-trace`` with ``arguments`` in ``folder``. Nothing of the suite's own environment
    that would configure OpenTelemetry or us reaches it."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "ASOK_TRACE_", "PYTEST_"))
    }
    done = subprocess.run(
        [*start, *arguments],
        cwd=folder,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def doctor(folder: Path, *arguments: str, **variables: str) -> Done:
    """Run ``asok-trace doctor --json`` with ``arguments`` in ``folder``."""
    return command(folder, "doctor", "--json", *arguments, **variables)

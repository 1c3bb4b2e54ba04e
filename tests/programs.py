"""Small programs in a process of their own, for what is set once per process."""

import os
import subprocess
import sys

SECONDS = 60

# Every warning fails a program, but for what Python 3.12 and later say of os.fork() beside a
# thread: that forking works there all the same is what is tested.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


def run(program: str, **environment: str) -> str:
    """Return what ``program`` prints; it has to succeed. Nothing of the suite's own environment
    that would configure OpenTelemetry or us reaches it."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "ASOK_TRACE_"))
    }
    done = subprocess.run(
        [sys.executable, *WARNINGS, "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**inherited, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

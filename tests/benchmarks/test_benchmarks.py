"""The benchmark runs and has a number in each of its rows; what they are depends on the machine.
needs: asgi_correlation_id, asok, flask, opentelemetry.instrumentation, quart"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import rows
from tests.benchmarks.measure import ROOT

NUMBER = re.compile(r"-?\d[\d,]*\.\d\d x")


@pytest.mark.timeout(600)  # a process for each setting
def test_a_quick_run_has_a_number_in_each_row(tmp_path: Path) -> None:
    """Every comparison is printed with a ratio, memory too, and nothing is left behind."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--quick"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for row in rows.COMPARISONS:
        [line] = [
            line for line in lines if f"  {row.what}  " in line and f"  {row.base[1]}  " in line
        ]
        assert NUMBER.search(line), line
    assert len([line for line in lines if re.search(r"G13 .* \d", line)]) == 4
    assert list(tmp_path.iterdir()) == []

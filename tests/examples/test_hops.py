"""Every program in examples/hops runs, and the lines that it prints have the id they should have.

needs: asok, celery, gevent, redis
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.queues.conftest import redis_url

HOPS = Path(__file__).parents[2] / "examples" / "hops"
PROGRAMS = sorted(path.name for path in HOPS.glob("*.py"))

NO_ID = "no id"

__all__ = ["redis_url"]


def run(program: str, **environment: str) -> list[dict[str, Any]]:
    """Return the lines that a program logs; it has to succeed."""
    clean = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    ran = subprocess.run(
        [sys.executable, str(HOPS / program)],
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("program", PROGRAMS)
def test_lines_have_the_id_that_they_should(program: str, request: pytest.FixtureRequest) -> None:
    """One request: every line has its id, but for those that say that they have none; there is
    one of them at least beyond the request's own line. The programs leave nothing behind."""
    before = set(HOPS.rglob("*"))
    needs_redis = "REDIS_URL" in (HOPS / program).read_text(encoding="utf-8")
    url = {"REDIS_URL": request.getfixturevalue("redis_url")} if needs_redis else {}
    lines = run(program, **url)

    first, *others = lines
    assert first["event"] == "in the request"
    assert re.fullmatch("[0-9a-f]{32}", first["request_id"])
    for line in others:
        expected = None if NO_ID in line["event"] else first["request_id"]
        assert line.get("request_id") == expected, line
    assert any(line["event"] != "request" and "request_id" in line for line in others), lines
    assert set(HOPS.rglob("*")) == before


def test_work_that_outlives_is_open_when_its_request_is_over() -> None:
    """outlive.py: what is only wrapped works for a closed request."""
    lines = {line["event"]: line for line in run("outlive.py")}
    assert lines["mailing, late"]["request_open"] is False
    assert lines["mailing, in a scope of its own"]["request_open"] is True
    assert lines["mailing, in a scope of its own"]["task"] == "send_receipt"


def test_attempts_of_a_job_are_told_apart() -> None:
    """background_job.py: the job fails once."""
    jobs = [line for line in run("background_job.py") if line["event"] == "in the job"]
    assert [line["attempt"] for line in jobs] == ["1", "2"]


def test_the_table_names_every_program() -> None:
    """No program is left out of the README, and none is in there that does not exist."""
    readme = (HOPS / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| \[(\w+\.py)\]\(\1\)", readme, re.MULTILINE)
    assert sorted(table) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_says_what_to_see_and_is_short(program: str) -> None:
    """It begins with a docstring, and one screen holds it."""
    source = (HOPS / program).read_text(encoding="utf-8")
    assert source.startswith('"""')
    assert len(source.splitlines()) <= 66

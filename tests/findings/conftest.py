"""Every test here begins with nothing found, and leaves nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from asok_trace.core import findings, settings
from tests.findings.stage import Stage, logged

LEVELS = ("basic", "strict")


@pytest.fixture(autouse=True)
def _nothing_found() -> Iterator[None]:
    before = settings.default()
    findings.clear()
    yield
    settings.set_default(before)
    assert not settings._wanted, "a gateway was not undone: it holds the process at its level"
    findings.clear()


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def flask_stage(tmp_path: Path, level: str) -> Iterator[Stage]:
    with logged():
        stage = Stage("flask", tmp_path, level=level, threads="watch", grace=0.0)
        yield stage
        stage.handle.undo()


@pytest.fixture
def asok_stage(tmp_path: Path, level: str) -> Iterator[Stage]:
    with logged():
        stage = Stage("asok", tmp_path, level=level, threads="watch", grace=0.0)
        yield stage
        stage.handle.undo()

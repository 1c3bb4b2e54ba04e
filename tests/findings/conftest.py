"""Every test here begins with nothing found, and leaves nothing."""

from collections.abc import Iterator

import pytest

from asok_trace.core import findings, settings


@pytest.fixture(autouse=True)
def _nothing_found() -> Iterator[None]:
    before = settings.default()
    findings.clear()
    yield
    settings.set_default(before)
    assert not settings._wanted, "a gateway was not undone: it holds the process at its level"
    findings.clear()

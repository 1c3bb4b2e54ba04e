"""What was found, and where it should be."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asok_trace.core import findings
from asok_trace.core.callsite import relative, short
from asok_trace.core.finding import LEAK, Finding


@pytest.fixture(autouse=True)
def nothing_found() -> Iterator[None]:
    """Each test begins and ends with nothing found."""
    findings.clear()
    yield
    findings.clear()


def leaks() -> list[Finding]:
    """The leaks that were found."""
    return [finding for finding in findings.findings() if finding.kind == LEAK]


def leak(slug: str) -> Finding:
    """The only leak, of this kind."""
    [found] = leaks()
    assert found.slug == slug, str(found)
    return found


def place(function: Callable[..., Any], mark: str | None = "# HERE") -> str:
    """Where in ``function`` the mark is, as a finding says it; without one, where it begins."""
    code = function.__code__
    lines, first = inspect.getsourcelines(function)
    if mark is not None:
        [first] = [first + at for at, line in enumerate(lines) if mark in line]
    return f"{relative(code.co_filename)}:{first} {short(code.co_qualname)}"

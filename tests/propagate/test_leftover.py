"""What a watched pool's job leaves in the pool's thread. needs: asok, flask"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
from asok.context import request_context, request_var
from asok.request import Request

import asok_trace
from asok_trace.propagate import leftover
from tests.gateway import sites
from tests.gateway.found import leak, leaks, nothing_found, place

__all__ = ["nothing_found"]

app = flask.Flask("shop")


def sets() -> str:
    request_var.set(Request(sites.environ("/other")))
    return "done"


def pushes() -> str:
    app.test_request_context("/other").push()
    return "done"


def tidy() -> str:
    with app.test_request_context("/other"), request_context(Request(sites.environ("/other"))):
        return "done"


def run(job: Callable[[], Any], mode: str) -> None:
    """Twice in one pool, for a unit of work."""
    with ThreadPoolExecutor(1) as pool, asok_trace.propagate_threads(mode):
        for _ in range(2):
            with asok_trace.scope("nightly"):
                assert pool.submit(job).result() == "done"


@pytest.mark.parametrize("job", [sets, pushes])
def test_a_job_that_leaves_a_request(job: Callable[[], Any]) -> None:
    """Named by its function, and by who handed it over."""
    run(job, "watch")
    found = leak("unclosed")
    assert found.callsite == place(job, None)
    assert (found.path, found.count) == ("nightly", 2)
    assert found.origin is not None
    assert "test_leftover.py" in found.origin
    assert found.key == f"unclosed:tests.propagate.test_leftover.{job.__name__}"


@pytest.mark.parametrize(("job", "mode"), [(tidy, "watch"), (sets, "carry")])
def test_a_job_that_does_not(job: Callable[[], Any], mode: str) -> None:
    """It puts away what it began; or has a context of its own, which ends with it."""
    run(job, mode)
    assert leaks() == []


@pytest.mark.parametrize("part", ["_current", "_judge"])
def test_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """The job gives what it gives."""

    def broken(*_args: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(leftover, part, broken)
    run(sets, "watch")
    assert not leftover.looking.working
    assert leaks() == []

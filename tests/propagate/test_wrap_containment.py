"""Each part of `wrap` is broken in turn: the function runs all the same, its result and its
exception are its own, and the fault is reported once. needs: asok"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from asok import current_request

import asok_trace
from asok_trace.detect import explain
from asok_trace.frameworks.asok import FRAMEWORK
from asok_trace.propagate import work
from asok_trace.propagate import wrap as wrapping
from asok_trace.stamp import work_span
from tests.gateway.sites import Reply, Site
from tests.propagate.lines import Line, elsewhere, say

Call = Callable[..., Reply]
Faults = list[logging.LogRecord]


class BrokenError(Exception):
    """What a part of ours fails with."""


def broken(*_args: Any, **_kwargs: Any) -> Any:
    """In place of any function of ours."""
    raise BrokenError("broken")


class CartError(LookupError):
    """What the program fails with."""


def charge(cart: int) -> int:
    say("charging")
    if not cart:
        raise CartError("no such cart")
    return cart


async def charge_async(cart: int) -> int:
    await asyncio.sleep(0)
    return charge(cart)


def late() -> str:
    return current_request.path


# What is broken, what is called when, and what is reported.
PARTS: dict[str, tuple[Any, str, str]] = {
    "fork": (wrapping, "fork", "opening the scope of a task or job"),
    "unit": (work.Work, "__init__", "opening the scope of a task or job"),
    "forget": (FRAMEWORK, "variables", "letting the request of a task go"),
    "span": (work_span, "start", "tracing tasks and jobs"),
    "span's end": (work_span.WorkSpan, "end", "tracing tasks and jobs"),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.usefixtures("spans")
def test_the_function_runs_whatever_breaks(
    shop: Site,
    call: Call,
    lines: list[Line],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    asynchronous: bool,
) -> None:
    """In the request and after it, twice; the page does not notice either."""
    owner, name, said = PARTS[part]
    made: list[Any] = []

    def run(cart: int) -> Any:
        result = made[-1](cart)
        return asyncio.run(result) if asynchronous else result

    def use() -> None:
        for _ in range(2):
            assert elsewhere(run, 5) == 5
            with pytest.raises(CartError, match="no such cart"):
                elsewhere(run, 0)

    def page(request: Any) -> str:
        wanted: Any = charge_async if asynchronous else charge
        made.append(asok_trace.wrap(wanted, outlive=True))
        use()
        return "page"

    shop.views["page"] = page
    if part == "span's end":
        monkeypatch.setattr(owner, name, _ending_badly(owner.end))
    else:
        monkeypatch.setattr(owner, name, broken)
    for _ in range(2):
        assert call(shop.app, "/page").status == 200
        use()
    assert len([line for line in lines if line["event"] == "charging"]) == 16
    [fault] = faults
    assert f"{said} failed" in fault.getMessage()
    assert fault.exc_info is not None


def _ending_badly(end: Callable[..., None]) -> Callable[..., None]:
    def ends(*args: Any) -> None:
        end(*args)  # or the span would stay current in this very context
        broken()

    return ends


def test_an_exception_stays_as_it_is_if_it_cannot_be_explained(
    shop: Site, call: Call, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It escapes without the note."""
    made: list[Any] = []
    shop.views["page"] = lambda request: made.append(asok_trace.wrap(late, outlive=True)) or "page"
    call(shop.app, "/page")
    monkeypatch.setattr(explain, "_passing", broken)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="outside of request context") as raised:
            elsewhere(made[0])
        assert not hasattr(raised.value, "__notes__")
    [fault] = faults
    assert "explaining an error about a request's context failed" in fault.getMessage()


@pytest.mark.parametrize("part", ["fork", "forget"])
def test_once_it_is_off_work_still_has_the_whole_context(
    shop: Site, call: Call, lines: list[Line], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A later task of another request runs, whatever it has of its request."""
    owner, name, _ = PARTS[part]
    monkeypatch.setattr(owner, name, broken)
    shop.views["page"] = lambda request: str(
        asok_trace.wrap(charge, outlive=True)(7) + asok_trace.wrap(charge)(1)
    )
    for _ in range(2):
        assert call(shop.app, "/page").body == b"8"
    wrapped = [line for line in lines if line["event"] == "charging"][1::2]
    assert all(line["path"] == "/page" for line in wrapped)

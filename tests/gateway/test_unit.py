"""`scope()` opens a unit of work, as a context manager and as a decorator."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import Context

import pytest

import asok_trace
from asok_trace.core.scope import ACTIVE


def test_a_unit_is_open_inside_and_closed_after() -> None:
    """current() is the unit inside, None after; the unit has an id, a kind and a name."""
    assert asok_trace.current() is None
    with asok_trace.scope("nightly", kind="cron", tenant=5) as scope:
        assert asok_trace.current() is scope
        assert (scope.kind, scope.name, scope.open) == ("cron", "nightly", True)
        assert scope.fields == {
            "request_id": scope.request_id,
            "task": "nightly",
            "tenant": "5",
        }
    assert asok_trace.current() is None
    assert not scope.open


def test_units_nest() -> None:
    """The inner one stands in front; the outer one is back after it, also after an error."""
    with asok_trace.scope("outer") as outer:
        inner = asok_trace.scope("inner")
        assert inner.__enter__().request_id != outer.request_id
        inner.__exit__(LookupError, LookupError(), None)
        assert asok_trace.current() is outer


def test_an_outer_unit_that_has_ended_does_not_come_back() -> None:
    """Units that end in the wrong order leave nobody behind."""
    outer, inner = asok_trace.scope("outer"), asok_trace.scope("inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    assert asok_trace.current() is None


def test_a_unit_may_be_left_in_another_context() -> None:
    """Entered here, left there: no error reaches the host, and the unit is closed."""
    unit = asok_trace.scope("x")
    opened = Context().run(unit.__enter__)
    unit.__exit__(None, None, None)
    assert not opened.open
    assert ACTIVE.get() is None


def test_each_call_of_a_decorated_function_is_a_unit() -> None:
    """Also when many threads call it at once."""
    seen: list[str] = []
    barrier = threading.Barrier(4)

    @asok_trace.scope("job", tenant="a")
    def work(value: int) -> int:
        """The work."""
        scope = asok_trace.current()
        assert scope is not None
        barrier.wait()
        seen.append(scope.request_id)
        assert scope.fields["tenant"] == "a"
        return value + 1

    threads = [threading.Thread(target=work, args=(1,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 4
    assert work.__name__ == "work"
    assert work.__doc__ == "The work."


def test_coroutine_functions_are_units() -> None:
    """The unit is open until the coroutine is done, in each task its own."""

    @asok_trace.scope("job")
    async def work() -> str:
        before = asok_trace.current()
        await asyncio.sleep(0)
        assert before is not None
        assert asok_trace.current() is before
        return before.request_id

    async def main() -> list[str]:
        return await asyncio.gather(work(), work(), work())

    assert len(set(asyncio.run(main()))) == 3


def test_generator_functions_are_refused() -> None:
    """Their bodies run when somebody iterates them: the error says so and what to write."""

    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, later):
        with pytest.raises(TypeError, match=r"generator function .*Write `with scope\('job'\):`"):
            asok_trace.scope("job")(function)


def test_bad_arguments_are_refused() -> None:
    """An unknown kind and a reserved name, with value, reason and remedy."""
    with pytest.raises(asok_trace.ConfigError, match=r"kind='jop' is not a kind of work\. Use one"):
        asok_trace.scope("x", kind="jop")
    with pytest.raises(asok_trace.ConfigError, match="request_id='x' cannot be bound"):
        asok_trace.scope("x", request_id="x")


def test_bind_adds_to_the_unit() -> None:
    """bind() is seen by everybody inside; outside it does nothing."""
    asok_trace.bind(tenant=1)
    with asok_trace.scope("x") as scope:
        asok_trace.bind(tenant=2)
        assert scope.fields["tenant"] == "2"
    assert ACTIVE.get() is None


def test_a_closed_unit_is_not_current() -> None:
    """A copied context still holds it; current() says there is none, and lines keep its id."""
    with asok_trace.scope("x") as scope:
        pass
    ACTIVE.set(scope)
    assert asok_trace.current() is None
    event = asok_trace.inject(None, "info", {"event": "late"})
    assert isinstance(event, dict)
    assert event["request_id"] == scope.request_id

"""`wrap` binds what is called elsewhere to the context that it was called in."""

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import asok_trace
from asok_trace import scope, wrap
from tests.propagate.lines import SECONDS, Line, elsewhere, ids, mine, named, say


class Mailer:
    """Callables of all kinds."""

    def send(self, to: str) -> str:
        say("ran")
        return to

    @staticmethod
    def ping(to: str) -> str:
        say("ran")
        return to

    @classmethod
    def make(cls, to: str) -> str:
        say("ran")
        return to

    async def send_later(self, to: str) -> str:
        await asyncio.sleep(0)
        say("ran")
        return to


class Called:
    def __call__(self, to: str) -> str:
        say("ran")
        return to


class CalledLater:
    async def __call__(self, to: str) -> str:
        await asyncio.sleep(0)
        say("ran")
        return to


def plain(to: str) -> str:
    say("ran")
    return to


def two(extra: str, to: str) -> str:
    say("ran")
    return to


async def later(to: str) -> str:
    await asyncio.sleep(0)
    say("ran")
    return to


async def two_later(extra: str, to: str) -> str:
    await asyncio.sleep(0)
    say("ran")
    return to


def _as_is(result: Any) -> Any:
    return result


def _run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


CALLABLES: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "function": (plain, _as_is),
    "method": (Mailer().send, _as_is),
    "static method": (Mailer.ping, _as_is),
    "class method": (Mailer.make, _as_is),
    "lambda": (lambda to: plain(to), _as_is),
    "partial": (functools.partial(two, "x"), _as_is),
    "partial of a partial": (functools.partial(functools.partial(two), "x"), _as_is),
    "callable": (Called(), _as_is),
    "coroutine function": (later, _run),
    "async method": (Mailer().send_later, _run),
    "partial of a coroutine function": (functools.partial(two_later, "x"), _run),
    "async callable": (CalledLater(), _run),
    "partial of an async callable": (functools.partial(CalledLater()), _run),
    "lambda that calls a coroutine function": (lambda to: later(to), _run),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_what_can_be_called_can_be_wrapped(lines: list[Line], kind: str) -> None:
    """Whatever kind of callable it is, its lines carry the request, and its result is its own."""
    function, finished = CALLABLES[kind]
    with scope("order") as order:
        wrapped = wrap(function)
    assert elsewhere(lambda: finished(wrapped("ada"))) == "ada"
    assert ids(lines, "ran") == [order.request_id]


def test_a_generator_function_runs_there_step_by_step(lines: list[Line]) -> None:
    """Every step of a generator runs in the context, its consumer does not."""

    def count(to: int) -> Iterator[int]:
        for number in range(to):
            say("step")
            yield number

    with scope("order") as order:
        wrapped = wrap(count)

    def consume() -> list[int]:
        numbers = []
        for number in wrapped(3):
            say("between")
            numbers.append(number)
        return numbers

    assert elsewhere(consume) == [0, 1, 2]
    assert ids(lines, "step") == [order.request_id] * 3
    assert ids(lines, "between") == [None] * 3


def test_an_async_generator_function_runs_there_step_by_step(lines: list[Line]) -> None:
    """The same for an asynchronous one, across what it awaits."""

    async def count(to: int) -> AsyncIterator[int]:
        for number in range(to):
            await asyncio.sleep(0)
            say("step")
            yield number

    with scope("order") as order:
        wrapped = wrap(count)

    async def consume() -> list[int]:
        numbers = []
        async for number in wrapped(3):
            say("between")
            numbers.append(number)
        return numbers

    assert elsewhere(asyncio.run, consume()) == [0, 1, 2]
    assert ids(lines, "step") == [order.request_id] * 3
    assert ids(lines, "between") == [None] * 3


def test_a_callable_that_is_a_generator_runs_there(lines: list[Line]) -> None:
    """An object whose ``__call__`` is a generator is one, also in a partial."""

    class Steps:
        def __call__(self, to: int) -> Iterator[int]:
            for number in range(to):
                say("step")
                yield number

    with scope("order") as order:
        wrapped = [wrap(Steps()), wrap(functools.partial(Steps()))]
    assert [elsewhere(lambda: list(made(1))) for made in wrapped] == [[0], [0]]  # noqa: B023
    assert ids(lines, "step") == [order.request_id] * 2


def test_a_class_is_a_callable_that_makes_instances(lines: list[Line]) -> None:
    """What its instances can do does not matter: calling it makes one."""
    assert isinstance(wrap(CalledLater)(), CalledLater)
    assert isinstance(wrap(Called)(), Called)


def test_the_context_is_captured_when_wrap_is_called(lines: list[Line]) -> None:
    """What is bound or set afterwards is not seen, but for facts of the whole request."""
    mine.set("early")
    with scope("order") as order:
        wrapped = wrap(lambda: (say("ran"), mine.get())[1])
        mine.set("late")
        asok_trace.bind(cart=5)
    with scope("another"):
        assert wrapped() == "early"
    assert named(lines, "ran")["request_id"] == order.request_id
    assert named(lines, "ran")["cart"] == "5"
    mine.set("nobody's")


def test_each_run_has_a_copy_of_its_own() -> None:
    """What a run sets reaches neither the next run nor the caller nor where it was wrapped."""
    mine.set("before")
    seen: list[str] = []

    def run(value: str) -> None:
        seen.append(mine.get())
        mine.set(value)

    wrapped = wrap(run)
    wrapped("first")
    elsewhere(wrapped, "second")
    wrapped("third")
    assert seen == ["before"] * 3
    assert mine.get() == "before"
    mine.set("nobody's")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_wrapped_function_runs_in_many_threads_at_once(
    lines: list[Line], asynchronous: bool
) -> None:
    """All of them are in it at the same time, each with its own variables."""
    together = threading.Barrier(8, timeout=SECONDS)

    def run(number: int) -> str:
        mine.set(str(number))
        together.wait()
        say("ran")
        together.wait()
        return mine.get()

    async def run_async(number: int) -> str:
        return run(number)

    with scope("order") as order:
        wrapped: Any = wrap(run_async) if asynchronous else wrap(run)

    def call(number: int) -> str:
        return asyncio.run(wrapped(number)) if asynchronous else wrapped(number)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [str(number) for number in range(8)]
    assert ids(lines, "ran") == [order.request_id] * 8


def test_it_may_call_itself() -> None:
    """Re-entrance: each level has the captured context, not that of the level above."""
    mine.set("top")

    def fall(depth: int) -> list[str]:
        seen = mine.get()
        mine.set(str(depth))
        return [seen, *(wrapped(depth - 1) if depth else [])]

    wrapped = wrap(fall)
    assert wrapped(3) == ["top"] * 4
    mine.set("nobody's")


def test_what_is_wrapped_twice_runs_in_the_first_context(lines: list[Line]) -> None:
    """The innermost binding is the one that counts."""
    with scope("order") as order:
        once = wrap(plain)
    with scope("another"):
        twice = wrap(once)
    elsewhere(twice, "ada")
    assert ids(lines, "ran") == [order.request_id]


@pytest.mark.parametrize("outlive", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_signature_is_kept(outlive: bool, asynchronous: bool) -> None:
    """Name, documentation, signature, module and kind are those of the function."""

    def charge(cart: int, *, twice: bool = False) -> str:
        """Charge the cart."""
        return ""

    async def charge_async(cart: int, *, twice: bool = False) -> str:
        """Charge the cart."""
        return ""

    function: Any = charge_async if asynchronous else charge
    with scope("order"):
        wrapped = wrap(function, outlive=outlive)
    assert wrapped.__name__ == function.__name__
    assert wrapped.__qualname__ == function.__qualname__
    assert wrapped.__doc__ == "Charge the cart."
    assert wrapped.__module__ == __name__
    assert wrapped.__wrapped__ is function
    assert inspect.signature(wrapped) == inspect.signature(function)
    assert inspect.iscoroutinefunction(wrapped) is asynchronous


@pytest.mark.parametrize("outlive", [False, True])
@pytest.mark.parametrize("error", [LookupError("x"), KeyboardInterrupt(), StopIteration(5)])
def test_an_exception_passes_unchanged(error: BaseException, outlive: bool) -> None:
    """The very object, with nothing added to it."""

    def fail() -> None:
        raise error

    with scope("order"):
        wrapped = wrap(fail, outlive=outlive)
    with pytest.raises(type(error)) as raised:
        elsewhere(wrapped)
    assert raised.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("bind", [wrap, asok_trace.detach])
def test_a_coroutine_is_refused_with_the_remedy(bind: Callable[..., Any]) -> None:
    """It was made already, and would run once: the text says what to pass instead."""
    coroutine = later("ada")
    with pytest.raises(TypeError, match=rf"{bind.__name__}\(later\)\(\.\.\.\), or .*create_task"):
        bind(coroutine)
    coroutine.close()


@pytest.mark.parametrize("bind", [wrap, asok_trace.detach])
@pytest.mark.parametrize("thing", [None, 5, "charge"])
def test_what_cannot_be_called_is_refused(bind: Callable[..., Any], thing: object) -> None:
    """At once, not in the thread where nobody looks."""
    with pytest.raises(TypeError, match="not callable"):
        bind(thing)


@pytest.mark.parametrize("within", [True, False])
def test_a_generator_function_cannot_outlive(within: bool) -> None:
    """It is refused, inside a request and outside any, with what to do instead."""

    def count() -> Iterator[int]:
        yield 1

    async def count_async() -> AsyncIterator[int]:
        yield 1

    for function in (count, count_async):
        request = scope("order") if within else contextlib.nullcontext()
        with request, pytest.raises(TypeError, match=r"wrap_stream\(\)"):
            wrap(function, outlive=True)


def test_outside_any_request_it_carries_what_there_is(lines: list[Line]) -> None:
    """Without a request the variables of the program go along all the same."""
    mine.set("kept")
    assert elsewhere(wrap(lambda: (say("ran"), mine.get())[1])) == "kept"
    assert ids(lines, "ran") == [None]
    mine.set("nobody's")

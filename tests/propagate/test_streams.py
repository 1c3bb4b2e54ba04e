"""`wrap_stream`: each step of a stream runs in the context that it was made in, which nobody else
ever sees; however it ends, it ends there, once."""

import gc
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import Context
from itertools import chain
from typing import Any

import pytest

from asok_trace import current, scope, wrap_stream
from tests.propagate.lines import SECONDS, Line, elsewhere, ids, mine, say


def count(to: int) -> Generator[int, Any, str]:
    """A stream that says what it does, and what it is sent."""
    try:
        for number in range(to):
            say("step")
            sent = yield number
            if sent is not None:
                say("sent", value=sent)
    finally:
        say("closed")
    return "result"


class Body:
    """What a server's wrapper is: something to iterate, with a ``close()``."""

    def __init__(self, chunks: int = 3) -> None:
        self._left = chunks

    def __iter__(self) -> Iterator[int]:
        say("begun")
        return self

    def __next__(self) -> int:
        if not self._left:
            raise StopIteration
        self._left -= 1
        say("step")
        return self._left

    def close(self) -> None:
        say("closed")


class Made:
    """Something to iterate that makes a generator for it."""

    def __iter__(self) -> Iterator[int]:
        return count(3)


def streamed(iterable: Any) -> tuple[str, Any]:
    """The id of a request, and the stream that it leaves behind."""
    with scope("order") as order:
        return order.request_id, wrap_stream(iterable)


KINDS: dict[str, Callable[[], Any]] = {
    "generator": lambda: count(3),
    "body": lambda: Body(3),
    "makes a generator": Made,
}
ALL = pytest.mark.parametrize("kind", KINDS)


@ALL
def test_every_step_is_in_the_request_and_nothing_in_between(lines: list[Line], kind: str) -> None:
    """The loop that consumes it is outside any, or in a request of its own."""
    request_id, stream = streamed(KINDS[kind]())
    with scope("consumer") as consumer:
        for _ in stream:
            assert current() is consumer
            say("between")
        assert current() is consumer
    assert ids(lines, "step") == [request_id] * 3
    assert ids(lines, "between") == [consumer.request_id] * 3
    assert ids(lines, "begun") == [request_id] * (kind == "body")


def test_variables_stay_between_the_steps_and_inside() -> None:
    """What a step sets, the next one sees; the consumer never does, nor the one who wrapped."""

    def body() -> Iterator[str]:
        for value in ("first", "second", "third"):
            seen = mine.get()
            mine.set(value)
            yield seen

    stream = wrap_stream(body())
    seen = []
    for item in stream:
        seen.append((item, mine.get()))
        mine.set("the consumer's")
    assert [item for item, _ in seen] == ["nobody's", "first", "second"]
    assert [outside for _, outside in seen] == ["nobody's", "the consumer's", "the consumer's"]
    mine.set("nobody's")


def test_plain_iterables(lines: list[Line]) -> None:
    """Lists, strings and iterators are streams as well, and can be closed."""
    assert list(wrap_stream([1, 2])) == [1, 2]
    assert list(wrap_stream("ab")) == ["a", "b"]
    assert list(wrap_stream(iter((1, 2)))) == [1, 2]
    stream: Any = wrap_stream([1, 2])
    assert next(stream) == 1
    stream.close()
    stream.close()
    assert list(stream) == []


@pytest.mark.parametrize("thing", [None, 5])
def test_what_cannot_be_iterated_is_refused(thing: Any) -> None:
    """At once, where it was given."""
    with pytest.raises(TypeError, match="nothing to iterate"):
        wrap_stream(thing)


def test_a_function_that_makes_generators_is_refused_with_the_remedy() -> None:
    """It has to be called."""
    with pytest.raises(TypeError, match=r"Call it: wrap_stream\(count\(\)\)"):
        wrap_stream(count)  # type: ignore[call-overload]


def test_send_and_the_result_pass_through(lines: list[Line]) -> None:
    """A generator stays one: it may be sent values, delegated to, and returns a result."""
    request_id, stream = streamed(count(2))

    def outer() -> Generator[int, Any, str]:
        return (yield from stream)

    made = outer()
    assert made.send(None) == 0
    assert made.send("hello") == 1
    with pytest.raises(StopIteration) as stopped:
        made.send("again")
    assert stopped.value.value == "result"
    assert [line["value"] for line in lines if line["event"] == "sent"] == ["hello", "again"]
    assert ids(lines, "sent") == [request_id] * 2


def test_what_is_sent_before_the_first_step_is_refused_as_ever() -> None:
    """Like a generator that nobody has wrapped."""
    stream: Any = wrap_stream(count(2))
    with pytest.raises(TypeError, match="just-started generator"):
        stream.send("early")


def test_throw_passes_through(lines: list[Line]) -> None:
    """The generator sees it in its own context, and may go on."""

    def body() -> Generator[str, None, None]:
        while True:
            try:
                yield "waiting"
            except LookupError as error:
                say("caught", error=str(error))
                yield "caught"

    request_id, stream = streamed(body())
    assert next(stream) == "waiting"
    assert stream.throw(LookupError("x")) == "caught"
    assert ids(lines, "caught") == [request_id]
    error = KeyError("y")
    with pytest.raises(KeyError) as raised:
        stream.throw(error)
    assert raised.value is error
    assert list(stream) == []


def test_an_exception_inside_passes_unchanged(lines: list[Line]) -> None:
    """Then it is over."""
    error = LookupError("x")

    def body() -> Iterator[int]:
        yield 1
        raise error

    class Failing(Body):
        def __next__(self) -> int:
            raise error

    for iterable in (body(), chain([1], Failing())):
        _, stream = streamed(iterable)
        assert next(stream) == 1
        with pytest.raises(LookupError) as raised:
            next(stream)
        assert raised.value is error


def _closed(stream: Any) -> None:
    stream.close()
    stream.close()


def _in_another_thread(stream: Any) -> None:
    elsewhere(stream.close)
    stream.close()


def _in_another_context(stream: Any) -> None:
    with scope("another"):
        Context().run(stream.close)
        stream.close()


def _thrown_into(stream: Any) -> None:
    if not hasattr(stream, "throw"):
        stream.close()
        return
    with pytest.raises(GeneratorExit):
        stream.throw(GeneratorExit)


ENDS: list[Callable[[Any], None]] = [_closed, _in_another_thread, _in_another_context, _thrown_into]


@ALL
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_closed_early_it_ends_once_in_its_context(
    lines: list[Line], kind: str, end: Callable[[Any], None]
) -> None:
    """Wherever it is closed from: the ``finally`` block runs in the stream's context."""
    request_id, stream = streamed(KINDS[kind]())
    next(stream)
    end(stream)
    assert ids(lines, "closed") == [request_id]
    assert list(stream) == []
    assert ids(lines, "step") == [request_id]


def test_a_generator_that_is_dropped_ends_in_its_context(lines: list[Line]) -> None:
    """By its reference count alone, as one that nobody wrapped; also when a loop breaks out."""
    request_id, stream = streamed(count(3))
    for _ in stream:
        break
    gc.disable()
    try:
        del stream
        assert ids(lines, "closed") == [request_id]
    finally:
        gc.enable()


def test_a_generator_in_a_circle_ends_once(lines: list[Line]) -> None:
    """The collector may end it before what is around it, and so in the collector's own context."""
    _, stream = streamed(count(3))
    next(stream)
    circle: list[Any] = [stream]
    circle.append(circle)
    del stream, circle
    gc.collect()
    assert len(ids(lines, "closed")) == 1


@pytest.mark.parametrize("drop", [False, True])
def test_a_generator_that_never_starts_does_nothing(lines: list[Line], drop: bool) -> None:
    """No step, no ``finally``, no warning."""
    _, stream = streamed(count(3))
    if not drop:
        stream.close()
        assert list(stream) == []
    del stream
    gc.collect()
    assert not lines


def test_a_body_that_never_starts_is_closed(lines: list[Line]) -> None:
    """As servers do for a HEAD request."""
    request_id, stream = streamed(Body())
    stream.close()
    assert ids(lines, "closed") == [request_id]
    assert not ids(lines, "begun")


def test_a_generator_that_was_begun_before_is_closed(lines: list[Line]) -> None:
    """Somebody looked at its first item before it was wrapped, and nobody at the others."""
    body = count(3)
    next(body)
    request_id, stream = streamed(body)
    stream.close()
    assert ids(lines, "closed") == [request_id]
    assert list(body) == []


def test_a_generator_that_refuses_to_end_says_so(lines: list[Line]) -> None:
    """Python's own complaint comes through."""

    def stubborn() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    stream: Any = wrap_stream(stubborn())
    next(stream)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        stream.close()


class Reentered(Body):
    """Closes the stream that it is a step of."""

    stream: Any = None

    def __next__(self) -> int:
        self._token = mine.set("the body's")
        step = super().__next__()
        self.stream.close()
        return step

    def close(self) -> None:
        super().close()
        mine.reset(self._token)  # refused in any other context


def test_a_body_may_be_closed_from_its_own_step(lines: list[Line]) -> None:
    """The context is entered already: it ends in there, once."""
    body = Reentered()
    request_id, stream = streamed(body)
    body.stream = stream
    assert next(stream) == 2
    assert list(stream) == []
    assert ids(lines, "closed") == [request_id]


class Waiting(Body):
    """Is in its step until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.Event()
        self.ended = threading.Event()

    def __next__(self) -> int:
        self.inside.set()
        assert self.ended.wait(SECONDS)
        return super().__next__()

    def close(self) -> None:
        super().close()
        self.ended.set()


def test_a_body_may_be_closed_while_another_thread_is_in_its_step(lines: list[Line]) -> None:
    """A server that sees the client go does not wait for the step that is on its way."""
    body = Waiting()
    request_id, stream = streamed(body)
    stepping = threading.Thread(target=Context().run, args=(next, stream))
    stepping.start()
    assert body.inside.wait(SECONDS)
    Context().run(stream.close)
    stepping.join(SECONDS)
    assert ids(lines, "closed") == ids(lines, "step") == [request_id]


def test_streams_of_one_request_run_side_by_side(lines: list[Line]) -> None:
    """Also one within another: each has a copy of the context for itself."""
    with scope("order") as order:
        below = wrap_stream(count(2))
        above = wrap_stream(number for number in below)
        beside = wrap_stream(count(2))
    assert list(zip(above, beside, strict=True)) == [(0, 0), (1, 1)]
    assert ids(lines, "step") == [order.request_id] * 4

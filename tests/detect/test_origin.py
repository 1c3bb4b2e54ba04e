"""`origin` says where work came from, and keeps nothing of it alive."""

import gc
import sys
import weakref
from contextvars import copy_context

import asok_trace
from asok_trace.core.callsite import relative
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect.origin import SPAWNED, Origin, origin


def asked_here() -> Origin | None:
    return origin(sys._getframe())


def test_there_is_none_outside_a_request() -> None:
    """Nobody's work came from nowhere."""
    assert asked_here() is None
    assert SPAWNED.get() is None


def test_it_names_the_line_and_the_request() -> None:
    """File, line, function, method and path, request id; a unit of work by its name."""
    line = asked_here.__code__.co_firstlineno + 1
    place = f"{relative(__file__)}:{line} asked_here"
    ACTIVE.set(Scope("an-id", "http", method="GET", path="/cart"))
    assert str(asked_here()) == f"{place} during GET /cart (an-id)"
    with asok_trace.scope("nightly") as scope:
        assert str(asked_here()) == f"{place} during nightly ({scope.request_id})"


def test_it_names_a_request_that_has_ended() -> None:
    """Work that outlives its request still came from it."""
    scope = Scope("an-id", "http", method="GET", path="/cart")
    ACTIVE.set(scope)
    scope.close()
    found = asked_here()
    assert found is not None
    assert found.request_id == "an-id"


def test_it_names_the_line_of_the_program() -> None:
    """Not the library's that it went through."""
    library = {"__name__": "driver", "ask": lambda: origin(sys._getframe(1))}
    exec(compile("def go(): return ask()", "/env/site-packages/driver.py", "exec"), library)
    with asok_trace.scope("nightly"):
        found = library["go"]()  # type: ignore[operator]
    assert found.callsite.code is test_it_names_the_line_of_the_program.__code__


def test_it_keeps_nothing_alive() -> None:
    """Neither the scope, nor the frame with its variables."""

    class Held:
        pass

    def request() -> tuple[Origin | None, "weakref.ref[Held]", "weakref.ref[Scope]"]:
        held = Held()
        with asok_trace.scope("nightly") as scope:
            return origin(sys._getframe()), weakref.ref(held), weakref.ref(scope)

    found, held, scope = copy_context().run(request)
    gc.collect()
    assert found is not None
    assert (held(), scope()) == (None, None)

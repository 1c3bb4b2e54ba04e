"""`fork` makes a child of a scope: the same request, a lifetime of its own, and text only."""

import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asok_trace.core.errors import ConfigError
from asok_trace.core.fork import fork
from asok_trace.core.scope import UNKNOWN, Fields, Scope


def request(**facts: Any) -> Scope:
    """The scope of a request, with everything known about it."""
    scope = Scope("an-id", "http", method="GET", path="/cart", ip="10.0.0.1", **facts)
    scope._route = "/cart"
    scope.set_user(7)
    scope.bind({"tenant": "x"})
    return scope


def test_it_says_what_the_request_said_and_its_own_name() -> None:
    """Id, ip, user, path, bound facts; ``task``, and what is bound in the fork alone."""
    scope = request()
    forked = fork(scope, "task", "charge", attempt=2)
    assert forked.fields == {**scope.fields, "task": "charge", "attempt": "2"}
    assert (forked.kind, forked.name, forked.open) == ("task", "charge", True)
    assert (forked.method, forked.path, forked.route) == ("GET", "/cart", "/cart")
    assert forked.user == "7"
    assert "attempt" not in scope.fields


def test_each_has_a_lifetime_of_its_own() -> None:
    """Closing one leaves the other open; a closed one can be forked."""
    scope = request()
    first = fork(scope, "task", "charge")
    scope.close()
    assert first.open
    second = fork(scope, "task", "charge")
    first.close()
    assert second.open
    assert second.fields["request_id"] == "an-id"


def test_what_is_bound_later_stays_where_it_is_bound() -> None:
    """Neither the request's facts reach the fork, nor the fork's the request."""
    scope = request()
    forked = fork(scope, "task", "charge")
    scope.bind({"later": 1})
    forked.bind({"own": 2})
    assert "later" not in forked.fields
    assert "own" not in scope.fields


@pytest.mark.parametrize(("user", "said"), [(UNKNOWN, {}), (None, {"user": None})])
def test_an_unknown_user_is_not_nobody(user: object, said: Fields) -> None:
    """The user is absent while unknown, and null when it is known to be nobody."""
    scope = Scope("an-id", "http")
    scope.set_user(user)
    assert fork(scope, "task", "t").fields == {"request_id": "an-id", "task": "t", **said}


def test_it_is_brought_up_to_date_first() -> None:
    """A user who has just logged in is known to the fork."""

    def live(scope: Scope) -> Fields:
        scope.set_user(5)
        return scope._fields

    assert fork(Scope("an-id", "http", live=live), "task", "t").user == "5"


def test_the_request_can_be_freed() -> None:
    """The fork keeps neither the scope nor what the scope holds of the request."""

    class Request:
        pass

    held = Request()
    scope = request(live=lambda scope, held=held: scope._fields)
    scope._own = held
    forked = fork(scope, "task", "charge")
    freed = weakref.ref(held), weakref.ref(scope)
    del held, scope
    gc.collect()
    assert [one() for one in freed] == [None, None]
    assert forked.fields["path"] == "/cart"


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_a_fork_of_a_fork_says_the_same(user: str, fact: str, name: str) -> None:
    """Whatever text it is: cleaning and cutting it again changes nothing."""
    scope = Scope("an-id", "http")
    scope.set_user(user)
    scope.bind({"fact": fact})
    once = fork(scope, "task", name)
    twice = fork(once, "task", once.name or "")
    assert once.fields == twice.fields == {**scope.fields, "task": once.name}


def test_a_reserved_name() -> None:
    """It cannot be bound in a fork either."""
    with pytest.raises(ConfigError, match="request_id"):
        fork(request(), "task", "t", request_id="other")

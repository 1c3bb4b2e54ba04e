"""A scope says what its lines are stamped with, and lets go of everything when it closes."""

import copy
import os
import threading

import pytest

from asok_trace import ConfigError, Scope
from asok_trace.core import scope as scopes
from asok_trace.core.scope import UNCHANGED, UNKNOWN


def a_scope(**kwargs: object) -> Scope:
    return Scope("id1", "http", method="GET", path="/p", ip="1.2.3.4", **kwargs)  # type: ignore[arg-type]


def test_what_is_unknown_is_absent() -> None:
    """An unknown user has no key; nobody is null; a known one is text."""
    scope = a_scope()
    assert scope.fields == {"request_id": "id1", "ip": "1.2.3.4", "path": "/p"}
    scope.set_user(None)
    assert scope.fields["user"] is None
    assert scope.user is None
    scope.set_user(7)
    assert scope.fields["user"] == "7"
    assert scope.user == "7"
    assert list(scope.fields) == ["request_id", "ip", "user", "path"]


def test_a_user_who_becomes_unknown_has_logged_out() -> None:
    """After a known user, or a known nobody, unknown means nobody."""
    scope = a_scope()
    scope.set_user(UNKNOWN)
    assert "user" not in scope.fields
    scope.set_user(7)
    scope.set_user(UNKNOWN)
    assert scope.fields["user"] is None
    scope.set_user(UNKNOWN)
    assert scope.fields["user"] is None


def test_unchanged_leaves_the_user_be() -> None:
    """The answer of a resolver that was asked by its own line changes nothing."""
    scope = a_scope()
    scope.set_user(7)
    scope.set_user(UNCHANGED)
    assert scope.user == "7"


def test_fields_are_rebuilt_when_a_fact_changes_only() -> None:
    """The same user again keeps the very same dict; another user makes another."""
    scope = a_scope()
    scope.set_user(1000)
    before = scope.fresh()
    scope.set_user(int("1000"))
    assert scope.fresh() is before
    scope.set_user(1001)
    assert scope.fresh() is not before


def test_bound_facts_win_and_are_cleaned() -> None:
    """bind() overrides what the framework says; values are text of one line; None stays."""
    scope = a_scope()
    scope.set_user(7)
    scope.bind({"tenant": 12, "user": "x\ny", "plan": None})
    assert scope.fields["tenant"] == "12"
    assert scope.fields["user"] == r"x\ny"
    assert scope.fields["plan"] is None
    scope.set_user(8)
    assert scope.fields["user"] == r"x\ny"


@pytest.mark.parametrize("name", ["request_id", "trace_id", "span_id"])
def test_ids_cannot_be_overridden(name: str) -> None:
    """The id in the log is the id in the header and in the trace: binding another is refused,
    with the value, the reason and the remedy."""
    with pytest.raises(ConfigError, match=f"{name}='other' cannot be bound.*another name"):
        a_scope().bind({name: "other"})


def test_closing_lets_the_request_go() -> None:
    """A closed scope holds text only, so whoever keeps it keeps no request alive."""
    scope = a_scope(live=lambda scope: {})
    scope._own = object()
    scope.close()
    assert not scope.open
    assert scope._own is None
    assert scope._live is None
    assert scope.fields["request_id"] == "id1"


def test_public_attributes_are_read_only() -> None:
    """Facts are changed by bind() and by the framework, not by assignment."""
    scope = a_scope()
    for name in ("request_id", "kind", "name", "method", "path", "route", "ip", "status", "open"):
        with pytest.raises(AttributeError):
            setattr(scope, name, "x")
    with pytest.raises(TypeError):
        scope.fields["x"] = "y"  # type: ignore[index]
    assert (scope.kind, scope.name, scope.route, scope.status) == ("http", None, None, None)
    assert (scope.method, scope.path, scope.ip, scope.request_id) == ("GET", "/p", "1.2.3.4", "id1")


def test_a_copied_scope_is_the_same_scope() -> None:
    """Servers' middlewares deep-copy the mapping it rides in."""
    scope = a_scope()
    assert copy.copy(scope) is scope
    assert copy.deepcopy({"scope": scope})["scope"] is scope


def test_a_scope_says_what_it_is() -> None:
    """repr() names the kind, the work, the id and whether it is open."""
    scope = a_scope()
    assert repr(scope) == "<Scope http GET /p id1 open>"
    scope.close()
    assert repr(scope) == "<Scope http GET /p id1 closed>"
    assert repr(Scope("id2", "job", name="nightly")) == "<Scope job nightly id2 open>"
    assert repr(UNKNOWN) == "UNKNOWN"


def test_facts_bound_by_many_threads_at_once_are_all_kept() -> None:
    """No update is lost between reading the facts and writing them."""
    scope = a_scope()
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for step in range(50):
            scope.bind({f"fact_{number}_{step}": step})
            scope.set_user(number * 1000 + step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(key.startswith("fact_") for key in scope.fields) == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_a_fact_changes_does_not_block_the_child() -> None:
    """The child gets a lock of its own, whoever held the parent's."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with scopes._changing:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        a_scope().bind({"in": "child"})
        os._exit(7)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 7

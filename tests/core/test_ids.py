"""A request id is either harmless or replaced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asok_trace.core import ids


@given(st.from_regex(r"\A[A-Za-z0-9._-]{1,128}\Z"))
def test_good_ids_are_accepted(value: str) -> None:
    """Letters, digits, dot, underscore and hyphen, 1 to 128 of them, are kept as they are."""
    assert ids.accept(value) == value


@pytest.mark.parametrize(
    "value", [None, "", "x" * 129, "a b", "a\n", "a\r\nSet-Cookie: x", "é", "a,b", "<b>", "a/b"]
)
def test_bad_ids_are_refused(value: str | None) -> None:
    """Everything else is not: it would be echoed in a header and in every line."""
    assert ids.accept(value) is None


def test_made_ids_are_trace_ids() -> None:
    """32 lower-case hexadecimal digits, acceptable to ourselves, and never the same twice."""
    made = {ids.make() for _ in range(100)}
    assert len(made) == 100
    for value in made:
        assert ids.accept(value) == value
        assert len(value) == 32
        assert int(value, 16) >= 0

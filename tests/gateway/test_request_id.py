"""A request id from outside is used if it is safe to print and to echo, else replaced; the
response carries ours, once. needs: asok"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asok_trace
from asok_trace.core import errors
from tests.gateway.sites import HEADER, Line, Reply, Site, canonical, say

Call = Callable[..., Reply]

MADE = re.compile(r"[0-9a-f]{32}")

SAFE = ["a", "A-b_c.9", "0" * 128, "-", "..", "01890a5d-ac96-774b-bcce-b302099a8057"]
UNSAFE = [
    "",
    " ",
    "0" * 129,
    "0" * 100_000,
    "a b",
    "a\n",
    "a\r\nSet-Cookie: admin=1",
    "a\x00",
    "a\x85b",
    "\x1b[31m",
    "é",
    "a,b",
    "a;b",
    "%0d%0a",
    "<script>",
    "../etc",
    "\xe2\x80\xae",  # a bidirectional override, as a server hands it over
]


@pytest.mark.parametrize("given_id", SAFE)
def test_a_safe_id_is_used(site: Site, call: Call, lines: list[Line], given_id: str) -> None:
    """It is in the response and on every line."""
    asok_trace.instrument(site.app)
    site.views["x"] = lambda request: say("inside") or "x"
    assert call(site.app, "/x", headers=[(HEADER, given_id)]).ids == [given_id]
    assert {line["request_id"] for line in lines} == {given_id}
    assert len(lines) == 2


@pytest.mark.parametrize("given_id", UNSAFE)
def test_an_unsafe_id_is_replaced(site: Site, call: Call, lines: list[Line], given_id: str) -> None:
    """Nothing of it reaches the response or a line."""
    asok_trace.instrument(site.app)
    reply = call(site.app, headers=[(HEADER, given_id)])
    [made] = reply.ids
    assert MADE.fullmatch(made)
    assert canonical(lines)["request_id"] == made


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.text(st.characters(max_codepoint=255), max_size=140))
def test_whatever_comes_the_answer_is_one_safe_id(site: Site, call: Call, value: str) -> None:
    """For any header value: one header, of safe characters, and nothing of ours has failed."""
    asok_trace.instrument(site.app)
    [answered] = call(site.app, headers=[(HEADER, value)]).ids
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answered)
    assert answered == value or MADE.fullmatch(answered)
    assert all(piece.working for piece in errors.PIECES)


def test_a_doubled_header_is_replaced(site: Site, call: Call, lines: list[Line]) -> None:
    """Two ids, whoever added the second: neither is believed."""
    asok_trace.instrument(site.app)
    [made] = call(site.app, headers=[(HEADER, "one"), (HEADER.lower(), "two")]).ids
    assert MADE.fullmatch(made)
    assert canonical(lines)["request_id"] == made


def test_ids_differ(site: Site, call: Call) -> None:
    """Each request without an id gets its own."""
    asok_trace.instrument(site.app)
    assert len({call(site.app).ids[0] for _ in range(20)}) == 20


def test_ids_from_outside_can_be_refused(site: Site, call: Call, lines: list[Line]) -> None:
    """``trust_incoming=False``: even a safe id is replaced."""
    asok_trace.instrument(site.app, trust_incoming=False)
    [made] = call(site.app, headers=[(HEADER, "spoofed")]).ids
    assert MADE.fullmatch(made)
    assert canonical(lines)["request_id"] == made


def test_another_header(site: Site, call: Call, lines: list[Line]) -> None:
    """``request_id_header`` is read and set instead; X-Request-ID is none of our business."""
    asok_trace.instrument(site.app, request_id_header="X-Correlation-ID")
    site.views["x"] = lambda request: request.response_headers.append((HEADER, "theirs")) or "x"
    reply = call(site.app, "/x", headers=[("x-correlation-id", "abc"), (HEADER, "other")])
    assert reply.all("X-Correlation-ID") == ["abc"]
    assert reply.ids == ["theirs"]
    assert canonical(lines)["request_id"] == "abc"


@pytest.mark.parametrize("name", [HEADER, HEADER.lower(), HEADER.upper(), "x-ReQuEsT-iD"])
def test_the_views_own_header_is_replaced(site: Site, call: Call, name: str) -> None:
    """Set by the view, once or twice, in any case of letters: the client gets ours, once, and
    everything else that the view has set."""
    asok_trace.instrument(site.app)

    @site.view
    def own(request: Any) -> str:
        request.response_headers += [(name, "theirs"), ("X-Other", "kept"), (name, "again")]
        return "own"

    reply = call(site.app, "/own", headers=[(HEADER, "ours")])
    assert reply.ids == ["ours"]
    assert reply.all("X-Other") == ["kept"]


def test_the_canonical_line_comes_after_the_end(site: Site, call: Call) -> None:
    """The scope is closed when its own line is logged: nothing can be bound to it any more."""
    seen: list[Any] = []

    def look(_logger: Any, _name: str, event: Any) -> Any:
        if event["event"] == "request":
            asok_trace.bind(late="bound")
            seen.append((asok_trace.current(), event))
        raise structlog.DropEvent

    structlog.configure(processors=[look])
    asok_trace.instrument(site.app)
    call(site.app)
    [(current, event)] = seen
    assert current is None
    assert "late" not in event


def test_a_stream_carries_it_too(site: Site, call: Call) -> None:
    """A generator body's response has the header, once."""
    asok_trace.instrument(site.app)

    @site.view
    def stream(request: Any) -> Any:
        request.response_headers.append(("x-request-id", "theirs"))
        return (chunk for chunk in ["a", "b"])

    reply = call(site.app, "/stream", headers=[(HEADER, "ours")])
    assert reply.ids == ["ours"]
    assert reply.body.startswith(b"ab")

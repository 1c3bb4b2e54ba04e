"""X-Request-ID is on every response, once, of every kind and from every server.

needs: asok, flask, flask_login, quart, quart_auth
"""

import re

import pytest

from tests.contract.kinds import Kind
from tests.contract.parameters import every_kind, everywhere, over_sockets, where
from tests.contract.site import Site

MADE = re.compile(r"[0-9a-f]{32}")

seen: set[str] = set()


@every_kind()
def test_every_kind_of_response_has_one_new_id(site: Site, kind: Kind) -> None:
    """The header is there exactly once, with an id that no other response has had. Where the
    framework cannot give the response under this interface, it is on what it gives instead."""
    reply = site.exchange(*kind.asked, **kind.request).reply
    answer = site.answers(kind)
    assert reply.status == answer.status
    if answer.by_server:
        assert not reply.ids
        return
    assert MADE.fullmatch(reply.id)
    assert reply.id not in seen
    seen.add(reply.id)


@where(of="asok")
def test_a_generated_page_has_an_id_whether_written_or_read(site: Site) -> None:
    """A page that is written once and then served from its file: each response has its own."""
    path = "/generated/header"
    first = site.exchange("GET", path).reply
    second = site.exchange("GET", path).reply
    assert first.status == second.status == 200
    assert first.id != second.id


@everywhere
@pytest.mark.parametrize("given", ["order-66", "a" * 128, "A.b_c-9"])
def test_an_accepted_id_is_echoed(site: Site, given: str) -> None:
    """The caller's id is the request's: in the header and in every line."""
    reply, lines = site.exchange("GET", "/", headers={"X-Request-ID": given})
    assert reply.id == given
    assert {line.get("request_id") for line in lines if "request_id" in line} == {given}


@everywhere
@pytest.mark.parametrize(
    "given", ["two words", "a" * 129, "<script>", "{}", "a,b", "\N{POUND SIGN}1"], ids=range(6)
)
def test_a_bad_id_is_replaced(site: Site, given: str) -> None:
    """Nothing of what a stranger made up is in the header or in any line."""
    reply, lines = site.exchange("GET", "/", headers={"X-Request-ID": given})
    assert MADE.fullmatch(reply.id)
    assert {line.get("request_id") for line in lines if "request_id" in line} == {reply.id}


@over_sockets
def test_two_incoming_ids_are_none(site: Site) -> None:
    """Of two headers neither is believed; the response still has one."""
    both = [("X-Request-ID", "one"), ("X-Request-ID", "two")]
    reply = site.exchange("GET", "/", headers=both).reply
    assert MADE.fullmatch(reply.id)

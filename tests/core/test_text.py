"""Whatever comes from the network is printed as one line, bounded, without control characters."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from asok_trace.core import text


@given(st.text(), st.integers(min_value=1, max_value=60))
def test_clean_text_is_one_printable_bounded_line(value: str, limit: int) -> None:
    """Any text, lone surrogates included, comes out printable and within its limit."""
    cleaned = text.clean(value, limit)
    assert cleaned.isprintable()
    assert len(cleaned) <= limit
    assert len(cleaned.splitlines()) <= 1
    cleaned.encode("utf-8")


def test_plain_text_is_returned_as_it_is() -> None:
    """Text without control characters is the same object: nothing is paid for it."""
    value = "/user/7/café"
    assert text.clean(value, 100) is value


def test_control_characters_become_escapes() -> None:
    """CR, LF, escape, separators, bidirectional overrides and surrogates can be read, not act."""
    assert text.clean("a\r\nb", 100) == r"a\r\nb"
    assert text.clean("\x1b[31m", 100) == r"\x1b[31m"
    assert text.clean("\u2028\u202e\udc80", 100) == r"\u2028\u202e\udc80"


def test_a_cut_shows() -> None:
    """Text that was cut ends in an ellipsis, also when only its escapes are too long."""
    assert text.clean("x" * 11, 10) == "x" * 9 + "…"
    assert text.clean("\n" * 10, 10) == r"\n\n\n\n\…"


def test_other_values_become_text() -> None:
    """A primary key may be a number or a UUID; its text is what is printed."""
    assert text.clean(7, 10) == "7"

    class Key(str):
        __slots__ = ()

    assert type(text.clean(Key("k"), 10)) is str


def test_wsgi_paths_are_read_as_utf8() -> None:
    """PEP 3333 hands bytes over as latin-1; what the client meant is UTF-8."""
    assert text.wsgi_path("/café".encode().decode("latin-1")) == "/café"
    assert text.wsgi_path("/\xff") == r"/\xff"
    assert text.wsgi_path("/plain") == "/plain"
    assert text.wsgi_path("/日本") == "/日本"  # a test client that passed real text


@given(st.ip_addresses())
def test_addresses_pass(value: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Every IPv4 and IPv6 address passes as it is written."""
    assert text.address(str(value)) == str(value)


@given(st.text())
def test_only_addresses_pass(value: str) -> None:
    """Nothing passes that the standard library does not take for an address."""
    found = text.address(value)
    if found is not None:
        ipaddress.ip_address(found)


def test_what_is_no_address_is_none() -> None:
    """Ports, names, markup, long text and NUL are refused; a zone is dropped."""
    for value in (
        "",
        "1.2.3.4:80",
        "localhost",
        "<script>",
        "1.2.3",
        "1" * 65,
        "1.2.3.4\0",
        "1.2.3.4%x",
    ):
        assert text.address(value) is None
    assert text.address("fe80::1%eth0") == "fe80::1"
    assert text.address("fe80::1%<script>") == "fe80::1"

"""Text from the network, made fit to print: one line, bounded, no control characters."""

import socket
from functools import lru_cache

PATH_LIMIT = 1024
USER_LIMIT = 256
IP_LIMIT = 64
METHOD_LIMIT = 32
NAME_LIMIT = 256
VALUE_LIMIT = 1024
"""Longest text of a bound fact, in characters."""


def clean(value: object, limit: int) -> str:
    """Return ``value`` as text of one line and at most ``limit`` characters.

    Characters that are not printable (control characters, line and paragraph separators,
    bidirectional overrides, lone surrogates) become their Python escape, as in ``\\n``. Text
    that was cut ends in an ellipsis. Text without such characters is returned as it is.
    """
    text = value if type(value) is str else str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean_lines(value: object, limit: int) -> str:
    """Like `clean`, for text of many lines: their breaks stay."""
    text = value if type(value) is str else str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return (
        text if text.isprintable() else "\n".join(clean(line, limit) for line in text.splitlines())
    )


def wsgi_path(path: str) -> str:
    """Return a WSGI ``PATH_INFO`` as the text the client meant.

    PEP 3333 hands bytes over as latin-1; paths are UTF-8 in practice. Bytes that are not are
    shown as escapes.
    """
    if path.isascii():
        return path
    try:
        return path.encode("latin-1").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return path  # a test client that passed real text


def address(text: str) -> str | None:
    """Return ``text`` if it is an IPv4 or IPv6 address, else None.

    The zone of an IPv6 address (``fe80::1%eth0``) is dropped because anything may stand in it.
    Costs 0.1 microseconds for an address seen lately.
    """
    # Before the cache: strangers must not fill it with long text.
    return _address(text) if len(text) <= IP_LIMIT else None


@lru_cache(maxsize=1024)
def _address(text: str) -> str | None:
    if ":" in text:
        family, bare = socket.AF_INET6, text.partition("%")[0]
    else:
        family, bare = socket.AF_INET, text
    try:
        socket.inet_pton(family, bare)
    except (OSError, ValueError):
        return None
    return bare

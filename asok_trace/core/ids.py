"""Accept a request id from outside, or make one."""

import os
import re

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}")


def accept(value: str | None) -> str | None:
    """Return ``value`` if it may be used as a request id, else None.

    Only ``[A-Za-z0-9._-]{1,128}`` passes: it is echoed in a header and printed in every log
    line, so nothing that could end either is let in.
    """
    if value is not None and _ACCEPTED.fullmatch(value):
        return value
    return None


def make() -> str:
    """Return 32 random lower-case hexadecimal digits: the shape of a W3C trace id.

    From the operating system's generator, because ids are shown to strangers and must not
    tell the next one.
    """
    return os.urandom(16).hex()

"""Where a new finding goes: to the log, once, and to whoever has asked for it."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from asok_trace.core import names, records
from asok_trace.core.errors import Piece
from asok_trace.core.finding import INFORMATIVE, Finding
from asok_trace.core.hooks import Handle
from asok_trace.core.scope import ACTIVE

LOGGED: Final = 100
"""Places of one kind that are logged; further ones are in `findings()` only."""

telling: Final = Piece("telling what was found", then="the next finding is tried again")

_listeners: list[Callable[[Finding], object]] = []


class _Here(threading.local):
    telling = False


_here: Final = _Here()


def is_telling() -> bool:
    """Whether this thread is just telling a finding: what is logged for it is not looked at."""
    return _here.telling


def tell(finding: Finding, rank: int) -> None:
    """Log ``finding``, and call who has asked for it. Never raises an Exception.

    Args:
        rank: which place of its kind it is, from 1 on.
    """
    before, _here.telling = _here.telling, True
    try:
        _log_and_call(finding, rank)
    finally:
        _here.telling = before


def _log_and_call(finding: Finding, rank: int) -> None:
    if rank <= LOGGED:
        level = logging.INFO if finding.slug in INFORMATIVE else logging.WARNING
        try:
            text = str(finding)
            if rank == LOGGED:
                text += (
                    f"\n  This was the {LOGGED}th place of its kind: "
                    f"see asok_trace.findings() for the others."
                )
            records.log(names.LOGGER, level, "%s", (text,), _facts(finding))
        except Exception as error:
            telling.failed(error)
    for listener in list(_listeners):
        try:
            listener(finding)
        except Exception as error:
            _listeners[:] = [other for other in _listeners if other is not listener]
            Piece(f"the on_finding callback {listener!r}", then="it is not called again").failed(
                error
            )


def _facts(finding: Finding) -> dict[str, str]:
    """The log fields of the line that tells ``finding``."""
    facts = {
        names.FINDING: finding.slug,
        names.FINDING_KEY: finding.key,
        names.FINDING_CALLSITE: finding.callsite,
    }
    # Told within a request it is that one's line. Else it is found by the request it came from.
    if finding.request_id is not None and ACTIVE.get() is None:
        facts[names.REQUEST_ID] = finding.request_id
    return facts


def on_finding(callback: Callable[[Finding], object]) -> Handle:
    """Have ``callback`` called with each new `Finding`, once per kind and place, in the thread in
    which it was found. One that raises is reported and not called again.

    Returns:
        A handle; ``handle.undo()`` takes the callback out.
    """
    _listeners.append(callback)

    def undo() -> None:
        if callback in _listeners:
            _listeners.remove(callback)

    return Handle(undo)

"""Our exceptions, and the one place where our own faults are swallowed.

An observer must not break what it observes. Each part of ours that runs inside somebody's
request is a `Piece`: when it fails, it is reported once, switched off, and the request goes
on as if we were not there.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

from asok_trace.core import names


class ConfigError(ValueError):
    """A setting, or an object given to us at set-up, that cannot be used.

    Raised at set-up only (`instrument`, the first touch of a public name), never while a
    request is served. Its text says the value, the reason and the remedy.
    """


class OrphanWarning(UserWarning):
    """A line, span or access outside any request, that belonged to one."""


class LeakWarning(UserWarning):
    """A request's context that outlived it, or was left behind."""


class Piece:
    """One part of ours that may fail without the host noticing.

    ``working`` turns False at the first fault. The owner asks it before it does its work and
    calls `failed` from its ``except Exception``; one that can go on does not ask, and says in
    ``then`` what it does instead.
    """

    __slots__ = ("name", "then", "working")

    def __init__(self, name: str, then: str = "it is off until the process restarts") -> None:
        self.name = name
        self.then = then
        self.working = True
        PIECES.append(self)

    def failed(self, error: Exception) -> None:
        """Report the fault once, with its traceback, and switch this piece off.

        An exhausted stack or heap is the state of the moment, not a fault of the piece, and so is
        an interpreter that is being taken down: it is swallowed, and the piece stays on.
        """
        if isinstance(error, (RecursionError, MemoryError)) or not self.working:
            return
        if sys.is_finalizing():
            return
        self.working = False
        # Logging can fail too (a handler of the host that raises); there is nobody to tell.
        try:
            logging.getLogger(names.LOGGER).error(
                "asok_trace: %s failed: %r. The request went on without it; %s. "
                "This is reported once.",
                self.name,
                error,
                self.then,
                exc_info=error,
            )
        except Exception:
            return


PIECES: list[Piece] = []
"""Every piece made in this process, for tests that break them and mend them again."""


def contained(piece: Piece, function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function(*args)`` as ``piece``: its result, or None if it failed or is off."""
    return attempted(piece, function, *args) if piece.working else None


def attempted(piece: Piece, function: Callable[..., Any], *args: Any) -> Any:
    """Like `contained`, but also when the piece has failed before: what was begun is ended."""
    try:
        return function(*args)
    except Exception as error:
        piece.failed(error)
        return None

"""Our own lines on the standard library's logging, with facts that a program can read."""

import logging
from collections.abc import Mapping


def log(
    name: str, level: int, message: str, args: tuple[object, ...], facts: Mapping[str, object]
) -> None:
    """Log ``message % args`` to the logger ``name``; its record has ``facts`` as attributes.

    Not by ``extra=``: that raises where a record factory of the host sets the same names. What a
    record has already is kept.
    """
    logger = logging.getLogger(name)
    if not logger.isEnabledFor(level):
        return
    record = logger.makeRecord(name, level, "", 0, message, args, None)
    for key, value in facts.items():
        if not hasattr(record, key):
            setattr(record, key, value)
    logger.handle(record)

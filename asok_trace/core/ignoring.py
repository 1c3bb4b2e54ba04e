"""What is found and meant to be so: it is not told."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from asok_trace.core import settings
from asok_trace.core.hooks import Handle


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    """What is not to be reported; patterns as of `fnmatch`."""

    key: str | None
    module: str | None
    thread: str | None

    def covers(self, key: str, thread: str) -> bool:
        module = key.partition(":")[2]
        return (
            (self.key is None or _matches(key, self.key))
            and (
                self.module is None
                or _matches(module, self.module)
                or _matches(module, f"{self.module}.*")
            )
            and (self.thread is None or _matches(thread, self.thread))
        )


def _matches(text: str, pattern: str) -> bool:
    # A bracket is one: routes have them, /user/[id].
    return fnmatchcase(text, pattern.replace("[", "[[]"))


_rules: list[_Rule] = []


def is_ignored(key: str, thread: str) -> bool:
    """Whether what has this key is not to be told, if it was found in ``thread``; by the settings
    and the rules of this moment."""
    if any(_matches(key, pattern) for pattern in settings.default().ignore):
        return True
    return any(rule.covers(key, thread) for rule in _rules)


def ignore(
    key: str | None = None, *, module: str | None = None, thread: str | None = None
) -> Handle:
    """Report nothing that all the given patterns match: a finding that is meant to be so.

    Args:
        key: the ``key`` of a finding, ``lost:billing.jobs.charge``; with ``*`` for any text.
        module: where it showed: ``billing``, with all below it.
        thread: the name of the thread: ``metrics-*``.

    Returns:
        A handle; ``handle.undo()`` takes the rule back.

    Raises:
        TypeError: nothing is given.
    """
    if key is None and module is None and thread is None:
        raise TypeError("ignore() without a key, module or thread would hide everything. Give one.")
    rule = _Rule(key, module, thread)
    _rules.append(rule)

    def undo() -> None:
        _rules[:] = [other for other in _rules if other is not rule]

    return Handle(undo)

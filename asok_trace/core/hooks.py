"""Replace an attribute, and give it back."""

from collections.abc import Callable
from typing import Any, Self

_ABSENT = object()


class Hook:
    """One attribute of somebody else's object, replaced by ours until `undo`.

    ``make`` gets the hook and returns the replacement, which must call ``hook.original`` and
    nothing else once ``hook.active`` is False: somebody may have wrapped it in the meantime,
    and then it cannot be taken out any more.
    """

    __slots__ = ("_before", "_replacement", "active", "name", "original", "owner")

    def __init__(self, owner: Any, name: str, make: "Callable[[Hook], Any]") -> None:
        self.owner = owner
        self.name = name
        self._before = vars(owner).get(name, _ABSENT)
        self.original = getattr(owner, name)
        self.active = True
        self._replacement = make(self)
        setattr(owner, name, self._replacement)

    def undo(self) -> None:
        """Restore the attribute; ours passes everything through if it is wrapped by now."""
        self.active = False
        if vars(self.owner).get(self.name) is self._replacement:
            if self._before is _ABSENT:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, self._before)


class Handle:
    """What was hooked up, and the way back. Also a context manager that undoes at its end.

    ``app`` is the application that was given, or None.
    """

    def __init__(self, undo: Callable[[], None], app: Any = None) -> None:
        self.app = app
        self._undo: Callable[[], None] | None = undo

    def undo(self) -> None:
        """Take everything back. Doing it twice does nothing; requests in flight end normally."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.undo()

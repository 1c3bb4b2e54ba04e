"""Bugs as data: what each must be found as, read from the source that has it.

A bug is a function that takes a `Stage`. Comments in it say what is expected, so that no line
number drifts: ``# FOUND HERE`` stands on the line that a finding names, ``# STARTED HERE`` on the
line that it names as the origin, ``# NAMED HERE`` on one that its message tells of. ``# FIXED:
code`` below a line is what stands there in the repaired twin; more such lines are more lines of it,
and one without code takes the line out.

To add one: write the smallest program that has it, as a function in the module of ``bugs`` that is
for its kind (a new module goes into `stage.MODULES`). Views are added by ``@stage.view`` and asked
for by ``stage.get`` or ``await stage.ask``; ``stage.wait`` waits for an event. Say by ``@bug(...)``
what must be found, mark the lines, and repair it by ``# FIXED:`` as the finding tells to, if it
can be done word by word. What looks like a bug and is none has the slug None.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from asok_trace.core.callsite import relative

_FIXED: Final = re.compile(r"^(\s*)# FIXED:(?: (.*))?$")


@dataclass(frozen=True)
class Bug:
    """One bug, and the one finding that it must yield; none if the slug is None."""

    play: Callable[..., Any]
    """Takes the `Stage`; a coroutine function runs in a loop of its own."""
    slug: str | None
    framework: str
    fix: str
    """A part of what the finding tells to write."""
    level: str
    mode: str
    of: str | None
    """The request that is named: ``GET /cart``."""
    found: str | None
    """The start of the callsite, where no comment can mark it."""
    origin: str | None
    """A part of the origin, where no comment can mark it."""
    alone: bool
    """Whether it is played in a process of its own."""
    spans: bool
    note: str
    """A part of the note on the error that it keeps as ``stage.error``; the origin is another."""
    says: str
    """A part of the message."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the process of its own that it is played in, with all others of these."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``late.keepalive_task``."""
        return f"{self.play.__module__.rpartition('.')[2]}.{self.play.__name__}"

    @property
    def place(self) -> str | None:
        """How the callsite begins: as it is marked in its source or, where ``found`` is a comment,
        anywhere in its module."""
        if self.found is None or not self.found.startswith("#"):
            return self.marked("FOUND HERE") or self.found
        path = self.play.__code__.co_filename
        lines = Path(path).read_text("utf-8").splitlines()
        [number] = [
            number for number, line in enumerate(lines, 1) if line.endswith(f"  {self.found}")
        ]
        return f"{relative(path)}:{number} "

    @property
    def has_twin(self) -> bool:
        """Whether its source says how it is repaired."""
        return "# FIXED:" in inspect.getsource(self.play)

    def marked(self, mark: str) -> str | None:
        """``file:line`` of the line in its source with ``# mark``; None if there is none."""
        lines, first = inspect.getsourcelines(self.play)
        found = [number for number, line in enumerate(lines, first) if f"# {mark}" in line]
        if not found:
            return None
        [number] = found
        return f"{relative(self.play.__code__.co_filename)}:{number} "


def bug(
    slug: str | None,
    framework: str = "flask",
    *,
    fix: str = "",
    level: str = "basic",
    mode: str = "off",
    of: str | None = None,
    found: str | None = None,
    origin: str | None = None,
    alone: bool = False,
    spans: bool = False,
    note: str = "",
    says: str = "",
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the function below a bug: the fields of a `Bug`, and the settings of `instrument`."""

    def declare(play: Callable[..., Any]) -> Callable[..., Any]:
        play.bug = Bug(  # type: ignore[attr-defined]
            *(play, slug, framework, fix, level, mode, of, found, origin, alone, spans, note, says),
            dict(environment or {}),
            settings,
        )
        return play

    return declare


def bugs(module: types.ModuleType) -> Iterator[Bug]:
    """All bugs that are declared in ``module``, in its order."""
    for thing in vars(module).values():
        declared = getattr(thing, "bug", None)
        if isinstance(declared, Bug):
            yield declared


def twin(bug: Bug) -> Bug:
    """The same bug, repaired."""
    path = bug.play.__code__.co_filename
    module = types.ModuleType(bug.play.__module__)
    module.__file__ = path
    source = "\n".join(_repaired(Path(path).read_text("utf-8").splitlines()))
    exec(compile(source, path, "exec"), module.__dict__)
    repaired: Bug = getattr(module, bug.play.__name__).bug
    return repaired


def _repaired(lines: list[str]) -> Iterator[str]:
    kept: list[str] = []
    in_fix = False
    for line in lines:
        fixed = _FIXED.match(line)
        if fixed is None:
            kept.append(line)
        else:
            if not in_fix:
                kept.pop()
            if fixed[2]:
                kept.append(fixed[1] + fixed[2])
        in_fix = fixed is not None
    return iter(kept)

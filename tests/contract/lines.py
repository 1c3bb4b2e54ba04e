"""The log that an application and its server write: one JSON object per line."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WAIT_SECONDS = 10.0

Line = dict[str, Any]
Condition = Callable[[Sequence[Line]], bool]


class Log:
    """A growing file of JSON lines, read from marks on.

    Args:
        path: the file.
        mixed: whether other text stands between the JSON lines; it is passed over.
    """

    def __init__(self, path: Path, *, mixed: bool = False) -> None:
        self.path = path
        self._mixed = mixed

    def mark(self) -> int:
        """The place that the next line will be written at."""
        return self.path.stat().st_size

    def since(self, mark: int) -> list[Line]:
        """The lines that are complete, from ``mark`` on."""
        with self.path.open("rb") as file:
            file.seek(mark)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1].decode("utf-8").splitlines()
        return [json.loads(line) for line in whole if not self._mixed or line.startswith("{")]

    def until(self, mark: int, condition: Condition) -> list[Line]:
        """Wait until the lines from ``mark`` on satisfy ``condition``, and return them."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition(lines := self.since(mark)):
            assert time.monotonic() < deadline, (
                "the lines that were waited for did not come; these did:\n"
                + "\n".join(map(str, lines))
            )
            time.sleep(0.002)
        return lines


def text(line: Line) -> str:
    """What the line says: the message of a logger, or structlog's event."""
    return str(line["message"] if "message" in line else line["event"])


def of_logger(lines: Sequence[Line], name: str) -> list[Line]:
    """The lines that went through the standard library's logger ``name``."""
    return [line for line in lines if line.get("name") == name]


def saying(lines: Sequence[Line], *texts: str) -> list[Line]:
    """The lines that say one of ``texts``."""
    return [line for line in lines if text(line) in texts]


def canonical(lines: Sequence[Line]) -> list[Line]:
    """The canonical lines: structlog's event ``request`` with a duration."""
    return [line for line in lines if line.get("event") == "request" and "duration_ms" in line]


def said_by_views(lines: Sequence[Line]) -> list[Line]:
    """The lines that the application's own pages logged, through structlog and logging."""
    return [line for line in lines if "by" in line]

"""The promises of the demo, held against the log: functions that answer with complaints.

What a client knows (the token it sent, the page it asked for, the id in the response's header)
is compared with what the server logged. Nothing here asks asok_trace.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Line = dict[str, Any]
"""One log line, parsed."""

CANONICAL = "request"
"""The event of the line that ends each request."""

ABSENT = "(absent)"


@dataclass(frozen=True)
class Page:
    """One stop of a tour: what is asked for, and what must come of it."""

    method: str
    path: str
    route: str | None
    status: int
    said: tuple[tuple[str, str | None], ...]
    """Event and user of each line that the page and its background job log."""
    user: str | None
    """Who is logged in when the response ends."""
    form: Mapping[str, str] = field(default_factory=dict)
    names_its_id: bool = False
    """Whether the body shows the request id."""


@dataclass(frozen=True)
class Visit:
    """One request as its client saw it. The token went along in the query string."""

    page: Page
    token: str
    status: int
    request_id: str | None
    body: str

    def __str__(self) -> str:
        return f"{self.token} {self.page.method} {self.page.path}"


def complaints(visits: Sequence[Visit], lines: Sequence[Line]) -> list[str]:
    """Return whatever is wrong, in words: an empty list if every promise is kept."""
    return [
        *_of_answers(visits),
        *_of_stamps(visits, lines),
        *_of_numbers(visits, lines),
        *_of_overlap(lines),
    ]


def overlapping(lines: Sequence[Line]) -> int:
    """Return how many requests have another's line between their first and their last."""
    first: dict[Any, int] = {}
    count = 0
    for index, line in enumerate(lines):
        start = first.setdefault(line.get("request_id"), index)
        if line.get("event") == CANONICAL:
            ids = {between.get("request_id") for between in lines[start:index]}
            count += bool(ids - {line.get("request_id")})
    return count


def _of_answers(visits: Sequence[Visit]) -> Iterator[str]:
    """Every response has the status it should have, and an id of its own."""
    for visit in visits:
        if visit.status != visit.page.status:
            yield f"{visit}: answered {visit.status}, not {visit.page.status}"
        if not visit.request_id:
            yield f"{visit}: no X-Request-ID in the response"
        elif visit.page.names_its_id and visit.request_id not in visit.body:
            yield f"{visit}: the page does not show its id {visit.request_id}"
    for request_id, times in Counter(visit.request_id for visit in visits).items():
        if request_id and times > 1:
            yield f"{request_id}: the id of {times} requests"


def _of_stamps(visits: Sequence[Visit], lines: Sequence[Line]) -> Iterator[str]:
    """Every line says of its request what the client of that request knows."""
    for line, visit in _owners(visits, lines):
        if visit is None:
            yield f"a line of no request: {line}"
            continue
        expected: Line = {
            "request_id": visit.request_id,
            "ip": "127.0.0.1",
            "path": visit.page.path,
        }
        if _is_canonical(line):
            expected["method"] = visit.page.method
            expected["route"] = ABSENT if visit.page.route is None else visit.page.route
            expected["status"] = visit.status
            expected["level"] = "error" if visit.status >= 500 else "info"
            duration = line.get("duration_ms", ABSENT)
            if not isinstance(duration, float) or duration < 0:
                yield f"{visit}: duration_ms is {duration!r}"
        for key, value in expected.items():
            found = line.get(key, ABSENT)
            if found != value:
                yield f"{visit}: {key} is {found!r}, not {value!r}, on {line.get('event')!r}"


def _of_numbers(visits: Sequence[Visit], lines: Sequence[Line]) -> Iterator[str]:
    """Every request has exactly the lines it should have, each by the user it should be by."""
    found = Counter(
        (visit.token, line.get("event"), line.get("user", ABSENT))
        for line, visit in _owners(visits, lines)
        if visit is not None
    )
    expected = Counter(
        (visit.token, event, user)
        for visit in visits
        for event, user in (*visit.page.said, (CANONICAL, visit.page.user))
    )
    names = {visit.token: str(visit) for visit in visits}
    for key in sorted(found.keys() | expected.keys(), key=str):
        if found[key] != expected[key]:
            token, event, user = key
            yield (
                f"{names[token]}: {event!r} by user {user!r} "
                f"logged {found[key]} times, not {expected[key]}"
            )
    if len(lines) != expected.total():
        yield f"{len(lines)} lines in all, not {expected.total()}"


def _of_overlap(lines: Sequence[Line]) -> Iterator[str]:
    """Requests one after the other would prove nothing."""
    if not overlapping(lines):
        yield "no request overlapped another"


def _owners(visits: Sequence[Visit], lines: Sequence[Line]) -> Iterator[tuple[Line, Visit | None]]:
    """Yield each line with the visit it belongs to.

    The token decides, which came from the client and not from us. The canonical line has none:
    there it is the id, in exchange for being counted.
    """
    by_token = {visit.token: visit for visit in visits}
    by_id = {visit.request_id: visit for visit in visits if visit.request_id}
    for line in lines:
        if _is_canonical(line):
            yield line, by_id.get(line.get("request_id"))
        else:
            yield line, by_token.get(line.get("token", ABSENT))


def _is_canonical(line: Line) -> bool:
    return line.get("event") == CANONICAL

"""The promises of the demos, held against the log: functions that answer with complaints.

What a client knows (the token it sent, the page it asked for, the id in the response's header or
in the answer to its message) is compared with what the server logged. Nothing here asks
asok_trace. `trees` does the same for the traces.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Line = dict[str, Any]
"""One log line, parsed."""

Said = tuple[tuple[str, str | None], ...]
"""Event and user of log lines; `ABSENT` where it cannot be known whether there is one."""

Spans = tuple[tuple[str, float], ...]
"""The steps of a trace below its root, as ``outer > inner``, each with the milliseconds it takes
at least."""

Tasks = Mapping[str, str]
"""Event of a log line -> the name of the work it is logged by, where that goes on after the
response: in the request's trace, or, if it begins too late for that, in one of its own."""

CANONICAL = "request"
"""The event of the line that ends each request."""

_ID = "(?!0{%d})[0-9a-f]{%d}"

ABSENT = "(absent)"
MISSING = "(an id of its own)"


@dataclass(frozen=True)
class Page:
    """One stop of a tour: what is asked for, and what must come of it."""

    method: str
    path: str
    route: str | None
    status: int
    said: Said
    """What the page and its background job log."""
    user: str | None
    """Who is logged in when the response ends."""
    form: Mapping[str, str] = field(default_factory=dict)
    spans: Spans = ()
    error: str | None = None
    """The class of the exception that the page fails with."""
    names_its_id: bool = False
    """Whether the body shows the request id."""
    likes: bool = False
    """Whether its visitor likes something meanwhile."""
    tasks: Tasks = field(default_factory=dict)


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

    @property
    def said(self) -> Said:
        """What the server must log of it."""
        return (*self.page.said, (CANONICAL, self.page.user))

    @property
    def tasks(self) -> Tasks:
        """Which of it is logged by work that goes on after the response."""
        return self.page.tasks


@dataclass(frozen=True)
class Message:
    """One message of a WebSocket connection, or one of its two ends, as its client saw it."""

    connection: str
    """The client's name for the connection."""
    kind: str
    """``connect``, ``message`` or ``disconnect``."""
    token: str
    """What the message said; at the ends, what the handshake's header said."""
    path: str
    route: str
    user: str | None
    events: tuple[str, ...]
    request_id: str | None
    """As the answer had it. Nobody answers when a connection ends."""
    spans: Spans = ()
    tasks: Tasks = field(default_factory=dict)
    connection_id: str | None = None
    """As the handshake's response had it; None if that is not known."""

    def __str__(self) -> str:
        return f"{self.token} {self.kind} {self.path}"

    @property
    def said(self) -> Said:
        """What the server must log of it."""
        return tuple((event, self.user) for event in self.events)


Work = Visit | Message


def complaints(
    visits: Sequence[Visit], messages: Sequence[Message], lines: Sequence[Line]
) -> list[str]:
    """Return whatever is wrong, in words: an empty list if every promise is kept."""
    work: list[Work] = [*visits, *identified(messages, lines)]
    return [
        *_of_answers(visits, messages),
        *_of_ids(work, lines),
        *_of_connections(work, lines),
        *_of_stamps(work, lines),
        *_of_numbers(work, lines),
        *_of_overlap(lines, messages),
    ]


def identified(messages: Sequence[Message], lines: Sequence[Line]) -> list[Message]:
    """Return ``messages``, the ends that nobody answers with the id that their line has."""
    logged = {(line.get("token"), line.get("event")): line.get("request_id") for line in lines}
    return [
        replace(message, request_id=logged.get((message.token, message.events[0])))
        if message.kind == "disconnect"
        else message
        for message in messages
    ]


def overlapping(lines: Sequence[Line]) -> int:
    """Return how many requests have another's line between their first and their last."""
    requests = [line for line in lines if not _is_of_a_message(line)]
    return sum(
        len({line.get("request_id") for line in requests[first:last]}) > 1
        for first, last in _extents(requests)
    )


def crossing(lines: Sequence[Line]) -> int:
    """Return how many messages have a line of another message between their own."""
    ids = [line.get("request_id") for line in lines if _is_of_a_message(line)]
    places: dict[Any, list[int]] = {}
    for index, request_id in enumerate(ids):
        places.setdefault(request_id, []).append(index)
    return sum(found[-1] - found[0] >= len(found) for found in places.values())


def meanwhile(lines: Sequence[Line]) -> int:
    """Return how many messages have a line between the first and the last of a request."""
    return len(
        {
            line.get("request_id")
            for first, last in _extents(lines)
            for line in lines[first:last]
            if _is_of_a_message(line)
        }
    )


def _of_answers(visits: Sequence[Visit], messages: Sequence[Message]) -> Iterator[str]:
    """Every response has the status it should have, and every response and answer an id."""
    for visit in visits:
        if visit.status != visit.page.status:
            yield f"{visit}: answered {visit.status}, not {visit.page.status}"
        if not visit.request_id:
            yield f"{visit}: no X-Request-ID in the response"
        elif visit.page.names_its_id and visit.request_id not in visit.body:
            yield f"{visit}: the page does not show its id {visit.request_id}"
    for message in messages:
        if not message.request_id and message.kind != "disconnect":
            yield f"{message}: no request_id in the answer"


def _of_ids(work: Sequence[Work], lines: Sequence[Line]) -> Iterator[str]:
    """Every request and every message has an id of its own."""
    holders: dict[str, set[str]] = {}
    for one in work:
        if one.request_id:
            holders.setdefault(one.request_id, set()).add(str(one))
    for line, owner in _owners(work, lines):
        if owner is not None and line.get("request_id"):
            holders.setdefault(line["request_id"], set()).add(str(owner))
    for request_id, names in holders.items():
        if len(names) > 1:
            yield f"{request_id}: the id of {' and of '.join(sorted(names))}"


def _of_connections(work: Sequence[Work], lines: Sequence[Line]) -> Iterator[str]:
    """Every connection has an id of its own, on each of its lines."""
    found: dict[str, Counter[str]] = {}
    for line, owner in _owners(work, lines):
        if isinstance(owner, Message):
            ids = found.setdefault(owner.connection, Counter())
            ids[str(line.get("connection_id") or ABSENT)] += 1
    for connection, ids in found.items():
        if len(ids) > 1 or ABSENT in ids:
            told = ", ".join(f"{name} {times} times" for name, times in sorted(ids.items()))
            yield f"{connection}: connection_id is {told}"
    for name, times in Counter(name for ids in found.values() for name in ids).items():
        if times > 1 and name != ABSENT:
            yield f"{name}: the connection_id of {times} connections"


def _of_stamps(work: Sequence[Work], lines: Sequence[Line]) -> Iterator[str]:
    """Every line says of its request what the client of that request knows."""
    for line, owner in _owners(work, lines):
        if owner is None:
            yield f"a line of no request: {line}"
            continue
        expected = _expected(owner, line)
        for key, value in expected.items():
            found = line.get(key, ABSENT)
            if found != value:
                yield f"{owner}: {key} is {found!r}, not {value!r}, on {line.get('event')!r}"
        for key, digits in (("trace_id", 32), ("span_id", 16)):
            found = line.get(key, ABSENT)
            if key not in expected and not re.fullmatch(_ID % (digits, digits), str(found)):
                yield f"{owner}: {key} is {found!r}, on {line.get('event')!r}"
        if _is_canonical(line):
            duration = line.get("duration_ms", ABSENT)
            if not isinstance(duration, float) or duration < 0:
                yield f"{owner}: duration_ms is {duration!r}"


def _expected(owner: Work, line: Line) -> Line:
    """The fields of a line that its client knows, but for the user, who may change."""
    request_id = owner.request_id or MISSING
    task = owner.tasks.get(line.get("event", ""), ABSENT)
    expected: Line = {"request_id": request_id, "ip": "127.0.0.1", "task": task}
    if task == ABSENT:
        # No request came with an id or a trace of its own, so the two are one.
        expected["trace_id"] = request_id
    if isinstance(owner, Message):
        if owner.connection_id is not None:
            expected["connection_id"] = owner.connection_id
        return {**expected, "path": owner.path}
    page = owner.page
    expected |= {"path": page.path, "connection_id": ABSENT}
    if _is_canonical(line):
        expected["method"] = page.method
        expected["route"] = ABSENT if page.route is None else page.route
        expected["status"] = owner.status
        expected["level"] = "error" if owner.status >= 500 else "info"
        expected["error"] = ABSENT if page.error is None else page.error
    return expected


def _of_numbers(work: Sequence[Work], lines: Sequence[Line]) -> Iterator[str]:
    """Everything has exactly the lines it should have, each by the user it should be by."""
    found: Counter[tuple[Any, ...]] = Counter(
        (str(owner), line.get("event"), line.get("user", ABSENT))
        for line, owner in _owners(work, lines)
        if owner is not None
    )
    expected: Counter[tuple[Any, ...]] = Counter(
        (str(one), event, user) for one in work for event, user in one.said
    )
    for key in sorted(found.keys() | expected.keys(), key=str):
        if found[key] != expected[key]:
            name, event, user = key
            yield (
                f"{name}: {event!r} by user {user!r} logged {found[key]} times, not {expected[key]}"
            )
    if len(lines) != expected.total():
        yield f"{len(lines)} lines in all, not {expected.total()}"


def _of_overlap(lines: Sequence[Line], messages: Sequence[Message]) -> Iterator[str]:
    """Requests one after the other would prove nothing."""
    if not overlapping(lines):
        yield "no request overlapped another"
    if messages and not meanwhile(lines):
        yield "no message was handled during a request"


def _extents(lines: Sequence[Line]) -> Iterator[tuple[int, int]]:
    """Yield where the first and the last line of each request stand, one past the latter."""
    first: dict[Any, int] = {}
    for index, line in enumerate(lines):
        start = first.setdefault(line.get("request_id"), index)
        if _is_canonical(line):
            yield start, index + 1


def _owners(work: Sequence[Work], lines: Sequence[Line]) -> Iterator[tuple[Line, Work | None]]:
    """Yield each line with the request or the message it belongs to.

    The token decides, which came from the client and not from us. Both ends of a connection have
    the same, and the event tells them apart. The canonical line has none: there it is the id, in
    exchange for being counted.
    """
    by_id: dict[Any, Work] = {}
    by_token: dict[Any, Work] = {}
    by_event: dict[Any, Work] = {}
    for one in work:
        if isinstance(one, Visit):
            by_token[one.token] = one
            if one.request_id:
                by_id[one.request_id] = one
        else:
            by_event.update(((one.token, event), one) for event in one.events)
    for line in lines:
        token, event = line.get("token", ABSENT), line.get("event")
        if _is_canonical(line):
            yield line, by_id.get(line.get("request_id"))
        else:
            yield line, by_token.get(token) or by_event.get((token, event))


def _is_canonical(line: Line) -> bool:
    return line.get("event") == CANONICAL


def _is_of_a_message(line: Line) -> bool:
    return "connection_id" in line

"""A day in the example shop on which all went well, to be spoiled."""

from itertools import chain

import check
import trees
from check import Line, Message, Page, Spans, Visit

SHOWN = (("counting stock", None), ("catalogue shown", None))
HOME = Page("GET", "/", "/", 200, SHOWN, None, spans=(("count stock", 5),))


def checkout(user: str) -> Page:
    said = (("order placed", user), ("mail sent", user))
    spans = (("place order", 5), ("place order > charge card", 0), ("send receipt", 25))
    return Page("POST", "/checkout", "/checkout", 200, said, user, spans=spans)


def broken(user: str) -> Page:
    said = (("about to fail", user),)
    return Page(
        *("GET", "/broken", "/broken", 500, said, user), error="RuntimeError", names_its_id=True
    )


def nowhere(user: str) -> Page:
    return Page("GET", "/nowhere", None, 404, (("nothing there", user),), user)


HEX = {"alice": "a11ce", "bob": "b0b00"}


def id_of(name: str, number: int) -> str:
    return f"{HEX[name]}{number:03}" * 4


def visit(name: str, number: int, page: Page) -> Visit:
    request_id = id_of(name, number)
    return Visit(page, f"{name}-{number}", page.status, request_id, f"number {request_id}")


def chat(name: str, user: str) -> list[Message]:
    """A connection: opened, used once, and closed."""
    connection = f"{name}-kettle"

    def message(kind: str, token: str, *events: str, request_id: str | None) -> Message:
        return Message(
            *(connection, kind, token, "/likes/kettle", "/likes/[product]", user),
            events=events,
            request_id=request_id,
            spans=(("count like", 5),) if kind == "message" else (),
        )

    return [
        message("connect", connection, "counter opened", request_id=id_of(name, 5)),
        message("message", f"{name}-like", "counting like", "liked", request_id=id_of(name, 6)),
        message("disconnect", connection, "counter closed", request_id=None),
    ]


def stamped(request_id: str | None, path: str) -> Line:
    ids = {"request_id": request_id, "trace_id": request_id, "span_id": "00f067aa0ba902b7"}
    return {**ids, "ip": "127.0.0.1", "path": path}


def logged(visit: Visit) -> list[Line]:
    """What a server logs of ``visit`` if all is well."""
    page = visit.page
    stamp = stamped(visit.request_id, page.path)
    said = [
        {**stamp, "user": user, "event": event, "token": visit.token, "level": "info"}
        for event, user in page.said
    ]
    end: Line = {**stamp, "user": page.user, "event": "request", "method": page.method}
    end |= {"status": page.status, "duration_ms": 1.5}
    end["level"] = "error" if page.status >= 500 else "info"
    if page.route is not None:
        end["route"] = page.route
    if page.error is not None:
        end["error"] = page.error
    return [*said, end]


def heard(message: Message, name: str) -> list[Line]:
    """What a server logs of ``message`` if all is well: its end has an id that no client saw."""
    stamp = stamped(message.request_id or id_of(name, 7), message.path)
    stamp["connection_id"] = f"connection of {name}"
    return [
        {**stamp, "user": user, "event": event, "token": message.token, "level": "info"}
        for event, user in message.said
    ]


def drawn(visit: Visit) -> str:
    """What `asok_trace.report()` draws of ``visit`` if all is well."""
    page = visit.page
    name = page.method if page.route is None else f"{page.method} {page.route}"
    error = "  ERROR" if page.status >= 500 else ""
    return tree(name, error, visit.request_id, page.path, page.user, page.spans)


def drawn_message(message: Message) -> str:
    name = f"websocket {message.kind} {message.route}"
    return tree(name, "", message.request_id, message.path, message.user, message.spans)


def tree(
    name: str, error: str, request_id: str | None, path: str, user: str | None, spans: Spans
) -> str:
    about = f"request.id={request_id}  url.path={path}" + (f"  user.id={user}" if user else "")
    lines = [f"{name}  75.0 ms{error}  {about}  trace {request_id}"]
    for span, at_least in spans:
        *above, last = span.split(" > ")
        lines.append(f"{'│  ' * len(above)}└─ {last}  {at_least + 0.5} ms")
    return "\n".join(lines)


class Day:
    """A day on which all went well, to be spoiled: two customers, the log of their visits and
    messages, and the trees of them."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.messages: list[Message] = []
        logs: list[list[Line]] = []
        for name, user in (("alice", "1"), ("bob", "2")):
            pages = (HOME, checkout(user), broken(user), nowhere(user))
            visits = [visit(name, number, page) for number, page in enumerate(pages)]
            messages = chat(name, user)
            self.visits += visits
            self.messages += messages
            logs.append([line for visit in visits for line in logged(visit)])
            # The messages come while the first page is made.
            logs[-1][1:1] = [line for message in messages for line in heard(message, name)]
        self.lines: list[Line] = list(chain.from_iterable(zip(*logs, strict=True)))
        self.report = "\n\n".join(
            [*map(drawn, self.visits), *map(drawn_message, self.identified())]
        )

    def line(self, name: str, event: str, path: str | None = None) -> Line:
        """Return the first line ``event`` of customer ``name``."""
        return next(
            line
            for line in self.lines
            if line["request_id"].startswith(HEX[name])
            and line["event"] == event
            and path in (None, line["path"])
        )

    def identified(self) -> list[Message]:
        return check.identified(self.messages, self.lines)

    def draw(self, old: str, new: str) -> None:
        """Replace ``old`` in the report."""
        assert old in self.report
        self.report = self.report.replace(old, new)

    def judged(self) -> str:
        return "\n".join(check.complaints(self.visits, self.messages, self.lines))

    def judged_trees(self) -> str:
        work = [*self.visits, *self.identified()]
        return "\n".join(trees.complaints(work, trees.parsed(self.report)))

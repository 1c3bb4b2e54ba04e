"""Serve the Quart chat to three people who talk at once, and check every line and every trace.

``make demo`` runs this. It serves a copy of the chat with hypercorn. Alice, bob and carol log in,
join two rooms each over WebSockets, all talk at once in both, and look at the history meanwhile.
Each request, each connection and each message has a token of its own, which the chat logs; so the
clients know which line is of what, and compare: the request id in the response, in the handshake's
response or in the message as everybody got it, the connection, the user, the path, and how many
lines that makes. That includes lines of threads and of background tasks. The traces, which the chat
leaves behind when it is stopped, are compared likewise. ``../checking`` does the comparing, and
never asks asok_trace.

It exits with 1 if a line, a trace or a delivered message was not as promised.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "checking"))

import check
import showing
from check import Line
from people import UNREACHABLE, Person
from serving import Served

FILES = ("app.py", "templates")
SERVER = ("hypercorn", "--bind", "{socket}", "--graceful-timeout", "3", "app:app")
NAMES = ("alice", "bob", "carol")
ROOMS = ("tea", "coffee")
ROUNDS = 3
SHOWN_TREES = ("websocket message", "index", "POST /login")


def main() -> int:
    """Run the demo; return its exit status."""
    started = time.monotonic()
    showing.stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="quart-chat-") as directory:
        chat = Served(Path(__file__).resolve().parent, Path(directory))
        chat.copy(FILES)
        try:
            with chat.serve(*SERVER, seconds=40) as port:
                people = asyncio.run(talking(f"127.0.0.1:{port}"))
                chat.await_lines("indexed", sum(len(one.messages) for one in people))
        except (*UNREACHABLE, subprocess.SubprocessError) as error:
            print(f"FAILED: the chat could not be joined: {error!r}\n\n{chat.errors()}")
            return 1
        # The server has ended: nothing more will come.
        lines, report = chat.lines(), chat.report()
    showing.show(lines, NAMES, "said", "Quart: three people talk at once.")
    visits = [visit for one in people for visit in one.visits]
    messages = [message for one in people for message in one.messages]
    wrong = [*undelivered(people), *apart(lines)]
    for complaint in wrong:
        print(f"FAILED: {complaint}")
    if not showing.in_order(visits, messages, lines, report, SHOWN_TREES) or wrong:
        return 1
    print(
        f"Quart: {len(visits)} requests, {len(messages)} WebSocket messages, {len(lines)} lines: "
        f"every line carries its own request or message, each has its tree. "
        f"({check.crossing(lines)} messages overlapped another, "
        f"{time.monotonic() - started:.1f} seconds)"
    )
    return 0


async def talking(address: str) -> list[Person]:
    """Let everybody come, talk and leave; return them with what they have seen.

    Raises:
        httpx.HTTPError, WebSocketException, OSError, TimeoutError: somebody was not answered.
    """
    people = [Person(name, address, ROOMS, others=len(NAMES) - 1) for name in NAMES]
    steps = [Person.arrive, Person.join, *[Person.talk] * ROUNDS, Person.leave]
    for step in steps:
        async with asyncio.timeout(20):
            await asyncio.gather(*(step(one) for one in people))
    return people


def undelivered(people: Sequence[Person]) -> Iterator[str]:
    """Everybody in a room got each message of it once, and the same."""
    said = sorted(
        (message.path, message.token, message.request_id)
        for one in people
        for message in one.messages
    )
    for one in people:
        if sorted(one.heard) != said:
            yield f"{one.name} heard {sorted(one.heard)}, not {said}"


def apart(lines: Sequence[Line]) -> Iterator[str]:
    """Messages one after the other would prove nothing."""
    if not check.crossing(lines):
        yield "no message overlapped another"


if __name__ == "__main__":
    sys.exit(main())

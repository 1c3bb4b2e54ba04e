"""A chat in rooms: an ordinary Quart application, and the two lines that stamp its log and spans.

``import asok_trace`` and ``asok_trace.setup(app)`` are all of it. Every line that a view, a thread
or a background task logs through structlog carries the request's id, the client's ip, the user and
the path, and the ids of its trace and span. A message that comes over a WebSocket is a piece of
work with an id of its own; its lines say which connection it came by: ``connection_id``, the
request id of the handshake. What a connection does besides, such as delivering what others say, is
logged under the connection's own id. No view knows of it, but for what is to go on when a message
is done: that has to be said (`asok_trace.wrap`).

``demo.py`` serves it to three people at once and checks every line; the tokens that are logged are
for it. To try it by hand::

    export SECRET_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')
    hypercorn app:app

and log in at http://localhost:8000/login as ``alice``; the password is ``alice's password``. Once
hypercorn is stopped, ``report.txt`` has the requests and the messages as trees.
"""

import asyncio
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from opentelemetry import trace
from quart import Quart, abort, redirect, render_template, request, session, websocket
from werkzeug.security import check_password_hash, generate_password_hash

import asok_trace

log = structlog.get_logger()
tracer = trace.get_tracer("chat")

app = Quart(__name__)
app.config.update(SECRET_KEY=os.environ["SECRET_KEY"], SESSION_COOKIE_SAMESITE="Lax")
asok_trace.setup(app)

PASSWORDS = {
    name: generate_password_hash(f"{name}'s password") for name in ("alice", "bob", "carol")
}


class Said(NamedTuple):
    by: str
    text: str
    message_id: str


history: defaultdict[str, list[Said]] = defaultdict(list)
members: defaultdict[str, set[asyncio.Queue[Said]]] = defaultdict(set)
words: set[str] = set()


@app.get("/login")
async def login_form() -> str:
    return await render_template("login.html")


@app.post("/login")
async def login() -> Any:
    """The user changes in the middle of this request, and so do its lines."""
    form, token = await request.form, request.args.get("token")
    log.info("login asked for", token=token)
    known = PASSWORDS.get(form["name"], "")
    if not await asyncio.to_thread(check_password_hash, known, form["password"]):
        log.warning("login refused", token=token)
        return "Wrong name or password.", 401
    session["user_id"] = form["name"]
    log.info("logged in", token=token)
    return redirect("/rooms/tea")


@app.post("/logout")
async def logout() -> Any:
    token = request.args.get("token")
    log.info("logout asked for", token=token)
    session.clear()
    log.info("logged out", token=token)
    return redirect("/login")


@app.get("/rooms/<room>")
async def room_history(room: str) -> str:
    log.info("history shown", token=request.args.get("token"))
    return await render_template("room.html", room=room, said=history[room])


@app.websocket("/rooms/<room>/talk")
async def talk(room: str) -> None:
    token, name = websocket.args.get("token"), session.get("user_id")
    if name is None:
        log.warning("turned away", token=token)
        abort(401)
    inbox: asyncio.Queue[Said] = asyncio.Queue()
    members[room].add(inbox)
    log.info("joined", token=token)
    delivering = asyncio.create_task(deliver(inbox, token))
    try:
        await websocket.accept()
        while True:
            await say(room, name, await websocket.receive())
    finally:
        delivering.cancel()
        members[room].discard(inbox)
        log.info("left", token=token)


async def say(room: str, name: str, text: str) -> None:
    """All that is done for one message: each line of it has the message's id."""
    log.info("said", token=text)
    said = Said(name, text, asok_trace.current().request_id)
    with tracer.start_as_current_span("keep"):
        await asyncio.to_thread(keep, room, said)
    for inbox in members[room]:
        inbox.put_nowait(said)
    # This goes on when the message is done: a unit of work of its own.
    app.add_background_task(index, text)


def keep(room: str, said: Said) -> None:
    time.sleep(0.01)  # a database that takes its time, so that messages overlap
    history[room].append(said)
    log.info("kept", token=said.text)


async def index(text: str) -> None:
    await asyncio.sleep(0.02)  # a search engine that takes its time
    words.update(text.split())
    log.info("indexed", token=text)


async def deliver(inbox: asyncio.Queue[Said], token: str | None) -> None:
    """Tell one member what is said in the room. Nobody's message: this is the connection's."""
    while True:
        said = await inbox.get()
        log.info("delivering", token=token, of=said.message_id)
        await websocket.send_json(said._asdict())


@app.after_serving
async def leave_report() -> None:
    Path("report.txt").write_text(asok_trace.report() + "\n", "utf-8")

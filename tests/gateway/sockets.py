"""A real WebSocket server of Asok, and a real client. needs: asok"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asok import WebSocketServer
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as client

DEADLINE = 10


def until(condition: Callable[[], object]) -> None:
    """Wait for ``condition``."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class Sockets:
    """A WebSocketServer on a free port of this machine, and clients of it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.server: Any = WebSocketServer(port=0, app=app)
        self.server.start()
        self.port: int = self.server._sock.getsockname()[1]

    def stop(self) -> None:
        """Stop the server, and its thread, which close() alone does not wake."""
        self.server._sock.shutdown(socket.SHUT_RDWR)
        self.server.stop()

    def cookie(self, user: object) -> str:
        """The cookies of a browser in which ``user`` is logged in."""
        store = self.app._session_store
        sid = store.generate_sid()
        store.save(sid, {"user_id": user})
        return f"asok_sid={self.app._sign(sid)}; asok_session={self.app._sign(f'{user}:{sid}')}"

    @contextmanager
    def connect(
        self, path: str = "/chat", *, user: object = None, **headers: str
    ) -> Iterator[ClientConnection]:
        """A connection. Once it is closed, all of its handlers have returned."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if user is not None:
            sent["Cookie"] = self.cookie(user)
        with client(
            f"ws://127.0.0.1:{self.port}{path}",
            # Made here: a proxy in the environment is none of our business.
            sock=socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE),
            origin="http://localhost",  # type: ignore[arg-type]
            additional_headers=sent,
            compression=None,
            ping_interval=None,
            open_timeout=DEADLINE,
            close_timeout=DEADLINE,
        ) as connection:
            yield connection


def answer(connection: ClientConnection) -> str:
    """What the server has answered; it also tells everybody who is online."""
    while True:
        got = connection.recv(timeout=DEADLINE)
        assert isinstance(got, str)
        if not got.startswith('{"op": "broadcast"'):
            return got


def ask(connection: ClientConnection, message: str | bytes = "hello") -> str:
    """Send a text message and wait for the answer."""
    connection.send(message, text=True)
    return answer(connection)


def join(sockets: Sockets, connection: ClientConnection, component: Any) -> None:
    """Connect a component of this class, as a page does that shows it; nothing answers."""
    state = component(_cid="c")._sign_state(sockets.server.secret_key)
    name = component.__name__
    connection.send(json.dumps({"op": "join", "cid": "c", "name": name, "state": state}))


def operate(connection: ClientConnection, op: str, **data: Any) -> Any:
    """Send an operation to a live component and wait for the answer."""
    return json.loads(ask(connection, json.dumps({"op": op, "cid": "c", **data})))

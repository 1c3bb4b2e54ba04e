"""The shop on a server: a copy of it in a directory of its own, seeded and served."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from serving import Served

SOURCE = Path(__file__).resolve().parent


class Address(NamedTuple):
    """Where the shop is: its pages, and its WebSocket server."""

    pages: str
    sockets: str


class Shop(Served):
    """The shop in ``directory``, where it also keeps its database, its log and its report."""

    def __init__(self, directory: Path) -> None:
        super().__init__(SOURCE, directory)

    def install(self) -> None:
        """Copy the application and create its database with two users.

        Raises:
            subprocess.SubprocessError: seeding failed, or did not end.
        """
        self.copy(["wsgi.py", "gunicorn.conf.py", "src"])
        self.run("asok", "seed")

    @contextmanager
    def open(self, seconds: float) -> Iterator[Address]:
        """Serve it with gunicorn, and yield where: for ``seconds`` at the longest."""
        sockets = str(_free_port())
        # Asok's own: where to listen for WebSockets, and whose pages may open one.
        environment = {"ASOK_WS_PORT": sockets, "ASOK_PORT": "{port}"}
        command = ("gunicorn", "--bind", "{socket}", "wsgi:app")
        with self.serve(*command, seconds=seconds, environment=environment) as port:
            yield Address(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{sockets}")


def _free_port() -> int:
    """A port nobody listens on; Asok binds it itself, and cannot be handed a socket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port

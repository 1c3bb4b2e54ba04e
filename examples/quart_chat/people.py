"""The people in the chat: what each of them does there, and what must come of it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Final

import httpx
from check import ABSENT, Message, Page, Visit
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

UNREACHABLE: Final = (httpx.HTTPError, WebSocketException, OSError, TimeoutError)
"""What is raised when the chat does not answer."""

Heard = tuple[str, str, str | None]
"""The path of the connection that a message was heard on, what was said, and its id."""


class Person:
    """Somebody with an account and a browser, and what has come of it so far."""

    def __init__(self, name: str, address: str, rooms: Sequence[str], others: int) -> None:
        self.name = name
        self.visits: list[Visit] = []
        self.messages: list[Message] = []
        self.heard: list[Heard] = []
        self._address = address
        self._rooms = rooms
        self._talkers = others + 1
        self._browser = httpx.AsyncClient(base_url=f"http://{address}", timeout=20, trust_env=False)
        self._seats: list[_Seat] = []

    async def arrive(self) -> None:
        """Try to listen without having said who it is, then log in."""
        path, token = f"/rooms/{self._rooms[0]}/talk", self._token()
        said = (("turned away", ABSENT),)
        page = Page("GET", path, "/rooms/<room>/talk", 401, said, ABSENT)
        try:
            connection = await self._connect(path, token)
        except InvalidStatus as refused:
            answer = refused.response
            self._note(page, token, answer.status_code, answer.headers.get("X-Request-ID"))
        else:
            self._note(page, token, 101, connection.response.headers.get("X-Request-ID"))
            await connection.close()
        await self._visit(self._login("a guess", 401, ("login refused", ABSENT)))
        await self._visit(self._login(f"{self.name}'s password", 302, ("logged in", self.name)))

    async def join(self) -> None:
        """Sit down in each room."""
        for room in self._rooms:
            path, token = f"/rooms/{room}/talk", self._token()
            connection = await self._connect(path, token)
            self._seats.append(_Seat(connection, path, token, self.name))

    async def talk(self) -> None:
        """Say something in each room, and look at its history, all at the same moment; then listen
        to what everybody has said."""
        await asyncio.gather(
            *(seat.say() for seat in self._seats),
            *(self._visit(self._page(f"/rooms/{room}")) for room in self._rooms),
        )
        for seat in self._seats:
            await seat.listen(self._talkers)

    async def leave(self) -> None:
        """Leave all rooms, and log out."""
        for seat in self._seats:
            await seat.leave()
            self._note(seat.page(), seat.token, 101, seat.connection_id)
            self.messages += seat.messages()
            self.heard += seat.heard
        said = (("logout asked for", self.name), ("logged out", None))
        await self._visit(Page("POST", "/logout", "/logout", 302, said, None))
        await self._browser.aclose()

    def _login(self, password: str, status: int, end: tuple[str, str]) -> Page:
        # An empty session might be that of an application with users of another kind.
        said = (("login asked for", ABSENT), end)
        form = {"name": self.name, "password": password}
        return Page("POST", "/login", "/login", status, said, end[1], form=form)

    def _page(self, path: str) -> Page:
        return Page(
            *("GET", path, "/rooms/<room>", 200, (("history shown", self.name),), self.name)
        )

    async def _visit(self, page: Page) -> None:
        token = self._token()
        answer = await self._browser.request(
            page.method, page.path, params={"token": token}, data=page.form
        )
        self._note(page, token, answer.status_code, answer.headers.get("X-Request-ID"))

    async def _connect(self, path: str, token: str) -> ClientConnection:
        cookies = "; ".join(f"{one.name}={one.value}" for one in self._browser.cookies.jar)
        return await connect(
            f"ws://{self._address}{path}?token={token}",
            additional_headers={"Cookie": cookies},
            proxy=None,
        )

    def _note(self, page: Page, token: str, status: int, request_id: str | None) -> None:
        self.visits.append(Visit(page, token, status, request_id, ""))

    def _token(self) -> str:
        self._tokens += 1
        return f"{self.name}-{self._tokens:02}"

    _tokens = 0


class _Seat:
    """One person in one room: a connection."""

    def __init__(self, connection: ClientConnection, path: str, token: str, name: str) -> None:
        self.heard: list[Heard] = []
        self.token = token
        self.connection_id: str | None = connection.response.headers.get("X-Request-ID")
        self._connection = connection
        self._path = path
        self._name = name
        self._said: list[str] = []

    async def say(self) -> None:
        self._said.append(f"{self.token}-{len(self._said) + 1}")
        await self._connection.send(self._said[-1])

    async def listen(self, times: int) -> None:
        """Hear so many messages."""
        for _ in range(times):
            said = json.loads(await self._connection.recv())
            self.heard.append((self._path, said["text"], said["message_id"]))

    async def leave(self) -> None:
        await self._connection.close()

    def page(self) -> Page:
        """The connection as a request."""
        events = ("joined", *("delivering" for _ in self.heard), "left")
        said = tuple((event, self._name) for event in events)
        return Page("GET", self._path, "/rooms/<room>/talk", 101, said, self._name)

    def messages(self) -> list[Message]:
        """What was said from here, with the ids that it was heard with."""
        ids = {text: message_id for _, text, message_id in self.heard}
        return [
            Message(
                *(self.token, "message", text, self._path, "/rooms/<room>/talk", self._name),
                events=("said", "kept", "indexed"),
                request_id=ids.get(text),
                spans=(("keep", 5), ("index", 10)),
                tasks={"indexed": "index"},
                connection_id=self.connection_id,
            )
            for text in self._said
        ]

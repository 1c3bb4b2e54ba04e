"""The customers: what each of them does in the shop, and what must come of it."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from threading import Barrier, BrokenBarrierError
from typing import Final, NamedTuple

import httpx
from check import Message, Page, Spans, Visit
from server import Address
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

# What both like, one after the other. Each is a round through the shop: Asok answers one address
# a hundred times a minute, and asok_trace keeps a hundred requests and messages; the demo stays
# below.
LIKED = ("kettle", "teapot", "cup")

MAIL = "mail sent"

UNREACHABLE: Final = (httpx.HTTPError, WebSocketException, OSError)
"""What is raised when the shop does not answer."""

_COUNTED: Spans = (("count stock", 5),)


class Customer(NamedTuple):
    """Somebody with an account: the ids are those that src/seeds.py leads to."""

    name: str
    id: int


ALICE = Customer("alice", 1)
BOB = Customer("bob", 2)


def at_once(address: Address) -> tuple[list[Visit], list[Message]]:
    """Send both on their tour of the shop, page by page at the same moment, each with a
    WebSocket open meanwhile.

    Raises:
        httpx.HTTPError, WebSocketException, OSError: the shop did not answer one of them.
    """
    together = Barrier(2, timeout=30)
    tours = [_Tour(address, ALICE, BOB, together), _Tour(address, BOB, ALICE, together)]
    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(tour.make) for tour in tours]
    # Whoever fails breaks the barrier for the other, who then is not the one to blame.
    for end in sorted(ends, key=lambda end: isinstance(end.exception(), BrokenBarrierError)):
        end.result()
    visits = [visit for tour in tours for visit in tour.visits]
    return visits, [message for tour in tours for message in tour.messages]


class _Tour:
    """One customer in the shop, and what has come of it so far."""

    def __init__(
        self, address: Address, customer: Customer, other: Customer, together: Barrier
    ) -> None:
        self.visits: list[Visit] = []
        self.messages: list[Message] = []
        self._address = address
        self._customer = customer
        self._other = other
        self._together = together
        # Asok marks its cookies Secure. Browsers send those to localhost; Python has to be told.
        cookies = CookieJar(DefaultCookiePolicy(secure_protocols=("http",)))
        self._browser = httpx.Client(
            base_url=address.pages, cookies=cookies, timeout=20, trust_env=False
        )

    def make(self) -> None:
        """Make the tour."""
        try:
            with self._browser:
                self._visit(_arrival(self._customer))
                for product in LIKED:
                    with self._counter(product) as counter:
                        self._visit(_round(self._customer, self._other), counter)
                self._visit(_departure(self._customer))
        except BaseException:
            self._together.abort()
            raise

    def _visit(self, pages: Iterable[Page], counter: "_Counter | None" = None) -> None:
        for page in pages:
            token = f"{self._customer.name}-{len(self.visits) + 1:02}"
            self._together.wait()
            if counter is not None and page.likes:
                # Sent now, answered while the page is made.
                counter.like(f"{token}-like")
            answer = self._browser.request(
                page.method, page.path, params={"token": token}, data=page.form
            )
            if counter is not None and page.likes:
                self.messages.append(counter.answered("message", "counting like", "liked"))
            if "X-CSRF-Token" in answer.headers:
                self._browser.headers["X-CSRF-Token"] = answer.headers["X-CSRF-Token"]
            request_id = answer.headers.get("X-Request-ID")
            self.visits.append(Visit(page, token, answer.status_code, request_id, answer.text))

    @contextmanager
    def _counter(self, product: str) -> Iterator["_Counter"]:
        """Open the counter of ``product``, with the cookies of the browser, and close it."""
        path = f"/likes/{product}"
        token = f"{self._customer.name}-{product}"
        cookies = "; ".join(f"{one.name}={one.value}" for one in self._browser.cookies.jar)
        with connect(
            self._address.sockets + path,
            origin=Origin(self._address.pages),
            additional_headers={"Cookie": cookies, "X-Token": token},
            proxy=None,
        ) as connection:
            counter = _Counter(connection, path, token, str(self._customer.id))
            self.messages.append(counter.answered("connect", "counter opened"))
            yield counter
        self.messages.append(counter.message("disconnect", None, "counter closed"))


class _Counter:
    """An open counter of likes. ``token`` went along in the handshake."""

    def __init__(self, connection: ClientConnection, path: str, token: str, user: str) -> None:
        self._connection = connection
        self._path = path
        self._name = self._token = token
        self._user = user

    def like(self, token: str) -> None:
        """Send a like."""
        self._token = token
        self._connection.send(token)

    def answered(self, kind: str, *events: str) -> Message:
        """Await the answer to what was sent, and return both as one message."""
        answer = json.loads(self._connection.recv(timeout=5))
        while answer.get("type") == "presence":  # Asok tells everybody who comes and goes
            answer = json.loads(self._connection.recv(timeout=5))
        return self.message(kind, answer.get("request_id"), *events)

    def message(self, kind: str, request_id: str | None, *events: str) -> Message:
        """Return a message of this connection that its handler logs ``events`` of."""
        said = kind == "message"
        return Message(
            connection=self._name,
            kind=kind,
            token=self._token if said else self._name,
            path=self._path,
            route="/likes/[product]",
            user=self._user,
            events=events,
            request_id=request_id,
            spans=(("count like", 5),) if said else (),
        )


def _arrival(customer: Customer) -> Iterator[Page]:
    login = {"name": customer.name, "password": f"{customer.name}'s password"}
    yield _page("/", None, "counting stock", "catalogue shown", spans=_COUNTED)
    yield _page("/login", None, "login form shown")
    me = str(customer.id)
    said = (("login asked for", None), ("logged in", me))
    yield Page("POST", "/login", "/login", 302, said, user=me, form=login)


def _round(customer: Customer, other: Customer) -> Iterator[Page]:
    me = str(customer.id)
    yield _page("/", me, "counting stock", "catalogue shown", spans=_COUNTED, likes=True)
    yield Page(
        *("POST", "/checkout", "/checkout", 200),
        said=tuple((e, me) for e in ("counting stock", "card charged", "order placed", MAIL)),
        user=me,
        spans=(
            ("place order", 5),
            ("place order > count stock", 5),
            ("place order > charge card", 0),
            ("send_receipt", 25),
            ("send_receipt > send receipt", 25),
        ),
        tasks={MAIL: "send_receipt"},
    )
    exported = ("export started", "counting stock", "export ended")
    yield _page("/export", me, *exported, spans=_COUNTED, likes=True)
    yield _page(
        "/api/products", me, "counting stock", "products served", spans=_COUNTED, likes=True
    )
    for anyone in (customer, other):
        path = f"/user/{anyone.id}"
        yield Page("GET", path, "/user/[id]", 200, (("profile shown", me),), user=me)
    yield Page(
        *("GET", "/broken", "/broken", 500),
        said=(("about to fail", me), ("apologised", me)),
        user=me,
        spans=(("open till", 0),),
        error="RuntimeError",
        names_its_id=True,
    )
    yield Page("GET", "/nowhere", None, 404, (("nothing there", me),), user=me)


def _departure(customer: Customer) -> Iterator[Page]:
    said = (("logout asked for", str(customer.id)), ("logged out", None))
    yield Page("POST", "/logout", "/logout", 302, said, user=None)
    yield _page("/", None, "counting stock", "catalogue shown", spans=_COUNTED)


def _page(
    path: str, user: str | None, *events: str, spans: Spans = (), likes: bool = False
) -> Page:
    """Return a page whose route is its path, and all of whose lines are by one user."""
    said = tuple((event, user) for event in events)
    return Page("GET", path, path, 200, said, user, spans=spans, likes=likes)

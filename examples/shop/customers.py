"""The customers: what each of them does in the shop, and what must come of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar, DefaultCookiePolicy
from threading import Barrier, BrokenBarrierError
from typing import NamedTuple

import httpx
from check import Page, Visit

# Asok answers one address a hundred times a minute; the demo stays below.
ROUNDS = 3

MAIL = "mail sent"


class Customer(NamedTuple):
    """Somebody with an account: the ids are those that src/seeds.py leads to."""

    name: str
    id: int


ALICE = Customer("alice", 1)
BOB = Customer("bob", 2)


def at_once(url: str) -> list[Visit]:
    """Send both on their tour of the shop at ``url``, page by page at the same moment.

    Raises:
        httpx.HTTPError: the shop did not answer one of them.
    """
    together = Barrier(2, timeout=30)
    with ThreadPoolExecutor(2) as threads:
        tours = [
            threads.submit(_visit, url, ALICE, BOB, together),
            threads.submit(_visit, url, BOB, ALICE, together),
        ]
    # Whoever fails breaks the barrier for the other, who then is not the one to blame.
    tours.sort(key=lambda tour: isinstance(tour.exception(), BrokenBarrierError))
    return [visit for tour in tours for visit in tour.result()]


def _visit(url: str, customer: Customer, other: Customer, together: Barrier) -> list[Visit]:
    # Asok marks its cookies Secure. Browsers send those to localhost; Python has to be told.
    cookies = CookieJar(DefaultCookiePolicy(secure_protocols=("http",)))
    visits = []
    with httpx.Client(base_url=url, cookies=cookies, timeout=20, trust_env=False) as browser:
        for number, page in enumerate(_tour(customer, other), start=1):
            token = f"{customer.name}-{number:02}"
            together.wait()
            try:
                answer = browser.request(
                    page.method, page.path, params={"token": token}, data=page.form
                )
            except BaseException:
                together.abort()
                raise
            if "X-CSRF-Token" in answer.headers:
                browser.headers["X-CSRF-Token"] = answer.headers["X-CSRF-Token"]
            request_id = answer.headers.get("X-Request-ID")
            visits.append(Visit(page, token, answer.status_code, request_id, answer.text))
    return visits


def _tour(customer: Customer, other: Customer) -> Iterator[Page]:
    me = str(customer.id)
    login = {"name": customer.name, "password": f"{customer.name}'s password"}

    yield _page("GET", "/", 200, None, "counting stock", "catalogue shown")
    yield _page("GET", "/login", 200, None, "login form shown")
    said = (("login asked for", None), ("logged in", me))
    yield Page("POST", "/login", "/login", 302, said, user=me, form=login)

    for _ in range(ROUNDS):
        yield _page("GET", "/", 200, me, "counting stock", "catalogue shown")
        yield _page("POST", "/checkout", 200, me, "order placed", MAIL)
        yield _page("GET", "/export", 200, me, "export started", "counting stock", "export ended")
        yield _page("GET", "/api/products", 200, me, "counting stock", "products served")
        for anyone in (customer, other):
            said = (("profile shown", me),)
            yield Page("GET", f"/user/{anyone.id}", "/user/[id]", 200, said, user=me)
        said = (("about to fail", me), ("apologised", me))
        yield Page("GET", "/broken", "/broken", 500, said, user=me, names_its_id=True)
        yield Page("GET", "/nowhere", None, 404, (("nothing there", me),), user=me)

    said = (("logout asked for", me), ("logged out", None))
    yield Page("POST", "/logout", "/logout", 302, said, user=None)
    yield _page("GET", "/", 200, None, "counting stock", "catalogue shown")


def _page(method: str, path: str, status: int, user: str | None, *events: str) -> Page:
    """Return a page whose route is its path, and all of whose lines are by one user."""
    return Page(method, path, path, status, tuple((event, user) for event in events), user)

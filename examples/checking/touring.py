"""Visitors who go through an example at the same time, page by page."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import httpx
from check import Page, Visit


class Tour:
    """One visitor, who keeps cookies like a browser, and what has come of the visits so far."""

    def __init__(self, name: str, address: str, together: Barrier) -> None:
        self.visits: list[Visit] = []
        self._name = name
        self._address = address
        self._together = together

    def make(self, pages: Iterable[Page]) -> None:
        """Visit ``pages``, each at the moment at which all others visit theirs.

        Raises:
            httpx.HTTPError: one of them did not answer.
        """
        try:
            with httpx.Client(base_url=self._address, timeout=20, trust_env=False) as browser:
                for page in pages:
                    token = f"{self._name}-{len(self.visits) + 1:02}"
                    self._together.wait()
                    self.visits.append(visited(page, token, browser))
        except BaseException:
            self._together.abort()
            raise


def visited(page: Page, token: str, browser: httpx.Client) -> Visit:
    """Visit ``page``; the token goes along in the query string."""
    answer = browser.request(page.method, page.path, params={"token": token}, data=page.form)
    return Visit(page, token, answer.status_code, answer.headers.get("X-Request-ID"), answer.text)


def at_once(address: str, tours: Sequence[tuple[str, Callable[[], Iterable[Page]]]]) -> list[Visit]:
    """Make all tours at the same time: each a name, and the pages that are visited.

    Raises:
        httpx.HTTPError: one of them was not answered.
    """
    together = Barrier(len(tours), timeout=30)
    made = [Tour(name, address, together) for name, _ in tours]
    with ThreadPoolExecutor(len(tours)) as threads:
        ends = [
            threads.submit(tour.make, pages()) for tour, (_, pages) in zip(made, tours, strict=True)
        ]
    # Whoever fails breaks the barrier for the others, who then are not the ones to blame.
    for end in sorted(ends, key=lambda end: isinstance(end.exception(), BrokenBarrierError)):
        end.result()
    return [visit for tour in made for visit in tour.visits]

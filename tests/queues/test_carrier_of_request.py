"""A carrier written in a request of a real Asok site.

needs: asok
"""

from collections.abc import Callable
from typing import Any

import pytest

import asok_trace
from tests.gateway.conftest import call, lines, make_site, site
from tests.gateway.sites import PEER, Line, Reply, Site, named, say

__all__ = ["call", "lines", "make_site", "site"]

HEADERS = [("X-Request-ID", "from-the-proxy"), ("X-User", "7")]

Call = Callable[..., Reply]


@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "inject alone"])
def test_a_carrier_goes_there_and_back(
    site: Site, call: Call, lines: list[Line], instrumented: bool
) -> None:
    """Id, ip and path of the request, and its user, are what the job's lines say; also where
    nobody called instrument()."""
    carriers: list[dict[str, str]] = []

    @site.view
    def order(request: Any) -> str:
        asok_trace.bind(user=7)
        carriers.append(asok_trace.to_carrier())
        return "ordered"

    handle = asok_trace.instrument(site.app) if instrumented else None
    call(site.app, "/order", headers=HEADERS)
    if handle is not None:
        handle.undo()
    assert carriers == [
        {
            "asok-trace-request-id": "from-the-proxy",
            "asok-trace-ip": PEER,
            "asok-trace-user": "7",
            "asok-trace-path": "/order",
        }
    ]
    with asok_trace.from_carrier(carriers[0], "charge"):
        say("charged")
    assert named(lines, "charged") == {
        "request_id": "from-the-proxy",
        "ip": PEER,
        "user": "7",
        "path": "/order",
        "task": "charge",
        "event": "charged",
        "level": "info",
    }


def test_a_consumer_in_a_view_stands_in_front_of_its_request(
    site: Site, call: Call, lines: list[Line]
) -> None:
    """Lines inside are the job's, also while the framework has a current request; then the
    request's own again."""

    @site.view
    def webhook(request: Any) -> str:
        with asok_trace.from_carrier({"asok-trace-request-id": "the-job"}, "charge"):
            say("inside")
        say("after")
        return "done"

    with asok_trace.instrument(site.app):
        call(site.app, "/webhook", headers=HEADERS)
    inside, after = named(lines, "inside"), named(lines, "after")
    assert (inside["request_id"], inside["task"]) == ("the-job", "charge")
    assert "path" not in inside
    assert (after["request_id"], after["path"]) == ("from-the-proxy", "/webhook")

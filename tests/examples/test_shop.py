"""The demo of the example shop proves what it says: it passes, and it is able to fail.

needs: asok
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from examples.shop.check import Line, Page, Visit, complaints, overlapping

SHOP = Path(__file__).parents[2] / "examples" / "shop"


def demo(shop: Path, temporary: Path) -> tuple[int, str]:
    """Run the demo in ``shop``, with ``temporary`` for its files; return its status and output."""
    temporary.mkdir()
    ran = subprocess.run(
        [sys.executable, str(shop / "demo.py")],
        env={"TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    return ran.returncode, ran.stdout


def sources() -> set[Path]:
    return {path for path in SHOP.rglob("*") if "__pycache__" not in path.parts}


class TestDemo:
    def test_passes_and_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """The demo ends with success, lines and a summary; its files and the server are gone."""
        temporary = tmp_path / "temporary"
        before = sources()

        status, output = demo(SHOP, temporary)

        assert status == 0, output
        summary = r"(\d+) requests, (\d+) lines, every line carries its own request\."
        found = re.search(summary, output)
        assert found is not None, output
        requests, lines = map(int, found.groups())
        assert requests > 50
        assert lines > 2 * requests
        assert "token=alice-" in output
        assert "token=bob-" in output
        assert "\033" not in output, "coloured, though not on a terminal"
        assert list(temporary.iterdir()) == []
        assert sources() == before

    @pytest.mark.parametrize(
        ("line", "instead", "complaint"),
        [
            ("asok_trace.instrument(app)", "", "no X-Request-ID in the response"),
            ("(app)", "(app, access_log=False)", "'request' by user None logged 0 times, not 1"),
            ("app = Asok()", "app = None", "the shop could not be visited"),
        ],
    )
    def test_fails_with_a_shop_that_is_not_in_order(
        self, tmp_path: Path, line: str, instead: str, complaint: str
    ) -> None:
        """Without its lines in wsgi.py, or without an application, the demo says so and fails."""
        shop = shutil.copytree(SHOP, tmp_path / "shop")
        code = (shop / "wsgi.py").read_text("utf-8")
        assert line in code
        (shop / "wsgi.py").write_text(code.replace(line, instead), "utf-8")
        temporary = tmp_path / "temporary"

        status, output = demo(shop, temporary)

        assert status == 1, output
        assert "FAILED" in output
        assert complaint in output
        assert "every line carries" not in output
        assert list(temporary.iterdir()) == []


HOME = Page("GET", "/", "/", 200, (("counting stock", None), ("catalogue shown", None)), None)


def checkout(user: str) -> Page:
    said = (("order placed", user), ("mail sent", user))
    return Page("POST", "/checkout", "/checkout", 200, said, user)


def broken(user: str) -> Page:
    said = (("about to fail", user),)
    return Page("GET", "/broken", "/broken", 500, said, user, names_its_id=True)


def nowhere(user: str) -> Page:
    return Page("GET", "/nowhere", None, 404, (("nothing there", user),), user)


def visit(name: str, number: int, page: Page) -> Visit:
    request_id = f"{name}{number}" * 4
    return Visit(page, f"{name}-{number}", page.status, request_id, f"number {request_id}")


def logged(visit: Visit) -> list[Line]:
    """What a server logs of ``visit`` if all is well."""
    page = visit.page
    stamp = {"request_id": visit.request_id, "ip": "127.0.0.1", "path": page.path}
    said = [
        {**stamp, "user": user, "event": event, "token": visit.token, "level": "info"}
        for event, user in page.said
    ]
    end: Line = {**stamp, "user": page.user, "event": "request", "method": page.method}
    end |= {"status": page.status, "duration_ms": 1.5}
    end["level"] = "error" if page.status >= 500 else "info"
    if page.route is not None:
        end["route"] = page.route
    return [*said, end]


class Day:
    """A day on which all went well, to be spoiled: two customers, and the log of their visits."""

    def __init__(self) -> None:
        tours = [
            [
                visit(name, number, page)
                for number, page in enumerate((HOME, checkout(user), broken(user), nowhere(user)))
            ]
            for name, user in (("alice", "1"), ("bob", "2"))
        ]
        self.visits = [*tours[0], *tours[1]]
        logs = ([line for visit in tour for line in logged(visit)] for tour in tours)
        self.lines: list[Line] = list(chain.from_iterable(zip(*logs, strict=True)))

    def line(self, name: str, event: str, path: str | None = None) -> Line:
        """Return the first line ``event`` of customer ``name``."""
        return next(
            line
            for line in self.lines
            if line["request_id"].startswith(name)
            and line["event"] == event
            and path in (None, line["path"])
        )

    def judged(self) -> str:
        return "\n".join(complaints(self.visits, self.lines))


def a_line_missing(day: Day) -> None:
    day.lines.remove(day.line("alice", "order placed"))


def a_line_of_the_job_missing(day: Day) -> None:
    day.lines.remove(day.line("bob", "mail sent"))


def a_canonical_line_missing(day: Day) -> None:
    day.lines.remove(day.line("bob", "request", "/nowhere"))


def a_line_too_many(day: Day) -> None:
    day.lines.append(day.line("alice", "order placed"))


def a_canonical_line_too_many(day: Day) -> None:
    day.lines.append(day.line("alice", "request", "/broken"))


def a_line_of_nobody(day: Day) -> None:
    day.lines.append({"event": "ghost"})


def a_canonical_line_of_nobody(day: Day) -> None:
    day.lines.append({**day.line("alice", "request"), "request_id": "0"})


def ids_swapped_between_users(day: Day) -> None:
    alice, bob = day.line("alice", "order placed"), day.line("bob", "order placed")
    alice["request_id"], bob["request_id"] = bob["request_id"], alice["request_id"]


def canonical_ids_swapped_between_users(day: Day) -> None:
    alice, bob = (day.line(name, "request", "/checkout") for name in ("alice", "bob"))
    alice["request_id"], bob["request_id"] = bob["request_id"], alice["request_id"]


def the_job_under_another_id(day: Day) -> None:
    day.line("alice", "mail sent")["request_id"] = day.line("alice", "request")["request_id"]


def an_empty_stamp(day: Day) -> None:
    line = day.line("alice", "mail sent")
    for key in ("request_id", "ip", "user", "path"):
        del line[key]


def a_blank_stamp(day: Day) -> None:
    day.line("alice", "mail sent").update(request_id="", ip="", user="", path="")


def no_stamp_on_any_line(day: Day) -> None:
    for line in day.lines:
        for key in ("request_id", "ip", "user", "path"):
            del line[key]


def nothing_logged(day: Day) -> None:
    day.lines.clear()


def the_other_user(day: Day) -> None:
    day.line("alice", "order placed")["user"] = "2"


def nobody_after_login(day: Day) -> None:
    day.line("alice", "order placed")["user"] = None


def somebody_before_login(day: Day) -> None:
    day.line("alice", "catalogue shown")["user"] = "1"


def no_user_where_it_should_be_null(day: Day) -> None:
    del day.line("alice", "catalogue shown")["user"]


def a_wrong_path(day: Day) -> None:
    day.line("bob", "mail sent")["path"] = "/"


def a_wrong_ip(day: Day) -> None:
    day.line("bob", "mail sent")["ip"] = "10.0.0.1"


def a_wrong_status(day: Day) -> None:
    day.line("bob", "request", "/broken")["status"] = 200


def a_wrong_level(day: Day) -> None:
    day.line("bob", "request", "/broken")["level"] = "info"


def no_route(day: Day) -> None:
    del day.line("bob", "request", "/broken")["route"]


def a_route_to_nowhere(day: Day) -> None:
    day.line("bob", "request", "/nowhere")["route"] = "/nowhere"


def no_duration(day: Day) -> None:
    del day.line("bob", "request", "/broken")["duration_ms"]


def no_id_in_a_response(day: Day) -> None:
    day.visits[0] = replace(day.visits[0], request_id=None)


def one_id_in_two_responses(day: Day) -> None:
    day.visits[0] = replace(day.visits[0], request_id=day.visits[1].request_id)


def another_answer(day: Day) -> None:
    day.visits[0] = replace(day.visits[0], status=302)


def an_error_page_without_its_id(day: Day) -> None:
    day.visits[2] = replace(day.visits[2], body="Sorry.")


def one_customer_after_the_other(day: Day) -> None:
    day.lines.sort(key=lambda line: str(line["request_id"]))


class TestCheck:
    def test_has_no_complaint_when_all_is_well(self) -> None:
        """A log in which every line is as it should be is accepted."""
        assert Day().judged() == ""

    @pytest.mark.parametrize(
        ("spoil", "complaint"),
        [
            (a_line_missing, "alice-1 POST /checkout: 'order placed' by user '1' logged 0 times"),
            (a_line_of_the_job_missing, "bob-1 POST /checkout: 'mail sent' by user '2' logged 0"),
            (a_canonical_line_missing, "bob-3 GET /nowhere: 'request' by user '2' logged 0 times"),
            (a_line_missing, "19 lines in all, not 20"),
            (a_line_too_many, "alice-1 POST /checkout: 'order placed' by user '1' logged 2 times"),
            (a_line_too_many, "21 lines in all, not 20"),
            (a_canonical_line_too_many, "'request' by user '1' logged 2 times, not 1"),
            (a_line_of_nobody, "a line of no request: {'event': 'ghost'}"),
            (a_line_of_nobody, "21 lines in all, not 20"),
            (a_canonical_line_of_nobody, "a line of no request"),
            (ids_swapped_between_users, "alice-1 POST /checkout: request_id is 'bob1bob1"),
            (ids_swapped_between_users, "bob-1 POST /checkout: request_id is 'alice1alice1"),
            (canonical_ids_swapped_between_users, "'request' by user '2' logged 1 times, not 0"),
            (the_job_under_another_id, "request_id is 'alice0alice0alice0alice0', not 'alice1"),
            (an_empty_stamp, "request_id is '(absent)', not 'alice1alice1alice1alice1', on 'mail"),
            (an_empty_stamp, "'mail sent' by user '(absent)' logged 1 times, not 0"),
            (a_blank_stamp, "ip is '', not '127.0.0.1', on 'mail sent'"),
            (no_stamp_on_any_line, "path is '(absent)', not '/checkout', on 'order placed'"),
            (no_stamp_on_any_line, "'request' by user '1' logged 0 times, not 1"),
            (nothing_logged, "0 lines in all, not 20"),
            (nothing_logged, "'mail sent' by user '1' logged 0 times, not 1"),
            (the_other_user, "'order placed' by user '2' logged 1 times, not 0"),
            (nobody_after_login, "'order placed' by user None logged 1 times, not 0"),
            (somebody_before_login, "'catalogue shown' by user '1' logged 1 times, not 0"),
            (no_user_where_it_should_be_null, "by user '(absent)' logged 1 times, not 0"),
            (a_wrong_path, "path is '/', not '/checkout', on 'mail sent'"),
            (a_wrong_ip, "ip is '10.0.0.1', not '127.0.0.1', on 'mail sent'"),
            (a_wrong_status, "status is 200, not 500, on 'request'"),
            (a_wrong_level, "level is 'info', not 'error', on 'request'"),
            (no_route, "route is '(absent)', not '/broken', on 'request'"),
            (a_route_to_nowhere, "route is '/nowhere', not '(absent)', on 'request'"),
            (no_duration, "bob-2 GET /broken: duration_ms is '(absent)'"),
            (no_id_in_a_response, "alice-0 GET /: no X-Request-ID in the response"),
            (one_id_in_two_responses, "alice1alice1alice1alice1: the id of 2 requests"),
            (another_answer, "alice-0 GET /: answered 302, not 200"),
            (an_error_page_without_its_id, "alice-2 GET /broken: the page does not show its id"),
            (one_customer_after_the_other, "no request overlapped another"),
        ],
    )
    def test_complains_of(self, spoil: Callable[[Day], None], complaint: str) -> None:
        """Whatever is wrong in the log or in the responses is told, and where."""
        day = Day()

        spoil(day)

        assert complaint in day.judged()

    def test_complains_of_each_line_once(self) -> None:
        """A single wrong field is a single complaint, so that a report stays readable."""
        day = Day()

        a_wrong_ip(day)

        assert len(day.judged().splitlines()) == 1

    def test_counts_requests_that_overlap(self) -> None:
        """A request overlaps if a line of another stands between its first and its last."""
        day = Day()

        assert overlapping(day.lines) == len(day.visits)

"""The checks of what goes on after a response, and of which connection a message came by, can fail.

needs: asok
"""

from collections.abc import Callable
from dataclasses import replace

import check
import pytest

from tests.examples.day import Day, id_of

OWN_TRACE = "5" * 32


class LaterDay(Day):
    """A day on which alice's receipt is mailed by work that goes on after her checkout, and on
    which clients know the ids of their connections."""

    def __init__(self) -> None:
        super().__init__()
        paid = self.visits[1]
        spans = (*paid.page.spans[:-1], ("send_receipt", 25))
        page = replace(paid.page, tasks={"mail sent": "send_receipt"}, spans=spans)
        self.visits[1] = replace(paid, page=page)
        self.line("alice", "mail sent")["task"] = "send_receipt"
        first = id_of("alice", 1)
        before, _, after = self.report.partition("\n└─ send receipt  25.5 ms")
        assert first in before
        self.report = f"{before}\n└─ send_receipt  25.5 ms{after}"
        self.messages = [
            replace(message, connection_id=f"connection of {message.token.partition('-')[0]}")
            for message in self.messages
        ]

    def begin_it_late(self) -> None:
        """The mail is sent when the response is gone, so in a trace of its own."""
        self.line("alice", "mail sent")["trace_id"] = OWN_TRACE
        self.draw("\n└─ send_receipt  25.5 ms", "")
        about = f"request.id={id_of('alice', 1)}  url.path=/checkout  user.id=1"
        self.report += f"\n\nsend_receipt  30.0 ms  {about}  trace {OWN_TRACE}"


def no_task(day: LaterDay) -> None:
    del day.line("alice", "mail sent")["task"]


def another_task(day: LaterDay) -> None:
    day.line("alice", "mail sent")["task"] = "send_advert"


def a_task_where_there_is_none(day: LaterDay) -> None:
    day.line("alice", "order placed")["task"] = "send_receipt"


def another_id(day: LaterDay) -> None:
    day.line("alice", "mail sent")["request_id"] = id_of("bob", 1)


def no_trace_id(day: LaterDay) -> None:
    del day.line("alice", "mail sent")["trace_id"]


def a_trace_id_of_nothing(day: LaterDay) -> None:
    day.line("alice", "mail sent")["trace_id"] = "0" * 32


def another_connection(day: LaterDay) -> None:
    for line in day.lines:
        if line.get("connection_id") == "connection of alice":
            line["connection_id"] = "connection of carol"


def its_tree_missing(day: LaterDay) -> None:
    day.begin_it_late()
    day.report, _, _ = day.report.rpartition("\n\n")


def its_tree_twice(day: LaterDay) -> None:
    day.begin_it_late()
    day.report += "\n\n" + day.report.rpartition("\n\n")[2]


def its_tree_by_another_user(day: LaterDay) -> None:
    day.begin_it_late()
    head, _, last = day.report.rpartition("\n\n")
    day.report = f"{head}\n\n{last.replace('user.id=1', 'user.id=2')}"


def its_tree_under_another_id(day: LaterDay) -> None:
    day.begin_it_late()
    head, _, last = day.report.rpartition("\n\n")
    day.report = f"{head}\n\n{last.replace(id_of('alice', 1), id_of('bob', 0))}"


def its_tree_took_no_time(day: LaterDay) -> None:
    day.begin_it_late()
    day.draw("send_receipt  30.0 ms", "send_receipt  0.0 ms")


class TestLater:
    @pytest.mark.parametrize("late", [False, True])
    def test_has_no_complaint_when_all_is_well(self, late: bool) -> None:
        """Work may be in the request's trace or, if it begins after the response, in its own."""
        day = LaterDay()

        if late:
            day.begin_it_late()

        assert day.judged() == ""
        assert day.judged_trees() == ""

    @pytest.mark.parametrize(
        ("spoil", "complaint"),
        [
            (no_task, "alice-1 POST /checkout: task is '(absent)', not 'send_receipt', on 'mail"),
            (another_task, "task is 'send_advert', not 'send_receipt', on 'mail sent'"),
            (a_task_where_there_is_none, "task is 'send_receipt', not '(absent)', on 'order pl"),
            (another_id, "request_id is 'b0b00001b0b00001b0b00001b0b00001', not 'a11ce001"),
            (no_trace_id, "alice-1 POST /checkout: trace_id is '(absent)', on 'mail sent'"),
            (a_trace_id_of_nothing, "trace_id is '00000000000000000000000000000000', on 'mail"),
            (another_connection, "connection_id is 'connection of carol', not 'connection of al"),
        ],
    )
    def test_complains_of_lines(self, spoil: Callable[[LaterDay], None], complaint: str) -> None:
        """Whatever is wrong with the line of such work is told."""
        day = LaterDay()

        spoil(day)

        assert complaint in day.judged()

    @pytest.mark.parametrize(
        ("spoil", "complaint"),
        [
            (its_tree_missing, "alice-1 POST /checkout: below the root are 'place order', 'place"),
            (its_tree_twice, "'send_receipt', 'send_receipt', not"),
            (its_tree_by_another_user, "alice-1 POST /checkout: the tree is about user.id '2', no"),
            (its_tree_under_another_id, "bob-0 GET /: 2 trees have its id, not 1"),
            (its_tree_took_no_time, "'send_receipt' took 0.0 ms, not at least 25"),
        ],
    )
    def test_complains_of_trees(self, spoil: Callable[[LaterDay], None], complaint: str) -> None:
        """Whatever is wrong with the tree of such work is told."""
        day = LaterDay()

        spoil(day)

        assert complaint in day.judged_trees()

    def test_counts_messages_that_cross(self) -> None:
        """A message crosses another if a line of that one stands between its own."""
        day = LaterDay()
        crossed = [line for line in day.lines if line["event"] in ("counting like", "liked")]

        assert [line["event"] for line in crossed] == ["counting like"] * 2 + ["liked"] * 2
        assert check.crossing(crossed) == 2
        assert check.crossing([crossed[0], crossed[2], crossed[1], crossed[3]]) == 0

"""The check of the example shop's request trees is able to fail: whatever is wrong is told.

needs: asok
"""

from collections.abc import Callable

import pytest
import trees

from tests.examples.day import Day, id_of

CHECKOUT = f"POST /checkout  75.0 ms  request.id={id_of('alice', 1)}"


def a_tree_missing(day: Day) -> None:
    day.report = "\n\n".join(text for text in day.report.split("\n\n") if CHECKOUT not in text)


def a_tree_twice(day: Day) -> None:
    day.report += "\n\n" + next(text for text in day.report.split("\n\n") if CHECKOUT in text)


def the_tree_of_an_end_missing(day: Day) -> None:
    day.report, _, _ = day.report.rpartition("\n\n")


def a_tree_of_nobody(day: Day) -> None:
    day.report += f"\n\nghost  1.0 ms  trace {'0' * 32}"


def a_root_without_its_id(day: Day) -> None:
    day.draw(f"  request.id={id_of('alice', 1)}", "")


def a_root_with_the_id_of_another(day: Day) -> None:
    day.draw(CHECKOUT, CHECKOUT.replace(id_of("alice", 1), id_of("bob", 1)))


def a_tree_of_another_trace(day: Day) -> None:
    day.draw(f"trace {id_of('alice', 1)}", f"trace {id_of('bob', 1)}")


def a_root_on_another_path(day: Day) -> None:
    day.draw(f"{CHECKOUT}  url.path=/checkout", f"{CHECKOUT}  url.path=/")


def a_root_by_another_user(day: Day) -> None:
    root = f"{CHECKOUT}  url.path=/checkout  user.id="
    day.draw(f"{root}1", f"{root}2")


def a_root_by_nobody(day: Day) -> None:
    root = f"{CHECKOUT}  url.path=/checkout"
    day.draw(f"{root}  user.id=1", root)


def a_root_named_after_its_path(day: Day) -> None:
    day.draw(
        f"GET  75.0 ms  request.id={id_of('bob', 3)}",
        f"GET /nowhere  75.0 ms  request.id={id_of('bob', 3)}",
    )


def a_failure_that_is_not_told(day: Day) -> None:
    day.draw("75.0 ms  ERROR", "75.0 ms")


def a_failure_that_is_none(day: Day) -> None:
    day.draw("POST /checkout  75.0 ms", "POST /checkout  75.0 ms  ERROR")


def a_step_missing(day: Day) -> None:
    day.draw("\n│  └─ charge card  0.5 ms", "")


def a_step_in_the_wrong_place(day: Day) -> None:
    day.draw("\n│  └─ charge card", "\n└─ charge card")


def the_step_of_the_job_missing(day: Day) -> None:
    day.draw("\n└─ send receipt  25.5 ms", "")


def a_step_that_took_no_time(day: Day) -> None:
    day.draw("send receipt  25.5 ms", "send receipt  0.0 ms")


def a_message_by_another_user(day: Day) -> None:
    root = f"request.id={id_of('alice', 6)}  url.path=/likes/kettle  user.id="
    day.draw(f"{root}1", f"{root}2")


def a_message_without_its_step(day: Day) -> None:
    day.draw("\n└─ count like  5.5 ms", "")


def an_end_that_is_a_message(day: Day) -> None:
    day.draw("websocket disconnect", "websocket message")


class TestTrees:
    def test_has_no_complaint_when_all_is_well(self) -> None:
        """A report in which every tree is as it should be is accepted."""
        assert Day().judged_trees() == ""

    @pytest.mark.parametrize(
        ("spoil", "complaint"),
        [
            (a_tree_missing, "alice-1 POST /checkout: 0 trees have its id, not 1"),
            (a_tree_twice, "alice-1 POST /checkout: 2 trees have its id, not 1"),
            (the_tree_of_an_end_missing, "bob-kettle disconnect /likes/kettle: 0 trees have its"),
            (a_tree_of_nobody, "a tree of no request: ghost  1.0 ms"),
            (a_root_without_its_id, "alice-1 POST /checkout: 0 trees have its id, not 1"),
            (a_root_without_its_id, "a tree of no request: POST /checkout"),
            (a_root_with_the_id_of_another, "alice-1 POST /checkout: 0 trees have its id, not 1"),
            (a_root_with_the_id_of_another, "bob-1 POST /checkout: 2 trees have its id, not 1"),
            (a_tree_of_another_trace, "the tree is of trace 'b0b00001b0b00001b0b00001b0b00001'"),
            (a_root_on_another_path, "the tree is about url.path '/', not '/checkout'"),
            (a_root_by_another_user, "the tree is about user.id '2', not '1'"),
            (a_root_by_nobody, "the tree is about user.id '(absent)', not '1'"),
            (a_root_named_after_its_path, "the tree is named 'GET /nowhere', not 'GET'"),
            (a_failure_that_is_not_told, "bob-2 GET /broken: the tree is failed False, not True"),
            (a_failure_that_is_none, "bob-1 POST /checkout: the tree is failed True, not False"),
            (a_step_missing, "below the root are 'place order', 'send receipt', not 'place order'"),
            (a_step_in_the_wrong_place, "are 'place order', 'charge card', 'send receipt', not"),
            (the_step_of_the_job_missing, "alice-1 POST /checkout: below the root are 'place ord"),
            (a_step_that_took_no_time, "'send receipt' took 0.0 ms, not at least 25"),
            (a_message_by_another_user, "alice-like message /likes/kettle: the tree is about user"),
            (a_message_without_its_step, "below the root are none, not 'count like'"),
            (an_end_that_is_a_message, "the tree is named 'websocket message /likes/[product]'"),
        ],
    )
    def test_complains_of(self, spoil: Callable[[Day], None], complaint: str) -> None:
        """Whatever is wrong in the report is told, and of which request."""
        day = Day()

        spoil(day)

        assert complaint in day.judged_trees()

    @pytest.mark.parametrize(
        "report",
        [
            "",
            "No request was kept.",
            f"GET /  7 ms  trace {'0' * 32}",
            f"GET /  7.0 ms  trace {'0' * 32}\nand something else",
            f"GET /  7.0 ms  trace {'0' * 32}\nGET /  7.0 ms  trace {'0' * 32}",
            f"GET /  7.0 ms  trace {'0' * 32}\n(+12 more spans)",
        ],
    )
    def test_takes_nothing_else_for_a_tree(self, report: str) -> None:
        """A report that is none, that has two roots in one tree, or that left spans out."""
        with pytest.raises(ValueError, match="of a tree"):
            trees.parsed(report)

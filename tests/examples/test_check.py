"""The check of the example shop's log is able to fail: whatever is wrong is told.

needs: asok
"""

from collections.abc import Callable
from dataclasses import replace

import check
import pytest

from tests.examples.day import Day, id_of


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


def no_error(day: Day) -> None:
    del day.line("bob", "request", "/broken")["error"]


def another_error(day: Day) -> None:
    day.line("bob", "request", "/broken")["error"] = "KeyError"


def an_error_where_there_is_none(day: Day) -> None:
    day.line("bob", "request", "/nowhere")["error"] = "KeyError"


def no_trace_id(day: Day) -> None:
    del day.line("bob", "mail sent")["trace_id"]


def another_trace_id(day: Day) -> None:
    day.line("bob", "mail sent")["trace_id"] = id_of("alice", 1)


def no_span_id(day: Day) -> None:
    del day.line("bob", "mail sent")["span_id"]


def a_span_id_of_nothing(day: Day) -> None:
    day.line("bob", "mail sent")["span_id"] = "0" * 16


def a_line_of_a_message_missing(day: Day) -> None:
    day.lines.remove(day.line("alice", "counting like"))


def a_line_of_a_message_too_many(day: Day) -> None:
    day.lines.append(day.line("alice", "liked"))


def a_line_of_an_opened_connection_missing(day: Day) -> None:
    day.lines.remove(day.line("alice", "counter opened"))


def a_line_of_a_closed_connection_missing(day: Day) -> None:
    day.lines.remove(day.line("alice", "counter closed"))


def another_event_of_a_message(day: Day) -> None:
    day.line("alice", "liked")["event"] = "loved"


def a_message_by_the_other_user(day: Day) -> None:
    day.line("alice", "liked")["user"] = "2"


def a_message_on_another_path(day: Day) -> None:
    day.line("alice", "liked")["path"] = "/likes/cup"


def a_message_from_elsewhere(day: Day) -> None:
    day.line("alice", "liked")["ip"] = ""


def a_line_of_a_message_under_another_id(day: Day) -> None:
    day.line("alice", "liked")["request_id"] = id_of("alice", 5)


def a_message_under_the_id_of_a_request(day: Day) -> None:
    index = day.messages.index(next(m for m in day.messages if m.kind == "message"))
    day.messages[index] = replace(day.messages[index], request_id=id_of("alice", 0))
    for event in ("counting like", "liked"):
        day.line("alice", event).update(request_id=id_of("alice", 0), trace_id=id_of("alice", 0))


def an_end_under_the_id_of_its_message(day: Day) -> None:
    line = day.line("alice", "counter closed")
    line.update(request_id=id_of("alice", 6), trace_id=id_of("alice", 6))


def an_end_without_an_id(day: Day) -> None:
    for line in day.lines:
        if line["event"] == "counter closed":
            line.update(request_id="", trace_id="")


def an_answer_without_an_id(day: Day) -> None:
    day.messages[1] = replace(day.messages[1], request_id=None)


def no_connection_id(day: Day) -> None:
    for line in day.lines:
        line.pop("connection_id", None)


def a_line_without_its_connection_id(day: Day) -> None:
    del day.line("alice", "liked")["connection_id"]


def a_line_with_the_id_of_another_connection(day: Day) -> None:
    day.line("alice", "liked")["connection_id"] = "connection of bob"


def one_connection_id_for_all(day: Day) -> None:
    for line in day.lines:
        if "connection_id" in line:
            line["connection_id"] = "the one"


def a_connection_id_per_message(day: Day) -> None:
    for line in day.lines:
        if "connection_id" in line:
            line["connection_id"] = line["request_id"]


def a_request_with_a_connection_id(day: Day) -> None:
    day.line("alice", "order placed")["connection_id"] = "connection of alice"


def all_messages_after_the_requests(day: Day) -> None:
    day.lines.sort(key=lambda line: "connection_id" in line)


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
            (a_line_missing, "27 lines in all, not 28"),
            (a_line_too_many, "alice-1 POST /checkout: 'order placed' by user '1' logged 2 times"),
            (a_line_too_many, "29 lines in all, not 28"),
            (a_canonical_line_too_many, "'request' by user '1' logged 2 times, not 1"),
            (a_line_of_nobody, "a line of no request: {'event': 'ghost'}"),
            (a_line_of_nobody, "29 lines in all, not 28"),
            (a_canonical_line_of_nobody, "a line of no request"),
            (ids_swapped_between_users, "alice-1 POST /checkout: request_id is 'b0b00001b0b00001"),
            (ids_swapped_between_users, "bob-1 POST /checkout: request_id is 'a11ce001a11ce001"),
            (canonical_ids_swapped_between_users, "'request' by user '2' logged 1 times, not 0"),
            (
                the_job_under_another_id,
                "request_id is 'a11ce000a11ce000a11ce000a11ce000', not 'a11ce001",
            ),
            (
                an_empty_stamp,
                "request_id is '(absent)', not 'a11ce001a11ce001a11ce001a11ce001', on 'mail",
            ),
            (an_empty_stamp, "'mail sent' by user '(absent)' logged 1 times, not 0"),
            (a_blank_stamp, "ip is '', not '127.0.0.1', on 'mail sent'"),
            (no_stamp_on_any_line, "path is '(absent)', not '/checkout', on 'order placed'"),
            (no_stamp_on_any_line, "'request' by user '1' logged 0 times, not 1"),
            (nothing_logged, "0 lines in all, not 28"),
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
            (
                one_id_in_two_responses,
                "a11ce001: the id of alice-0 GET / and of alice-1 POST /checkout",
            ),
            (another_answer, "alice-0 GET /: answered 302, not 200"),
            (an_error_page_without_its_id, "alice-2 GET /broken: the page does not show its id"),
            (one_customer_after_the_other, "no request overlapped another"),
            (no_error, "bob-2 GET /broken: error is '(absent)', not 'RuntimeError'"),
            (another_error, "bob-2 GET /broken: error is 'KeyError', not 'RuntimeError'"),
            (an_error_where_there_is_none, "error is 'KeyError', not '(absent)', on 'request'"),
            (no_trace_id, "trace_id is '(absent)', not 'b0b00001"),
            (another_trace_id, "trace_id is 'a11ce001a11ce001a11ce001a11ce001', not 'b0b00001"),
            (no_span_id, "bob-1 POST /checkout: span_id is '(absent)', on 'mail sent'"),
            (a_span_id_of_nothing, "span_id is '0000000000000000', on 'mail sent'"),
            (a_line_of_a_message_missing, "'counting like' by user '1' logged 0 times, not 1"),
            (a_line_of_a_message_missing, "27 lines in all, not 28"),
            (a_line_of_a_message_too_many, "'liked' by user '1' logged 2 times, not 1"),
            (a_line_of_an_opened_connection_missing, "alice-kettle connect /likes/kettle: 'count"),
            (a_line_of_a_closed_connection_missing, "'counter closed' by user '1' logged 0 times"),
            (another_event_of_a_message, "a line of no request: {"),
            (another_event_of_a_message, "'liked' by user '1' logged 0 times, not 1"),
            (a_message_by_the_other_user, "'liked' by user '2' logged 1 times, not 0"),
            (a_message_on_another_path, "path is '/likes/cup', not '/likes/kettle', on 'liked'"),
            (a_message_from_elsewhere, "ip is '', not '127.0.0.1', on 'liked'"),
            (a_line_of_a_message_under_another_id, "not 'a11ce006a11ce006a11ce006a11ce006', on"),
            (a_line_of_a_message_under_another_id, "alice-kettle connect /likes/kettle and of al"),
            (a_message_under_the_id_of_a_request, "GET / and of alice-like message /likes/kettle"),
            (an_end_under_the_id_of_its_message, "disconnect /likes/kettle and of alice-like mes"),
            (an_end_without_an_id, "request_id is '', not '(an id of its own)', on 'counter clos"),
            (an_answer_without_an_id, "alice-like message /likes/kettle: no request_id in the"),
            (no_connection_id, "alice-kettle: connection_id is (absent) 4 times"),
            (a_line_without_its_connection_id, "(absent) 1 times, connection of alice 3 times"),
            (
                a_line_with_the_id_of_another_connection,
                "alice-kettle: connection_id is connection of alice 3 times, connection of bob 1",
            ),
            (one_connection_id_for_all, "the one: the connection_id of 2 connections"),
            (a_connection_id_per_message, "alice-kettle: connection_id is a11ce005a11ce005"),
            (a_request_with_a_connection_id, "connection_id is 'connection of alice', not '(abse"),
            (all_messages_after_the_requests, "no message was handled during a request"),
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

        assert check.overlapping(day.lines) == len(day.visits)

    def test_counts_messages_that_meet_a_request(self) -> None:
        """A message meets a request if one of its lines stands between first and last of it."""
        day = Day()

        assert check.meanwhile(day.lines) == len(day.messages)

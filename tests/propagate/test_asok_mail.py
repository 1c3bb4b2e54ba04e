"""Mail that Asok sends in a thread goes on from the request that sent it, and does not keep it.

needs: asok
"""

import gc
import logging
import smtplib
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from asok import current_request
from asok.exceptions import MailError
from asok.mail import Mail
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import asok_trace
from asok_trace.core.scope import Scope
from tests.gateway import sites
from tests.gateway.sites import PEER, Reply, Site
from tests.propagate.post import Post

SECONDS = 30

Call = Callable[..., Reply]
Records = list[logging.LogRecord]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Asok is configured for a port that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MAIL_HOST", "127.0.0.1")
        monkeypatch.setenv("MAIL_PORT", str(reserved.getsockname()[1]))
        monkeypatch.setenv("MAIL_TLS", "false")
        yield


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Scope | None, bool]]:
    """The scope that each mail was delivered in, and whether there was a current request."""
    seen: list[tuple[Scope | None, bool]] = []

    class Client(smtplib.SMTP):
        def sendmail(self, *args: Any, **kwargs: Any) -> Any:
            scope = asok_trace.current()
            seen.append((scope, bool(current_request)))
            return super().sendmail(*args, **kwargs)

    monkeypatch.setattr(smtplib, "SMTP", Client)
    return seen


def send(subject: str = "Thanks", **how: Any) -> Any:
    return Mail.send("ada@example.org", subject, "Your order.", from_addr="shop@example.org", **how)


def from_page(shop: Site, call: Call, **how: Any) -> tuple[str, Any]:
    """Send a mail from a page, as the user 7; return the request's id and the mail's thread."""
    threads: list[Any] = []

    def page(request: Any) -> str:
        request.user = SimpleNamespace(id=7)
        before = asok_trace.current()
        threads.append(send(**how))
        assert asok_trace.current() is before
        assert current_request.path == "/page"
        return "page"

    shop.views["page"] = page
    reply = call(shop.app, "/page")
    assert reply.body == b"page"
    return reply.ids[0], threads[0]


def stamp(record: logging.LogRecord) -> dict[str, Any]:
    """What we have put on a record."""
    own = ("request_id", "ip", "user", "path", "task")
    return {key: value for key, value in vars(record).items() if key in own}


def of_mail(records: Records) -> list[logging.LogRecord]:
    return [record for record in records if record.name == "asok.mail"]


def server(spans: InMemorySpanExporter) -> ReadableSpan:
    """The only server span."""
    [found] = [span for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER]
    return found


def mail_spans(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == "Mail._do_send"]


@pytest.mark.parametrize("threads", ["off", "watch", "carry"])
def test_a_mail_is_a_task_of_its_request(
    site: Site, call: Call, post: Post, sending: list[tuple[Scope, bool]], threads: str
) -> None:
    """It is delivered in a scope with the request's id and the task's name, open meanwhile and
    closed after; there is no current request, whatever else is done about threads."""
    with asok_trace.instrument(site.app, threads=threads):
        request_id, thread = from_page(site, call)
        thread.join(SECONDS)
    [letter] = post.letters
    assert "Subject: Thanks" in letter
    [(scope, with_request)] = sending
    assert (scope.kind, scope.name, scope.request_id) == ("task", "Mail._do_send", request_id)
    assert (scope.user, scope.ip, scope.path) == ("7", PEER, "/page")
    assert not with_request
    assert not scope.open


def test_the_line_about_a_mail_that_was_not_sent(
    shop: Site, call: Call, nobody: None, records: Records
) -> None:
    """Asok logs it in its thread: the line carries the request, the task, and asok's own place."""
    request_id, thread = from_page(shop, call)
    thread.join(SECONDS)
    [record] = of_mail(records)
    assert "Connection refused" in record.getMessage()
    assert record.funcName == "_do_send"
    assert stamp(record) == {
        "request_id": request_id,
        "ip": PEER,
        "user": "7",
        "path": "/page",
        "task": "Mail._do_send",
    }


def test_a_mail_does_not_keep_its_request(
    shop: Site, post: Post, sending: list[tuple[Scope, bool]]
) -> None:
    """The mail server stalls, the response is sent: the request can be freed, its scope is closed,
    and the mail goes on under its id."""
    post.open.clear()
    requests: list[weakref.ref[Any]] = []
    threads: list[threading.Thread] = []
    scopes: list[Scope | None] = []

    @shop.view
    def page(request: Any) -> str:
        requests.append(weakref.ref(request))
        scopes.append(asok_trace.current())
        threads.append(send())
        return "page"

    reply = sites.wsgi(shop.app, "/page")
    gc.collect()
    assert threads[0].is_alive()
    assert requests[0]() is None
    assert not scopes[0].open  # type: ignore[union-attr]
    post.open.set()
    threads[0].join(SECONDS)
    assert len(post.letters) == 1
    [(scope, _)] = sending
    assert [scope.request_id] == reply.ids


def test_the_span_of_a_mail(
    shop: Site, call: Call, post: Post, spans: InMemorySpanExporter
) -> None:
    """A child of the server span if it begins in time, however long it takes."""
    post.open.clear()
    threads: list[threading.Thread] = []

    @shop.view
    def page(request: Any) -> str:
        threads.append(send())
        assert post.called.wait(SECONDS)
        return "page"

    reply = call(shop.app, "/page")
    post.open.set()
    threads[0].join(SECONDS)
    [span] = mail_spans(spans)
    assert span.parent is not None
    assert span.parent.span_id == server(spans).context.span_id
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "request.id": reply.ids[0],
        "client.address": PEER,
        "url.path": "/page",
        "asok_trace.task": "Mail._do_send",
    }


def test_the_span_of_a_mail_that_begins_late(
    shop: Site, call: Call, post: Post, spans: InMemorySpanExporter
) -> None:
    """Its thread starts when the request is over: a root with a link, and the request's id."""
    begin: list[Callable[..., None]] = []

    @shop.view
    def page(request: Any) -> str:
        begin.append(Mail._do_send)  # as asok hands it to the thread
        return "page"

    reply = call(shop.app, "/page")
    port = post.server_address[1]
    letter = ("shop@example.org", ["ada@example.org"], "Hello", "127.0.0.1", port, None, None)
    thread = threading.Thread(target=begin[0], args=(*letter, False))
    thread.start()
    thread.join(SECONDS)
    [span] = mail_spans(spans)
    assert span.parent is None
    [link] = span.links
    assert link.context.span_id == server(spans).context.span_id
    assert (span.attributes or {})["request.id"] == reply.ids[0]


@pytest.mark.parametrize("logger_off", [False, True])
def test_the_span_of_a_mail_that_was_not_sent(
    shop: Site,
    call: Call,
    post: Post,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    logger_off: bool,
) -> None:
    """It has failed, with the exception that asok only logs, also where that is not logged."""
    monkeypatch.setattr(logging.getLogger("asok.mail"), "disabled", logger_off)
    post.full = True
    _, thread = from_page(shop, call)
    thread.join(SECONDS)
    [span] = mail_spans(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "SMTPRecipientsRefused"


def test_a_mail_sent_at_once(
    shop: Site, call: Call, post: Post, spans: InMemorySpanExporter, records: Records
) -> None:
    """``sync=True`` delivers before it returns, and raises asok's MailError with its cause."""
    request_id, thread = from_page(shop, call, sync=True)
    assert thread is None
    assert len(post.letters) == 1
    post.full = True
    raised: list[BaseException] = []

    @shop.view
    def failing(request: Any) -> str:
        try:
            send(sync=True)
        except MailError as error:
            raised.append(error)
        return "failing"

    reply = call(shop.app, "/failing")
    [error] = raised
    assert isinstance(error.__cause__, smtplib.SMTPRecipientsRefused)
    assert not getattr(error, "__notes__", [])
    [record] = of_mail(records)
    assert [stamp(record)["request_id"]] == reply.ids
    good, bad = mail_spans(spans)
    assert (good.attributes or {})["request.id"] == request_id
    assert good.status.status_code is StatusCode.UNSET
    assert (bad.attributes or {})["error.type"] == "MailError"


def test_a_mail_that_nobodys_request_sends(
    shop: Site, post: Post, sending: list[tuple[Scope | None, bool]], records: Records
) -> None:
    """It is sent, as before, in no scope; a failure is logged without a stamp."""
    send().join(SECONDS)
    assert sending == [(None, False)]
    post.full = True
    send().join(SECONDS)
    with pytest.raises(MailError, match="452"):
        send(sync=True)
    assert len(post.letters) == 1
    assert [stamp(record) for record in of_mail(records)] == [{}, {}]


def test_after_undo(
    shop: Site, call: Call, post: Post, sending: list[tuple[Scope | None, bool]]
) -> None:
    """A mail is asok's own affair again."""
    asok_trace.instrument(shop.app).undo()

    @shop.view
    def page(request: Any) -> str:
        send().join(SECONDS)
        return "page"

    call(shop.app, "/page")
    assert len(post.letters) == 1
    assert sending == [(None, False)]

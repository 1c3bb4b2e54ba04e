"""The strict runtime context: what is detached elsewhere, out of order, twice, or never."""

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import opentelemetry.context as api
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context

import asok_trace
from asok_trace.core import errors, findings, settings
from asok_trace.detect import attachments
from asok_trace.detect.otel_context import StrictContext
from tests.detect.strict import complaints, line, only, strict_context, tracer


@pytest.fixture(autouse=True)
def strict(caplog: pytest.LogCaptureFixture) -> Iterator[StrictContext]:
    """OpenTelemetry with our context, which never lets it complain by itself."""
    with strict_context() as made:
        yield made
    assert complaints(caplog) == []


def test_what_is_detached_where_it_was_attached_is_no_finding(strict: StrictContext) -> None:
    """attach, get_current and detach do what the plain context does, nested and shared."""
    outer, inner = Context({"a": 1}), Context({"a": 2})
    first = api.attach(outer)
    second = api.attach(inner)
    third = api.attach(inner)
    assert api.get_current() is inner
    api.detach(third)
    assert api.get_current() is inner
    api.detach(second)
    assert api.get_current() is outer
    api.detach(first)
    assert api.get_current() == {}
    with tracer.start_as_current_span("a") as a, tracer.start_as_current_span("b"):
        assert trace.get_current_span().parent.span_id == a.get_span_context().span_id
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_worked, strict.get_current()).result() is not None
    gc.collect()
    assert findings.findings() == []


def _worked(context: Context) -> object:
    token = api.attach(context)
    try:
        with tracer.start_as_current_span("job") as span:
            return span
    finally:
        api.detach(token)


def test_what_attach_returns_is_a_token_to_those_who_look() -> None:
    """It has what a contextvars.Token has, and passes for one."""
    before = api.get_current()
    token = api.attach(Context({"a": 1}))
    assert isinstance(token, contextvars.Token)
    assert token.old_value is token.MISSING or token.old_value is before
    assert token.var is api._RUNTIME_CONTEXT._current_context
    with token:  # from Python 3.14 on
        assert api.get_current() == {"a": 1}
    assert api.get_current() is before
    assert findings.findings() == []


def test_a_detach_in_another_thread_names_both() -> None:
    """Once, with the opener and its thread, the closer and its thread; the state is left alone."""

    def opened() -> Any:
        return api.attach(Context({"a": 1}))  # opener

    def closed() -> None:
        api.detach(token)  # closer
        states.append(dict(api.get_current()))

    states: list[Any] = []
    token = opened()
    thread = threading.Thread(target=closed, name="elsewhere")
    thread.start()
    thread.join()
    assert api.get_current() == {"a": 1}
    assert states == [{}]
    found = only()
    assert (found.kind, found.slug, found.count) == ("leak", "foreign", 1)
    assert found.callsite == f"{line(closed, '# closer')} closed"
    assert found.origin == f"attached at {line(opened, '# opener')} opened"
    assert found.thread == "elsewhere"
    assert "in MainThread was detached in another thread" in found.message
    assert found.key == "foreign:tests.detect.test_otel_context.closed"
    api.detach(token)  # where it belongs, at last: nothing more to say
    assert api.get_current() == {}
    assert only() == found


def test_a_detach_in_another_context_of_the_same_thread() -> None:
    """A copied context is another one; it is named as what it is."""
    token = api.attach(Context({"a": 1}))
    contextvars.copy_context().run(api.detach, token)
    assert "was detached in another contextvars.Context" in only().message
    assert only().slug == "foreign"
    api.detach(token)


def test_two_mistakes_in_one_function_are_two_findings() -> None:
    """They are told apart by the line of the closer."""
    first, second = api.attach(Context({"a": 1})), api.attach(Context({"a": 2}))
    contextvars.copy_context().run(api.detach, second)
    contextvars.copy_context().run(api.detach, first)
    assert [found.slug for found in findings.findings()] == ["foreign", "foreign"]
    api.detach(second)
    api.detach(first)


def test_in_another_thread_but_the_same_context_it_is_right() -> None:
    """Contexts are what is attached to: a server may go on with one in another thread."""
    context = contextvars.copy_context()
    token = context.run(api.attach, Context({"a": 1}))
    thread = threading.Thread(target=context.run, args=(api.detach, token))
    thread.start()
    thread.join()
    assert context.run(api.get_current) == {}
    assert findings.findings() == []


def test_a_detach_in_another_task_names_both_tasks() -> None:
    """The closer's task is the finding's, the opener's is in the message."""

    async def opens() -> Any:
        return api.attach(Context({"a": 1}))  # opener

    async def closes(token: Any) -> None:
        api.detach(token)  # closer

    async def main() -> None:
        token = await asyncio.create_task(opens(), name="first")
        await asyncio.create_task(closes(token), name="second")

    asyncio.run(main())
    found = only()
    assert found.slug == "foreign"
    assert found.task == "second closes()"
    assert "MainThread, first opens() was detached in another task" in found.message
    assert found.callsite == f"{line(closes, '# closer')} closes"
    assert found.origin == f"attached at {line(opens, '# opener')} opens"


def test_a_second_detach_is_found(caplog: pytest.LogCaptureFixture) -> None:
    """Once per place, however often; and it changes nothing."""
    token = api.attach(Context({"a": 1}))
    api.detach(token)
    for _ in range(3):
        api.detach(token)  # again
    found = only()
    assert (found.slug, found.count) == ("foreign", 3)
    assert "was detached twice" in found.message
    assert found.callsite.startswith(line(test_a_second_detach_is_found, "# again"))
    assert [r.levelno for r in caplog.records if r.name == "asok_trace"] == [logging.WARNING]
    assert api.get_current() == {}


def test_out_of_order_is_found_where_it_does_harm() -> None:
    """The second detach makes a context current that is over; the finding tells of both."""
    outer = api.attach(Context({"a": 1}))  # below
    inner = api.attach(Context({"a": 2}))  # above
    api.detach(outer)  # too early
    assert findings.findings() == []
    api.detach(inner)  # too late
    assert api.get_current() == {"a": 1}  # as with the plain context
    found = only()
    test = test_out_of_order_is_found_where_it_does_harm
    assert found.slug == "foreign"
    assert found.callsite.startswith(line(test, "# too late"))
    assert line(test, "# above") in found.origin
    assert f"attached at {line(test, '# below')}" in found.message
    assert f"detached at {line(test, '# too early')}" in found.message
    api._RUNTIME_CONTEXT._current_context.set(Context())


def test_what_ends_with_the_one_around_it_is_not_out_of_order() -> None:
    """Instrumentations attach something and leave it to whoever is around them."""
    kept = []
    with tracer.start_as_current_span("around"):
        kept.append(api.attach(Context({"a": 1})))
    assert findings.findings() == []
    assert api.get_current() == {}


def test_a_token_thrown_away_is_unclosed() -> None:
    """Counted per place, told with the opener; what threw it away is over by then."""

    def forgets() -> None:
        api.attach(baggage.set_baggage("shop", "1"))  # forgotten

    for _ in range(2):
        contextvars.copy_context().run(forgets)
    found = only()
    assert (found.slug, found.count) == ("unclosed", 2)
    assert found.callsite == f"{line(forgets, '# forgotten')} forgets"
    assert found.key == "unclosed:tests.detect.test_otel_context.forgets"
    assert found.request_id is None


def test_an_unclosed_one_is_told_by_the_next_detach(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has to ask for it; not inside the unit of work in which it happened."""
    with asok_trace.scope("nightly") as scope:
        contextvars.copy_context().run(api.attach, Context())
        with tracer.start_as_current_span("in it"):
            pass
        assert caplog.records == []
    with tracer.start_as_current_span("after it"):
        pass
    [record] = caplog.records
    assert record.getMessage().startswith("unclosed: ")
    assert only().request_id == scope.request_id
    assert only().path == "nightly"


def test_what_a_library_or_opentelemetry_leaves_attached_is_not_reported() -> None:
    """Nobody could write anything else instead."""
    namespace = {"api": api, "__name__": "opentelemetry.instrumentation.queue"}
    exec("def attach(): api.attach(api.Context())", namespace)
    contextvars.copy_context().run(namespace["attach"])
    compiled = compile("def work(): api.attach(api.Context())", logging.__file__, "exec")
    library = {"api": api, "__name__": "somelibrary"}
    exec(compiled, library)
    contextvars.copy_context().run(library["work"])
    assert findings.findings() == []


def test_while_somebody_logs_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A collection may end a generator while a handler holds its lock: it is told later."""
    token = api.attach(Context())

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            contextvars.copy_context().run(api.detach, token)
            seen.append([r.name for r in caplog.records])

    seen: list[list[str]] = []
    logger = logging.getLogger("shop")
    logger.addHandler(handler := Handler())
    try:
        logger.warning("one line")
    finally:
        logger.removeHandler(handler)
    assert seen == [[]]
    assert only().slug == "foreign"
    assert [r.name for r in caplog.records] == ["shop", "asok_trace"]
    api.detach(token)


def test_nothing_is_kept_alive() -> None:
    """Neither the context nor the span, nor who attached them, whether detached or dropped."""

    class Thing:
        pass

    def leaks(detach: bool) -> list[weakref.ref[Any]]:
        thing, context = Thing(), Context({"a": Thing()})
        token = api.attach(context)
        if detach:
            api.detach(token)
        return [weakref.ref(thing), weakref.ref(context), weakref.ref(context["a"])]

    for detach in (True, False):
        refs = contextvars.copy_context().run(leaks, detach)
        assert [ref() for ref in refs] == [None, None, None]
    assert only().slug == "unclosed"


def test_what_waits_is_bounded() -> None:
    """A request that forgets thousands does not fill the memory."""
    with asok_trace.scope("import"):
        for _ in range(3 * attachments.KEPT):
            contextvars.copy_context().run(api.attach, Context())
        assert len(attachments.dropped) == attachments.KEPT
    assert only().slug == "unclosed"
    assert not attachments.dropped


def test_at_the_level_off_it_is_the_plain_context(caplog: pytest.LogCaptureFixture) -> None:
    """Its tokens are the plain ones, and OpenTelemetry complains as it does."""
    settings.set_default(settings.Settings(level="off"))
    token = api.attach(Context({"a": 1}))
    assert type(token) is contextvars.Token
    api.detach(token)
    api.detach(token)
    [record] = complaints(caplog)
    assert record.getMessage() == "Failed to detach context"
    caplog.clear()
    assert findings.findings() == []


def test_a_fault_of_ours_leaves_the_plain_context(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once; attach and detach go on."""

    def fails() -> None:
        raise LookupError("a fault")

    monkeypatch.setattr(attachments, "task", fails)
    for _ in range(2):
        token = api.attach(Context({"a": 1}))
        assert api.get_current() == {"a": 1}
        api.detach(token)
        assert api.get_current() == {}
    assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [LookupError]
    assert attachments.watching in errors.PIECES
    assert not attachments.watching.working


def test_any_mapping_can_be_attached() -> None:
    """Nothing but a dictionary was asked for, ever."""
    with tracer.start_as_current_span("around"):
        token = api.attach({"a": 1})  # type: ignore[arg-type]
        assert api.get_current() == {"a": 1}
        api.detach(token)
    assert findings.findings() == []

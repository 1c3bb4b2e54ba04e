"""Lines outside any request: seen once, told by their cause, and no others."""

import asyncio
import gc
import logging
import logging.handlers
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
import structlog

import asok_trace
from asok_trace.core import findings, settings
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect import orphans
from tests.detect.places import SECONDS, found, in_pool, in_thread, library, place, the_only

log = logging.getLogger("shop.orders")


@pytest.fixture(autouse=True)
def serving() -> None:
    """A request was served."""
    findings.serve()


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    """What structlog logs, through `inject`, to nowhere else."""
    captured: list[dict[str, Any]] = []

    def capture(_logger: Any, _name: str, event: Any) -> Any:
        captured.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[asok_trace.inject, capture])
    return captured


@pytest.fixture
def stamped() -> Iterator[None]:
    """Every record of the standard library is stamped."""
    log.setLevel(logging.DEBUG)
    with asok_trace.stamp_logging():
        yield


# Classified.


def test_before_the_first_request_lines_are_counted(lines: list[dict[str, Any]]) -> None:
    """Nothing is wrong with a line at startup, or of a command."""
    findings.clear()
    for _ in range(3):
        structlog.get_logger().info("starting")
    assert (len(lines), found(), findings.totals()) == (3, [], "startup 3")


def test_a_line_with_no_request_behind_it(lines: list[dict[str, Any]]) -> None:
    """It says where, and how to make a unit of work of it."""

    def nightly() -> None:
        structlog.get_logger().info("tick")  # the tick

    nightly()
    finding = the_only()
    assert (finding.slug, finding.kind, finding.origin) == ("outside", "orphan", None)
    assert finding.callsite == f"{place('the tick')} nightly"
    assert finding.message == "line 'tick' logged with no request behind it"
    assert 'asok_trace.scope("' in finding.fix
    assert finding.key == f"outside:{__name__}.nightly"
    assert lines == [{"event": "tick"}]


def test_a_line_that_was_lost(lines: list[dict[str, Any]]) -> None:
    """It names the spawn site, the request, and what to hand over."""

    def charge() -> None:
        structlog.get_logger().info("charged")  # the charge

    ACTIVE.set(Scope("an-id", "http", method="POST", path="/cart"))
    with asok_trace.propagate_threads("watch"):
        thread = threading.Thread(target=charge, name="charger")
        thread.start()  # the spawn
        thread.join(SECONDS)
    finding = the_only()
    assert finding.slug == "lost"
    assert finding.callsite == f"{place('the charge')} charge"
    assert finding.origin == f"started at {place('the spawn')} test_a_line_that_was_lost"
    assert (finding.request_id, finding.path) == ("an-id", "POST /cart")
    assert finding.thread == "charger"
    assert finding.fix.startswith("hand over asok_trace.wrap(charge) there")
    assert lines == [{"event": "charged"}]


def test_what_a_unit_of_work_loses_is_lost_before_any_request(
    lines: list[dict[str, Any]],
) -> None:
    """A worker process serves no requests."""
    findings.clear()
    with asok_trace.propagate_threads("watch"), asok_trace.scope("consume"):
        in_thread(lambda: structlog.get_logger().info("x"))
    assert the_only().path == "consume"


def test_lines_of_a_request_are_none(lines: list[dict[str, Any]], stamped: None) -> None:
    """Nor those of a unit of work, nor where the context is carried or bound."""
    with asok_trace.scope("nightly"):
        structlog.get_logger().info("x")
        log.info("x")
        in_thread(asok_trace.wrap(lambda: log.info("x")))
        with asok_trace.propagate_threads():
            in_thread(lambda: log.info("x"))
            in_pool(lambda: structlog.get_logger().info("x"))
    assert (found(), findings.totals()) == ([], "")


@pytest.mark.parametrize("level", ["off", "basic"])
def test_the_level_off_looks_at_nothing(level: str, lines: list[dict[str, Any]]) -> None:
    """Nor counts; each other level does."""
    undo = settings.want(level)
    structlog.get_logger().info("x")
    undo()
    assert len(findings.sites) == (level != "off")


# What was handed over.


class Worker(threading.Thread):
    def run(self) -> None:
        log.info("x")


class Callable_:
    def __call__(self) -> None:
        log.info("x")

    def method(self) -> None:
        log.info("x")


def decorated(function: Callable[[], None]) -> Callable[[], None]:
    def around() -> None:
        function()

    around.__qualname__ = function.__qualname__
    return around


@decorated
def work() -> None:
    log.info("x")


def timed(function: Callable[[], None]) -> threading.Thread:
    return threading.Timer(0, function)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: threading.Thread(target=work), "work"),
        (lambda: threading.Thread(target=lambda: log.info("x")), "lambda: ..."),
        (lambda: threading.Thread(target=Callable_().method), "Callable_.method"),
        (lambda: threading.Thread(target=Callable_()), "Callable_(...)"),
        (lambda: timed(work), "work"),
        (Worker, "Worker.run"),
    ],
)
def test_the_fix_names_what_was_handed_over(
    make: Callable[[], threading.Thread], named: str, stamped: None
) -> None:
    """As the program would write it, not as the stack of the thread has it."""
    with asok_trace.propagate_threads("watch"), asok_trace.scope("a"):
        thread = make()
        thread.start()
        thread.join(SECONDS)
    assert f"asok_trace.wrap({named}) there" in the_only().fix


def test_the_fix_of_what_has_no_request_names_the_whole_work(stamped: None) -> None:
    """Not the helper that has logged: what the thread or the loop was given."""

    def helper() -> None:
        log.info("x")

    async def consume() -> None:
        helper()

    in_thread(lambda: asyncio.run(consume()))
    finding = the_only()
    assert 'scope("consume")' in finding.fix
    assert finding.task is not None
    assert finding.task.endswith(" consume()")


# Once.


def records_of(number: int) -> None:
    for _ in range(number):
        log.info("tick")


def test_each_line_of_a_loop_counts(stamped: None) -> None:
    """They come from one place, and are not one line."""
    records_of(5)
    assert found() == [("outside", 5)]


def test_many_handlers_see_one_line() -> None:
    """With a filter on each, and with every record stamped too."""
    log.setLevel(logging.DEBUG)
    handlers = [logging.NullHandler(), logging.StreamHandler(open(os.devnull, "w"))]  # noqa: SIM115
    for handler in handlers:
        handler.handle = handler.filter  # type: ignore[assignment,method-assign]
        handler.addFilter(asok_trace.RequestFilter())
        log.addHandler(handler)
    try:
        records_of(2)
        assert found() == [("outside", 2)]
        with asok_trace.stamp_logging():
            records_of(2)
        assert found() == [("outside", 4)]
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        handlers[1].stream.close()  # type: ignore[attr-defined]


def through_stdlib(**configured: Any) -> Any:
    """A logger of structlog's whose lines go on to the standard library."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            asok_trace.inject,
            structlog.stdlib.render_to_log_kwargs,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        **configured,
    )
    logger = structlog.get_logger("shop.structlog")
    logging.getLogger("shop.structlog").setLevel(logging.DEBUG)
    return logger


@pytest.mark.parametrize(
    "wrapper",
    [None, structlog.stdlib.BoundLogger, structlog.make_filtering_bound_logger(logging.INFO)],
)
def test_a_line_that_goes_on_to_the_standard_library(wrapper: Any, stamped: None) -> None:
    """Is one line, whichever class the logger is of."""
    logger = through_stdlib(wrapper_class=wrapper)
    for _ in range(3):
        logger.info("said")
    assert found() == [("outside", 3)]
    records_of(1)
    assert found() == [("outside", 3), ("outside", 1)]


def test_the_one_line_configuration(stamped: None) -> None:
    """`inject` as the last processor notes the same, at the same place."""
    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.stdlib.LoggerFactory()
    )
    logging.getLogger(__name__).setLevel(logging.DEBUG)
    for _ in range(2):
        structlog.get_logger(__name__).info("said")  # the short way
    assert found() == [("outside", 2)]
    assert the_only().callsite.startswith(place("the short way"))


@pytest.mark.parametrize("awaited", ["ainfo", "AsyncBoundLogger"])
@pytest.mark.parametrize("everything", [False, True], ids=["inject", "and stamp_logging"])
def test_an_awaited_line(awaited: str, everything: bool) -> None:
    """Logged by a pool's thread: the place is where it was awaited, and it is one line."""
    if awaited == "AsyncBoundLogger":
        logger = through_stdlib(wrapper_class=structlog.stdlib.AsyncBoundLogger)
    else:
        logger = through_stdlib(wrapper_class=structlog.stdlib.BoundLogger)

    async def consume() -> None:
        for _ in range(2):
            if awaited == "ainfo":
                await logger.ainfo("said")  # awaited
            else:
                await logger.info("said")  # awaited otherwise

    if everything:
        with asok_trace.stamp_logging():
            asyncio.run(consume())
    else:
        asyncio.run(consume())
    assert findings.counts() == {"outside": 2}
    if awaited == "ainfo":
        assert the_only().callsite.startswith(place("awaited"))


def formatting(**formatter: Any) -> logging.Handler:
    """A handler whose formatter stamps what did not come from structlog."""
    handler = logging.StreamHandler(open(os.devnull, "w"))  # noqa: SIM115  # closed by the test
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[asok_trace.inject],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    return handler


@pytest.mark.parametrize("everything", [False, True], ids=["formatter", "and stamp_logging"])
def test_a_formatter_that_stamps(everything: bool) -> None:
    """Two of them see one line, at the place that has logged it."""
    log.setLevel(logging.DEBUG)
    handlers = [formatting(), formatting()]
    for handler in handlers:
        log.addHandler(handler)
    try:
        if everything:
            with asok_trace.stamp_logging():
                records_of(2)
        else:
            records_of(2)
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.stream.close()  # type: ignore[attr-defined]
    assert found() == [("outside", 2)]
    assert the_only().callsite.endswith(" records_of")


def test_nothing_is_told_within_a_formatter() -> None:
    """Who formats holds the lock of its handler, and another thread that of another one."""
    log.setLevel(logging.DEBUG)
    handler = formatting()
    got: list[bool] = []

    def callback(_: object) -> None:
        free: list[bool] = []
        lock = handler.lock
        assert lock is not None

        def try_it() -> None:
            free.append(lock.acquire(blocking=False))
            if free[0]:
                lock.release()

        in_thread(try_it)
        got.extend(free)

    asok_trace.on_finding(callback)
    log.addHandler(handler)
    try:
        records_of(1)
        assert got == []
        findings.serve()
    finally:
        log.removeHandler(handler)
        handler.stream.close()  # type: ignore[attr-defined]
    assert got == [True]


def test_what_a_listening_thread_formats() -> None:
    """Behind a queue, the line was seen where it was logged, or not at all."""
    log.setLevel(logging.DEBUG)
    behind = formatting()
    behind.addFilter(asok_trace.RequestFilter())
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    front = logging.handlers.QueueHandler(waiting)
    listener = logging.handlers.QueueListener(waiting, behind)
    log.addHandler(front)
    listener.start()
    try:
        with asok_trace.stamp_logging():
            records_of(3)
    finally:
        listener.stop()
        log.removeHandler(front)
        behind.stream.close()  # type: ignore[attr-defined]
    assert findings.counts() == {"outside": 3}


# None of the program's.


@pytest.mark.parametrize(
    "name",
    [
        *("gunicorn.access", "gunicorn.error", "uvicorn", "uvicorn.error", "uvicorn.access"),
        *("hypercorn.error", "waitress", "werkzeug", "asok_trace", "asok_trace.request"),
    ],
)
def test_servers_and_we_ourselves_belong_outside(name: str, stamped: None) -> None:
    """Their lines are not even counted."""
    logging.getLogger(name).warning("x")
    assert findings.totals() == ""


def test_a_librarys_housekeeping_is_counted(stamped: None) -> None:
    """Its thread has no line of the program in it: nobody could write anything else. The same
    line is found where the program calls it, at the program's place."""
    driver = library("def keep_house(): log.info('x')", log=log)["keep_house"]
    in_thread(driver)
    assert (found(), findings.totals()) == ([], "outside 1")
    driver()  # the call
    assert the_only().callsite.startswith(place("the call"))
    in_thread(driver)
    assert (found(), findings.totals()) == ([("outside", 1)], "outside 3 at 1 place")


def test_each_of_the_programs_calls_of_a_library_is_a_place(stamped: None) -> None:
    """Though the library logs them all at one."""
    send = library("def send(): log.info('x')", log=log)["send"]
    send()
    send()
    assert found() == [("outside", 1), ("outside", 1)]


def test_a_librarys_function_that_the_program_has_handed_over(stamped: None) -> None:
    """It is the request's work all the same; a thread that a library starts for itself is not."""
    driver = library(
        "def send(): log.info('x')\n"
        "def start():\n"
        "    thread = threading.Thread(target=send)\n"
        "    thread.start()\n"
        "    thread.join()\n",
        log=log,
        threading=threading,
    )
    with asok_trace.propagate_threads("watch"), asok_trace.scope("a"):
        driver["start"]()
        assert (found(), findings.totals()) == ([], "lost 1")
        in_pool(driver["send"])
    assert "asok_trace.wrap(send)" in the_only().fix


def test_what_a_loop_logs_for_itself(stamped: None) -> None:
    """The program has started the loop; that is no reason for what the loop says."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "from the program"})
        loop.call_soon(library("def fail(): raise LookupError")["fail"])
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [finding.callsite.rpartition(" ")[2] for finding in findings.findings()] == ["main"]


# Odd places.


def test_a_line_of_a_finalizer(stamped: None) -> None:
    """It is noted like any other, during a collection too."""

    class Held:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            log.info("gone")

    Held()
    gc.collect()
    assert the_only().callsite.endswith(" Held.__del__")


def test_a_line_of_a_signal_handler(stamped: None) -> None:
    """It is noted like any other."""

    def stop(*_: object) -> None:
        log.info("stopping")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert the_only().callsite.endswith(" stop")


def test_names_of_odd_code(stamped: None) -> None:
    """A lambda, a comprehension, a module."""
    (lambda: log.info("x"))()
    assert all([log.info("x") is None for _ in range(2)])  # noqa: C419
    exec(compile("log.info('x')", "script.py", "exec"), {"__name__": "script", "log": log})
    assert [finding.key.partition(":")[2] for finding in findings.findings()] == [
        f"{__name__}.test_names_of_odd_code.<lambda>",
        f"{__name__}.test_names_of_odd_code",
        "script.<module>",
    ]


class Awkward:
    """Something that is logged, and not to be asked for its text."""

    def __str__(self) -> str:
        raise LookupError("theirs")

    __repr__ = __str__


def test_a_line_that_is_no_text(lines: list[dict[str, Any]]) -> None:
    """It is not asked for any: that may run code, query a database, or raise."""
    structlog.get_logger().info(Awkward())
    assert the_only().message == "line 'Awkward' logged with no request behind it"
    assert orphans.watching.working


def test_a_callback_that_logs(lines: list[dict[str, Any]], stamped: None) -> None:
    """What it says is no finding; what comes after it is."""

    def callback(finding: Any) -> None:
        structlog.get_logger().warning("found", key=finding.key)
        log.warning("found %s", finding)

    asok_trace.on_finding(callback)
    structlog.get_logger().info("x")
    log.info("y")
    assert found() == [("outside", 1), ("outside", 1)]
    assert [line["event"] for line in lines] == ["x", "found", "found"] or len(lines) == 3


def test_a_fault_of_ours(
    lines: list[dict[str, Any]],
    stamped: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said once; lines are logged as if we were not there."""

    def fail(*_args: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(orphans, "speaker", fail)
    for _ in range(2):
        structlog.get_logger().info("x")
        log.info("x")
    assert len(lines) == 2
    [fault] = [record for record in caplog.records if record.name == "asok_trace"]
    assert "LookupError('ours')" in fault.getMessage()


# In other threads.


def test_call_soon_threadsafe_from_a_watched_thread(stamped: None) -> None:
    """The callback runs in a copy of the thread's context: it is lost as the thread is."""

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def told() -> None:
            log.info("told")
            done.set()

        def tell() -> None:
            loop.call_soon_threadsafe(told)

        with asok_trace.scope("a"):
            thread = threading.Thread(target=tell)
            thread.start()  # its thread
        await done.wait()
        await asyncio.to_thread(thread.join)

    with asok_trace.propagate_threads("watch"):
        asyncio.run(main())
    finding = the_only()
    assert finding.slug == "lost"
    assert finding.callsite.endswith(" told")
    assert finding.origin is not None
    assert place("its thread") in finding.origin


def test_a_loop_in_a_watched_thread(stamped: None) -> None:
    """Its tasks are lost, too."""

    async def main() -> None:
        await asyncio.create_task(task())

    async def task() -> None:
        log.info("x")

    with asok_trace.propagate_threads("watch"), asok_trace.scope("a"):
        in_thread(lambda: asyncio.run(main()))
    finding = the_only()
    assert (finding.slug, finding.task and finding.task.partition(" ")[2]) == ("lost", "task()")


def test_watching_changes_nothing(stamped: None) -> None:
    """A thread and a job find the context variables that they find without it, but for ours."""

    def variables() -> dict[str, object]:
        return {
            variable.name: value
            for variable, value in copy_context().items()
            if variable.name != "asok_trace_spawned"
        }

    def seen() -> list[dict[str, object]]:
        got: list[dict[str, object]] = []
        with asok_trace.scope("a"):
            structlog.contextvars.bind_contextvars(cart=7)
            in_thread(lambda: got.append(variables()))
            in_pool(lambda: got.append(variables()))
        return got

    without = seen()
    with asok_trace.propagate_threads("watch"):
        assert seen() == without
    assert all("asok_trace_scope" not in found for found in without)

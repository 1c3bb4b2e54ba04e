"""`core.findings`: what was found is bounded, told once, and forgotten by a child process."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

import asok_trace
from asok_trace import Finding, config
from asok_trace.core import errors, findings, settings, telling
from asok_trace.core.finding import LATE, LOST, OUTSIDE, STARTUP
from asok_trace.core.findings import SITES, Site


def found(slug: str = LOST, name: str = "billing.jobs.charge", **facts: Any) -> Site | None:
    """Add something, at a place that its name stands for."""
    known = {
        "message": "something happened",
        "callsite": f"billing/jobs.py:12 {name}",
        "fix": "write it otherwise",
        "key": f"{slug}:{name}",
    }
    return findings.add(slug, (None, 0), **known | facts)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What the logger ``asok_trace`` says: level and text."""
    caplog.set_level(logging.DEBUG, logger="asok_trace")

    class Told(list[tuple[int, str]]):
        def __iter__(self) -> Iterator[tuple[int, str]]:
            return iter([(r.levelno, r.getMessage()) for r in caplog.records])

        def __len__(self) -> int:
            return len(caplog.records)

    return Told()


# What a finding says.


def test_a_finding_holds_text_and_cannot_be_changed() -> None:
    """Strings and numbers, whatever was found."""
    found(origin="started at views.py:3 cart", request_id="an-id", path="POST /cart", task="t f()")
    [finding] = asok_trace.findings()
    values = [getattr(finding, name) for name in Finding.__dataclass_fields__]
    assert all(value is None or type(value) in (str, int, float) for value in values)
    with pytest.raises(FrozenInstanceError):
        finding.count = 2  # type: ignore[misc]
    assert (finding.kind, finding.slug, finding.count) == ("orphan", "lost", 1)


def test_its_text_says_all_of_it() -> None:
    """What, where, from where, how often, the fix, and how to ignore it."""
    site = found(origin="started at views.py:3 cart", request_id="an-id", path="POST /cart")
    assert site is not None
    assert str(site.finding()).splitlines() == [
        "lost: something happened",
        "  at       billing/jobs.py:12 billing.jobs.charge",
        "  from     started at views.py:3 cart, request an-id POST /cart",
        "  in       MainThread",
        "  fix      write it otherwise",
        "  ignore   lost:billing.jobs.charge",
    ]
    site.hit()
    assert "  seen     2 times since " in str(site.finding())


# Telling.


@pytest.mark.parametrize(("slug", "level"), [(OUTSIDE, logging.INFO), (LOST, logging.WARNING)])
def test_it_is_logged_once(slug: str, level: int, told: list[tuple[int, str]]) -> None:
    """However often it is found; what need not be a mistake as information."""
    for _ in range(3):
        found(slug)
    [(logged_at, text)] = told
    assert logged_at == level
    assert text.startswith(f"{slug}: something happened")
    assert [finding.count for finding in asok_trace.findings()] == [3]


def test_callbacks_get_it_once() -> None:
    """Each of them, until its handle is undone; undoing twice does nothing."""
    got: list[Finding] = []
    first, second = asok_trace.on_finding(got.append), asok_trace.on_finding(got.append)
    found()
    found()
    assert [finding.key for finding in got] == ["lost:billing.jobs.charge"] * 2
    first.undo()
    first.undo()
    found(name="b")
    assert len(got) == 3
    second.undo()
    found(name="c")
    assert len(got) == 3


def test_a_callback_that_raises_is_taken_out(told: list[tuple[int, str]]) -> None:
    """It is reported, once; the others are called; who added the finding notices nothing."""
    calls: list[str] = []

    def fails(finding: Finding) -> None:
        calls.append(finding.key)
        raise LookupError("theirs")

    asok_trace.on_finding(fails)
    asok_trace.on_finding(lambda finding: calls.append("other"))
    found(name="a")
    found(name="b")
    assert calls == ["lost:a", "other", "other"]
    [fault] = [text for level, text in told if level == logging.ERROR]
    assert "fails" in fault
    assert "LookupError('theirs')" in fault


def test_a_handler_that_raises(capsys: pytest.CaptureFixture[str]) -> None:
    """A logging handler of the program's that is broken breaks nothing but itself."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise LookupError("theirs")

    handler = Broken()
    logging.getLogger("asok_trace").addHandler(handler)
    got: list[Finding] = []
    asok_trace.on_finding(got.append)
    found(name="a")
    found(name="b")
    assert len(got) == len(asok_trace.findings()) == 2


def test_after_a_hundred_places_of_a_kind_the_log_is_silent(told: list[tuple[int, str]]) -> None:
    """The hundredth says so; another kind is logged; all are in ``findings()``."""
    for number in range(telling.LOGGED + 5):
        found(name=f"place{number}")
    texts = [text for _, text in told]
    assert len(texts) == telling.LOGGED
    assert "100th place of its kind" in texts[-1]
    found(LATE)
    assert len(told) == telling.LOGGED + 1
    assert len(asok_trace.findings()) == telling.LOGGED + 6


def test_what_is_found_quietly_is_counted() -> None:
    """It is nowhere but in the totals."""
    got: list[Finding] = []
    asok_trace.on_finding(got.append)
    found(OUTSIDE, quietly=True)
    found(OUTSIDE, quietly=True)
    assert (asok_trace.findings(), got) == ([], [])
    assert findings.totals() == "outside 2"


def test_what_is_deferred_is_told_when_a_request_begins(told: list[tuple[int, str]]) -> None:
    """Where it is found, somebody may hold the lock of a log handler."""
    found(deferred=True)
    assert len(told) == 0
    findings.serve()
    findings.serve()
    assert len(told) == 1


def test_telling_is_seen_by_its_own_thread_alone() -> None:
    """What a callback does is told apart from what others do meanwhile."""
    seen: list[bool] = []

    def callback(_: Finding) -> None:
        thread = threading.Thread(target=lambda: seen.append(telling.is_telling()))
        seen.append(telling.is_telling())
        thread.start()
        thread.join()

    asok_trace.on_finding(callback)
    found()
    assert [*seen, telling.is_telling()] == [True, False, False]


# Bounds.


def test_each_kind_has_room_of_its_own() -> None:
    """Further places are counted; what is harmless and everywhere hides nothing else."""
    for number in range(SITES + 50):
        found(OUTSIDE, f"place{number}")
    assert findings.full(OUTSIDE)
    assert found(LOST) is not None
    assert len(asok_trace.findings()) == SITES + 1
    assert findings.counts() == {OUTSIDE: SITES + 50, LOST: 1}
    assert findings.totals() == f"outside {SITES + 50} at {SITES} places, lost 1 at 1 place"


def test_ids_of_code_stay_its_own() -> None:
    """The code of a place is kept: what is compiled later cannot have its id."""
    for number in range(SITES + 50):
        made = compile(f"x = {number}", "made.py", "exec")
        key = (OUTSIDE, id(made), 0)
        assert key not in findings.sites
        facts = {"message": "m", "callsite": "c", "fix": "f", "key": f"outside:{number}"}
        site = findings.add(OUTSIDE, (made, 0), **facts)
        assert (site is None) == (number >= SITES)


def test_two_threads_at_one_new_place() -> None:
    """One finding, told once, with the count of both."""
    threads, got = 8, []
    asok_trace.on_finding(got.append)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(100):
            barrier = threading.Barrier(threads)

            def add(name: str = f"place{number}", barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                found(name=name)

            running = [threading.Thread(target=add) for _ in range(threads)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    assert [finding.count for finding in asok_trace.findings()] == [threads] * 100
    assert len(got) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_process_begins_anew() -> None:
    """It has found nothing and served nobody; what is ignored stays so."""
    findings.serve()
    found()
    findings.count(STARTUP)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = f"{len(findings.sites)} {findings.totals()!r} {findings.serving}"
            found()
            said += f" {findings.totals()}"
            os.write(write, said.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "0 '' False lost 1 at 1 place"
    os.waitpid(child, 0)
    assert findings.totals() == "startup 1, lost 1 at 1 place"


# Ignoring.


@pytest.mark.parametrize(
    "rule",
    [
        {"key": "lost:billing.jobs.charge"},
        {"key": "lost:*"},
        {"module": "billing"},
        {"module": "billing.jobs"},
        {"module": "b*"},
        {"thread": "Main*"},
        {"key": "lost:*", "module": "billing", "thread": "MainThread"},
    ],
    ids=str,
)
def test_what_a_rule_covers_is_not_told(rule: dict[str, str], told: list[tuple[int, str]]) -> None:
    """By key, by module with all below it, by thread."""
    got: list[Finding] = []
    asok_trace.on_finding(got.append)
    with asok_trace.ignore(**rule):
        site = found()
        assert (asok_trace.findings(), got, len(told)) == ([], [], 0)
        assert site is not None
        assert site.ignored
        assert findings.totals() == ""
        asok_trace.assert_clean()


@pytest.mark.parametrize(
    "rule",
    [
        {"key": "late:*"},
        {"key": "charge"},
        {"module": "bill"},
        {"module": "jobs"},
        {"thread": "Thread-*"},
        {"key": "lost:*", "module": "shop"},
    ],
    ids=str,
)
def test_what_no_rule_covers_is_told(rule: dict[str, str]) -> None:
    """All patterns of a rule have to match, and the whole of the text."""
    with asok_trace.ignore(**rule):
        found()
        assert len(asok_trace.findings()) == 1


def test_a_key_with_brackets_is_covered_by_itself() -> None:
    """Routes have them: brackets are nothing special in a pattern."""
    found(LATE, "/user/[id]")
    with asok_trace.ignore("late:/user/[id]"):
        assert asok_trace.findings() == []


def test_rules_hold_for_what_was_found_before() -> None:
    """And no longer once they are undone."""
    found()
    with asok_trace.ignore(module="billing"):
        assert asok_trace.findings() == []
    assert len(asok_trace.findings()) == 1


def test_the_setting_ignores_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ignore=`` of `setup`, and ``ASOK_TRACE_IGNORE``."""
    found()
    settings.set_default(settings.Settings(ignore=("late:*", "lost:billing.*")))
    assert asok_trace.findings() == []
    settings.set_default(settings.Settings())
    assert len(asok_trace.findings()) == 1
    monkeypatch.setenv("ASOK_TRACE_IGNORE", "late:*, lost:billing.*")
    config.apply_environment()
    assert asok_trace.findings() == []


def test_a_rule_of_nothing() -> None:
    """It would hide everything."""
    with pytest.raises(TypeError, match="Give one"):
        asok_trace.ignore()


# For tests.


def test_clean_or_not() -> None:
    """What is outside any request counts on demand; the error has the text of each finding."""
    asok_trace.assert_clean(outside=True)
    found(OUTSIDE)
    asok_trace.assert_clean()
    with pytest.raises(AssertionError, match=r"1 finding\n\noutside: something happened"):
        asok_trace.assert_clean(outside=True)
    found(LATE)
    found(LOST)
    with pytest.raises(AssertionError) as caught:
        asok_trace.assert_clean()
    assert str(caught.value).startswith("2 findings\n\nlate: something happened")
    assert "\n\nlost: something happened" in str(caught.value)


def test_a_fault_while_settling_is_contained(told: list[tuple[int, str]]) -> None:
    """What waits behind it is told."""

    def fail() -> None:
        raise LookupError("ours")

    findings.later(fail)
    findings.later(lambda: found() and None)
    assert len(asok_trace.findings()) == 1
    assert not telling.telling.working
    assert any("LookupError('ours')" in text for _, text in told)
    assert telling.telling in errors.PIECES


AT_EXIT = """
import asok_trace, logging, sys
from asok_trace.core import findings
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
code = (lambda: None).__code__
def found(slug, at, times):
    for _ in range(times):
        findings.add(slug, (code, at), message="m", callsite="c", fix="f", key="k")
"""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("found('lost', 1, 3); found('late', 2, 1)", "WARNING asok_trace found in all: lost 3 at"),
        ("found('lost', 1, 3); findings.tell_totals()", "WARNING asok_trace found in all: lost 3"),
        ("found('lost', 1, 1); found('late', 2, 1)", None),
        ("found('outside', 1, 5)", None),  # at INFO, which this program does not show
        ("found('lost', 1, 3); asok_trace.ignore('k')", None),
    ],
)
def test_totals_at_exit(found: str, said: str | None) -> None:
    """What was told once and found often is summed up when the process ends, once."""
    ran = subprocess.run(
        [sys.executable, "-c", AT_EXIT + found], capture_output=True, text=True, check=True
    )
    totals = [line for line in ran.stdout.splitlines() if "in all" in line]
    assert ran.stderr == ""
    assert len(totals) == (said is not None)
    assert all(line.startswith(said or "?") for line in totals)

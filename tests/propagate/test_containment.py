"""Each part of ours that goes along with asok's jobs, mail, generated pages and scheduled functions
is broken in turn: they do what they do without us, and the fault is reported once.

needs: asok, redis
"""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asok.background import background
from asok.cli import worker
from asok.exceptions import MailError
from asok.mail import Mail
from asok.scheduler import ScheduledTask
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from asok_trace import assemble
from asok_trace.core.scope import ACTIVE, Scope
from asok_trace.detect import explain
from asok_trace.frameworks import lookup
from asok_trace.frameworks.asok import FRAMEWORK
from asok_trace.gateway import notes
from asok_trace.propagate import carrier, elsewhere, jobs, work, wrap
from asok_trace.stamp import work_span
from tests.gateway.sites import Reply, Site
from tests.propagate.post import Post

SECONDS = 30

Call = Callable[..., Reply]
Faults = list[logging.LogRecord]


class BrokenError(Exception):
    """What a part of ours fails with."""


def broken(*_args: Any, **_kwargs: Any) -> Any:
    """In place of any function of ours."""
    raise BrokenError("broken")


# What is broken -> its owner. Beside the functions of these modules, what they call.
PARTS: dict[str, Any] = {
    "jobs._Running": jobs,
    "jobs._attempt": jobs,
    "jobs._put": jobs,
    "jobs.fork": jobs,
    "jobs.Work": jobs,
    "elsewhere.wrap": elsewhere,
    "notes._note_reported": notes,
    "elsewhere._in_this_context": elsewhere,
    "elsewhere.awaited": elsewhere,
    "elsewhere.without_request": elsewhere,
    "elsewhere._scheduled": elsewhere,
    "elsewhere._begun": elsewhere,
    "elsewhere._ended": elsewhere,
    "wrap.fork": wrap,
    "wrap._work": wrap,
    "wrap.name_of": wrap,
    "wrap.caller": wrap,
    "Work._open": work.Work,
    "Work._close": work.Work,
    "Work._start": work.Work,
    "work._without_request": work,
    "explain._passing": explain,
    "work_span.start": work_span,
    "WorkSpan.end": work_span.WorkSpan,
    "lookup.here": lookup,
    "framework.job": FRAMEWORK,
    "framework.queues_elsewhere": FRAMEWORK,
    "framework.variables": FRAMEWORK,
}


def day_of(site: Site, call: Call, post: Post) -> list[Any]:
    """What happens to a job that needs three attempts, to a mail that is sent and one that is not,
    to a page that is generated and to a function that runs twice by the clock."""
    seen: list[Any] = []

    def flaky(text: str) -> str:
        seen.append(text)
        if len(seen) < 3:
            raise LookupError("not yet")
        return text.upper()

    def page(request: Any) -> str:
        seen.append(background(flaky, "job", _retries=2, _backoff=0).result(SECONDS))
        send().join(SECONDS)
        post.full = True
        send().join(SECONDS)
        with pytest.raises(MailError) as error:
            send(sync=True)
        seen.append(str(error.value))
        post.full = False
        return "page"

    async def leaf(request: Any) -> str:
        return "<h1>Once</h1>"

    site.views.update(page=page, leaf=leaf)
    for path in ("/page", "/later/leaf"):
        reply = call(site.app, path)
        seen.append((reply.status, b"page" in reply.body, b"Once" in reply.body))

    def nightly(times: list[int]) -> None:
        times.append(len(times))
        if len(times) == 1:
            raise LookupError("no such night")

    times: list[int] = []
    task = ScheduledTask(3600.0, nightly, (times,))
    task._execute_task_safe()
    task._execute_task_safe()
    task.cancel()
    task._thread.join(SECONDS)
    seen += [times, len(post.letters)]
    post.letters.clear()
    return seen


def send(**how: Any) -> Any:
    return Mail.send(
        "ada@example.org", "Thanks", "Your order.", from_addr="shop@example.org", **how
    )


@pytest.fixture
def pages(tmp_path: Any) -> None:
    """``/later/leaf`` is generated when it is first asked for, ``views["leaf"]`` is awaited."""
    folder = tmp_path / "src" / "pages" / "later" / "[name]"
    folder.mkdir(parents=True)
    (folder / "page.py").write_text(
        "SSG = True\n"
        "async def render(request):\n"
        "    app = request.environ['asok.app']\n"
        "    return await app.views[request.params['name']](request)\n",
        encoding="utf-8",
    )


def assert_reported(faults: Faults) -> None:
    """Each fault once, with its traceback, what failed and what happens now."""
    names = [record.args[0] for record in faults if isinstance(record.args, tuple)]
    assert len(names) == len(set(names)), names
    for record in faults:
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], BrokenError)
        assert "went on without it" in record.getMessage()


@pytest.mark.parametrize("part", PARTS)
def test_a_broken_part(
    make_site: Callable[[], Site],
    pages: None,
    call: Call,
    post: Post,
    spans: InMemorySpanExporter,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Whichever it is, nobody notices, on the first day or the second, and it is said once."""
    monkeypatch.delenv("ASOK_QUEUE_BACKEND", raising=False)
    without_us = [day_of(make_site(), call, post) for _ in range(2)]
    site = make_site()
    with asok_trace.instrument(site.app):
        monkeypatch.setattr(PARTS[part], part.partition(".")[2], broken)
        first = day_of(site, call, post)
        reported = len(faults)
        second = day_of(site, call, post)
    assert [first, second] == without_us
    assert reported
    assert len(faults) == reported
    assert_reported(faults)
    assert ACTIVE.get() is None
    assert not trace.get_current_span().get_span_context().is_valid


# --- in a worker process -----------------------------------------------------------------------

# Asok still uses it.
deprecated = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

WORKERS_PARTS: dict[str, Any] = {
    "jobs._consume": jobs,
    "jobs._fail": jobs,
    "jobs._end": jobs,
    "jobs._put": jobs,
    "jobs.received": jobs,
    "jobs.to_carrier": jobs,
    "carrier._texts": carrier,
    "Work._open": work.Work,
    "Work._close": work.Work,
    "Work._start": work.Work,
    "Scope.close": Scope,
    "framework.job": FRAMEWORK,
    "framework.queues_elsewhere": FRAMEWORK,
}


def chargeable(how: str) -> str:
    """A job of the worker's."""
    if how == "fails":
        raise LookupError("no money")
    if how == "leaves":
        raise SystemExit(3)
    return how.upper()


@pytest.fixture
def in_worker(queue: Any) -> Iterator[Any]:
    """This process is hooked up as asok's worker is, with a Redis server."""
    with assemble.install_worker(FRAMEWORK):
        yield queue


def work_off(client: Any) -> list[Any]:
    """Queue a job of each kind and do it; how each ended."""
    ended: list[Any] = []
    for how in ("works", "fails", "leaves"):
        job = background(chargeable, how)
        raised = None
        try:
            worker._execute_job_in_thread(client, client.rpop("asok:queue"))
        except SystemExit as error:
            raised = error.code
        status = json.loads(client.get(f"asok:job:{job.job_id}"))  # type: ignore[attr-defined]
        ended.append((status["status"], status["result"], status["error"], raised))
    return ended


ENDED = [
    ("completed", "WORKS", None, None),
    ("failed", None, "LookupError: no money", None),
    ("running", None, None, 3),
]


@deprecated
@pytest.mark.parametrize("part", WORKERS_PARTS)
def test_a_broken_part_of_the_worker(
    in_worker: Any,
    spans: InMemorySpanExporter,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Its jobs end as they end without us, and it is said once."""
    monkeypatch.setattr(WORKERS_PARTS[part], part.partition(".")[2], broken)
    assert work_off(in_worker) == ENDED
    reported = len(faults)
    assert reported
    assert work_off(in_worker) == ENDED
    assert len(faults) == reported
    assert_reported(faults)
    assert ACTIVE.get() is None
    assert not trace.get_current_span().get_span_context().is_valid


@deprecated
def test_how_the_workers_jobs_end(in_worker: Any, spans: InMemorySpanExporter) -> None:
    """With nothing broken: each span says how its job ended, also of one that asok's worker
    does not catch."""
    assert work_off(in_worker) == ENDED
    told = [dict(span.attributes or {}) for span in spans.get_finished_spans()]
    assert [(one["asok_trace.job.status"], one.get("error.type")) for one in told] == [
        ("completed", None),
        ("failed", "LookupError"),
        ("failed", "SystemExit"),
    ]


@deprecated
def test_a_signed_job_that_is_odd(in_worker: Any, faults: Faults) -> None:
    """Keys that hold anything but what asok puts there are no fault of ours."""
    job = local_job(retries="many", retry_count={}, queue=["a"], id=[], asok_trace=["no mapping"])
    with pytest.raises(TypeError):  # asok's own, which compares these
        worker._execute_job_in_thread(in_worker, job)
    assert not faults


def local_job(**odd: Any) -> bytes:
    """A job with a valid signature, as Redis holds it."""
    from asok.background import _build_job_dict, _sign_job_payload

    made = {**_build_job_dict("1", chargeable, ("fails",), {}, "default", 0, 2), **odd}
    text = json.dumps(made, sort_keys=True)
    return json.dumps({"v": 1, "job": text, "sig": _sign_job_payload(text)}).encode()

"""The pytest plugin: small projects with real applications, each in a pytest of its own.

needs: asok, flask, pytest_asyncio, quart, xdist
"""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    default::asok_trace.OrphanWarning
    default::asok_trace.LeakWarning
"""

# What all projects have: a shop, and its client.
CONFTEST = """
import threading
import asok_trace, flask, pytest, structlog

structlog.configure(
    processors=[asok_trace.inject, structlog.processors.KeyValueRenderer()],
    logger_factory=structlog.ReturnLoggerFactory(),
)
log = structlog.get_logger()
KEPT = []
GO = threading.Event()

def charge():
    log.info("charged")

def mail():
    assert GO.wait(30)
    log.info("mailed")

def make():
    app = flask.Flask("shop")
    app.started = []

    @app.get("/ok")
    def ok():
        log.info("fine")
        return "ok"

    @app.get("/lost")
    def lost():
        thread = threading.Thread(target=charge)
        thread.start()
        thread.join()
        return "ok"

    @app.get("/late")
    def late():
        app.started.append(threading.Thread(target=asok_trace.wrap(mail)))
        app.started[-1].start()
        return "ok"

    @app.get("/plain")
    def plain():
        app.started.append(threading.Thread(target=mail))
        app.started[-1].start()
        return "ok"

    @app.get("/bleed")
    def bleed():
        structlog.contextvars.bind_contextvars(cart=7)
        return "ok"

    @app.get("/keep")
    def keep():
        KEPT.append(flask.request._get_current_object())
        return "ok"

    return app

@pytest.fixture
def app():
    made = make()
    asok_trace.instrument(made)
    return made

@pytest.fixture
def client(app):
    return app.test_client()
"""

EACH_KIND = """
import asok_trace, contextvars, flask, pytest
from conftest import GO, KEPT, log

def test_lost(client):
    client.get("/lost").text

def test_late(app, client):
    client.get("/late").text
    GO.set()
    app.started[0].join()

def test_bleed(client):
    client.get("/bleed").text

def test_foreign(client):
    work = asok_trace.scope("nightly")
    contextvars.copy_context().run(work.__enter__)
    work.__exit__(None, None, None)

def test_unclosed(client):
    asok_trace.scope("nightly").__enter__()

def test_retained(client):
    client.get("/keep").text

def test_left_current(app):
    app.test_request_context("/").push()

HELD = []

def test_left_open():
    HELD.append(asok_trace.scope("held"))
    HELD[0].__enter__()
"""

SLUGS = {
    "test_lost": "lost",
    "test_late": "late",
    "test_bleed": "bleed",
    "test_foreign": "foreign",
    "test_unclosed": "unclosed",
    "test_retained": "retained",
    "test_left_current": "bleed",
    "test_left_open": "unclosed",
}

CLEAN = """
import asok_trace, pytest, structlog
from conftest import KEPT, log

@pytest.mark.parametrize("turn", range(3))
def test_a_request(client, turn):
    assert client.get("/ok", headers={"X-Request-ID": "the-same"}).text == "ok"
    log.info("outside any request")

def test_work():
    with asok_trace.scope("nightly"):
        log.info("working")

def test_a_context(app):
    with app.test_request_context("/"):
        log.info("by hand")

def test_a_client_that_keeps_its_context(client):
    with client:
        client.get("/ok")

@pytest.fixture
def pushed(app):
    with app.test_request_context("/"):
        yield

def test_a_fixture_that_pushes(pushed):
    log.info("by hand")

def test_nothing():
    pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in ("ASOK_TRACE_LEVEL", "ASOK_TRACE_GRACE", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")  # no reason is cut short
    pytester.makeini(INI + "asok_trace_grace = 0.2\n")
    pytester.makeconftest(CONFTEST)
    return pytester


def lines(result: pytest.RunResult) -> str:
    return result.stdout.str() + result.stderr.str()


def warned(result: pytest.RunResult) -> dict[str, list[str]]:
    """Test -> the slugs of the findings that pytest warned of for it."""
    found: dict[str, list[str]] = {}
    test = ""
    for line in result.outlines:
        if line.startswith("test_") and "::" in line and " " not in line.strip():
            test = line.strip().rpartition("::")[2]
        elif "Warning: " in line and ("OrphanWarning" in line or "LeakWarning" in line):
            found.setdefault(test, []).append(line.partition("Warning: ")[2].partition(":")[0])
    return found


def failed(result: pytest.RunResult) -> dict[str, list[str]]:
    """Test -> the slugs for which it failed, or its teardown did; needs ``-rfE``."""
    found: dict[str, list[str]] = {}
    for line in result.outlines:
        about, word, why = line.partition(" - Failed: ")
        if word and about.startswith(("FAILED ", "ERROR ")):
            found.setdefault(about.rpartition("::")[2], []).append(why.partition(":")[0])
    return found


def test_each_kind_is_silent_when_off(project: pytest.Pytester) -> None:
    """Without the option nothing is warned of, summed up or failed; whatever is left behind."""
    project.makepyfile(EACH_KIND)
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=len(SLUGS), warnings=0)
    assert "asok_trace:" not in result.stdout.str()


def test_each_kind_is_a_warning_of_its_test(project: pytest.Pytester) -> None:
    """``report``: every test passes; each finding is a warning of the test that made it, and in
    the summary with its fix and its test."""
    project.makepyfile(EACH_KIND)
    result = project.runpytest_subprocess("--asok-trace=report")
    result.assert_outcomes(passed=len(SLUGS), warnings=len(SLUGS))
    assert warned(result) == {test: [slug] for test, slug in SLUGS.items()}
    result.stdout.fnmatch_lines(
        [
            "asok_trace: report",
            "* asok_trace: 8 findings *",
            "lost: line 'charged' logged outside any request, by what GET /lost *",
            "  at       conftest.py:* charge",
            "  fix      *asok_trace.wrap(charge)*",
            "  tests    *::test_lost",
        ]
    )
    assert result.ret == 0


def test_each_kind_fails_its_test(project: pytest.Pytester) -> None:
    """``strict``: each finding fails the test that made it, and no other; its text says why."""
    project.makepyfile(EACH_KIND)
    result = project.runpytest_subprocess("--asok-trace=strict", "-rfE")
    # What a test leaves is seen when its fixtures are gone: an error at its teardown.
    assert failed(result) == {test: [slug] for test, slug in SLUGS.items()}
    assert result.parseoutcomes().get("warnings", 0) == 0


@pytest.mark.parametrize("mode", ["report", "strict"])
def test_a_clean_project_passes(project: pytest.Pytester, mode: str) -> None:
    """Requests with one id, scopes, pushed contexts, lines outside any request: no finding, no
    warning, no summary."""
    project.makepyfile(CLEAN)
    result = project.runpytest_subprocess(f"--asok-trace={mode}")
    result.assert_outcomes(passed=8, warnings=0)
    assert "finding" not in result.stdout.str()


def test_the_ini_file_switches_it_on_and_the_option_off(project: pytest.Pytester) -> None:
    """``asok_trace = strict`` is as good as the option, which wins."""
    project.makeini(INI + "asok_trace = strict\n")
    project.makepyfile("def test_lost(client): client.get('/lost').text")
    project.runpytest_subprocess().assert_outcomes(failed=1)
    project.runpytest_subprocess("--asok-trace=off").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("asok_trace = loud", "asok_trace='loud' is not a mode. Use one of *"),
        (
            "asok_trace = strict\nasok_trace_grace = soon",
            "grace='soon' is not a number of seconds*",
        ),
    ],
)
def test_a_bad_setting_is_a_usage_error(project: pytest.Pytester, line: str, text: str) -> None:
    """A mode or time that is none stops the run with the value and the remedy."""
    project.makeini(f"{INI}{line}\n")
    result = project.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{text}"])


def test_ignored_keys_are_not_reported(project: pytest.Pytester) -> None:
    """``asok_trace_ignore`` hides what it names, and nothing else."""
    project.makeini(INI + "asok_trace_ignore =\n    lost:conftest.*\n")
    project.makepyfile(
        "def test_lost(client): client.get('/lost').text\n"
        "def test_bleed(client): client.get('/bleed').text\n"
    )
    result = project.runpytest_subprocess("--asok-trace=strict", "-rfE")
    assert failed(result) == {"test_bleed": ["bleed"]}
    result.stdout.fnmatch_lines(["* asok_trace: 1 finding *"])


def test_filterwarnings_decides(project: pytest.Pytester) -> None:
    """An error filter fails the test in ``report``; an ignored warning fails none in ``strict``."""
    project.makepyfile(
        """
        import pytest

        @pytest.mark.filterwarnings("error::asok_trace.OrphanWarning")
        def test_error(client):
            client.get("/lost").text

        @pytest.mark.filterwarnings("ignore:lost:asok_trace.OrphanWarning")
        def test_ignored(client):
            client.get("/lost").text

        @pytest.mark.filterwarnings("ignore::asok_trace.OrphanWarning:conftest")
        def test_ignored_by_its_module(client):
            client.get("/lost").text
        """
    )
    result = project.runpytest_subprocess("--asok-trace=report", "-rf")
    result.assert_outcomes(failed=1, passed=2, warnings=0)
    result.stdout.fnmatch_lines(["FAILED *::test_error - Failed: lost: *"])
    result = project.runpytest_subprocess("--asok-trace=strict", "-rf")
    result.assert_outcomes(failed=1, passed=2, warnings=0)
    result = project.runpytest_subprocess(
        "--asok-trace=report", "-W", "error::asok_trace.OrphanWarning"
    )
    result.assert_outcomes(failed=1, passed=2)


def test_a_failed_test_tells_what_was_found(project: pytest.Pytester) -> None:
    """A test that fails by itself keeps its own reason, and shows the findings beside it."""
    project.makepyfile(
        "def test_both(client):\n    client.get('/lost').text\n    assert 6 * 9 == 42"
    )
    result = project.runpytest_subprocess("--asok-trace=strict", "-rf")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["* asok_trace call *", "lost: line 'charged' *", "FAILED *::test_both - assert *"]
    )


def test_what_was_there_before_fails_no_test(project: pytest.Pytester) -> None:
    """Findings at import and in a fixture that tests share, from its setup to its teardown, are
    summed up and charged to no test."""
    project.makepyfile(
        """
        import asok_trace, pytest
        from conftest import make

        app = make()
        asok_trace.instrument(app)
        app.test_client().get("/lost").text

        @pytest.fixture(scope="module")
        def shop():
            app.test_client().get("/bleed").text
            yield app
            app.test_client().get("/lost").text

        def test_one(shop):
            assert shop.test_client().get("/ok").text == "ok"

        def test_two(shop, asok_trace_findings):
            assert shop.test_client().get("/ok").text == "ok"
            assert asok_trace_findings() == []
        """
    )
    result = project.runpytest_subprocess("--asok-trace=strict")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["  tests    outside any test, fixture shop", "bleed: *", "  tests    fixture shop"]
    )


# The thread keeps its request, too, of which A is told in time.
THAT_ALONE = INI + "asok_trace_grace = 0.01\nasok_trace_ignore = retained:*\n"

LEFTOVER = """
from conftest import GO

STARTED = []

def test_a(app, client):
    assert client.get("{path}", headers={headers}).text == "ok"
    STARTED.extend(app.started)

def test_b(client, asok_trace_findings):
    assert client.get("/ok", headers={headers}).text == "ok"
    GO.set()
    STARTED[0].join()
    assert asok_trace_findings() == []
"""


@pytest.mark.parametrize(("path", "slug"), [("/late", "late"), ("/plain", "lost")])
def test_a_late_thread_is_charged_to_its_own_test(
    project: pytest.Pytester, path: str, slug: str
) -> None:
    """A thread of test A that logs while B runs: B passes, the summary names A; in ``strict`` the
    run fails, in ``report`` it does not."""
    project.makeini(THAT_ALONE)
    project.makepyfile(LEFTOVER.format(path=path, headers={}))
    result = project.runpytest_subprocess("--asok-trace=strict")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"{slug}: line *",
            "  tests    *::test_a",
            "  late     it showed after *::test_a had ended: this fails the run",
        ]
    )
    assert project.runpytest_subprocess("--asok-trace=report").ret == 0


@pytest.mark.parametrize("path", ["/late", "/plain"])
def test_a_late_thread_fails_nobody_who_sent_the_same_id(
    project: pytest.Pytester, path: str
) -> None:
    """Where both tests sent one request id, it is still not B that fails."""
    headers = {"X-Request-ID": "the-same"}
    project.makeini(THAT_ALONE)
    project.makepyfile(LEFTOVER.format(path=path, headers=headers))
    result = project.runpytest_subprocess("--asok-trace=strict")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["l*: line *", "  tests    outside any test"])


def test_the_same_mistake_fails_each_test(project: pytest.Pytester) -> None:
    """What one test was charged with is charged to the next that does it, and counted for both."""
    project.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("turn", range(5))
        def test_lost(client, turn):
            client.get("/lost", headers={"X-Request-ID": "the-same"}).text
            client.get("/lost").text
        """
    )
    result = project.runpytest_subprocess("--asok-trace=strict")
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(["  seen     10 times *", "  tests    *, * and 2 more"])


def test_nothing_of_one_test_reaches_the_next(project: pytest.Pytester) -> None:
    """A scope, and structlog's variables, that one test leaves are put away; those that a fixture
    of several tests has put in place stay until it is gone."""
    project.makepyfile(
        """
        import asok_trace, pytest, structlog

        variables = structlog.contextvars.get_contextvars
        HELD = []

        @pytest.fixture(scope="module")
        def run():
            with asok_trace.scope("run"), structlog.contextvars.bound_contextvars(run=1):
                yield

        def test_leaves(run):
            structlog.contextvars.bind_contextvars(test=2, run=3)
            HELD.append(asok_trace.scope("mine"))
            HELD[0].__enter__()

        def test_sees_the_shared(run):
            assert variables() == {"run": 1}

        def test_leaves_again(run):
            assert asok_trace.current() is None or asok_trace.current().name == "run"

        @pytest.fixture(autouse=True, scope="class")
        def other(): ...

        class TestLast:
            def test_sees_its_own(self):
                structlog.contextvars.bind_contextvars(test=4)

            def test_does_not(self):
                assert "test" not in variables()
        """
    )
    result = project.runpytest_subprocess("--asok-trace=report")
    result.assert_outcomes(passed=5, warnings=1)


@pytest.mark.parametrize("mode", ["off", "report", "strict"])
def test_a_test_can_expect_a_finding(project: pytest.Pytester, mode: str) -> None:
    """In any mode ``asok_trace_findings()`` returns those of this test; ``clear()`` excuses them,
    and only them."""
    project.makepyfile(
        """
        def test_expected(client, asok_trace_findings):
            assert asok_trace_findings() == []
            client.get("/lost").text
            client.get("/lost").text
            [found] = asok_trace_findings()
            assert (found.slug, found.count, found.path) == ("lost", 2, "GET /lost")
            asok_trace_findings.clear()
            assert asok_trace_findings() == []

        def test_outside(client, asok_trace_findings):
            from conftest import charge
            client.get("/ok").text
            charge()
            assert asok_trace_findings() == []
            assert [f.slug for f in asok_trace_findings(outside=True)] == ["outside"]

        def test_not_expected(client, asok_trace_findings):
            client.get("/lost").text
            asok_trace_findings.clear()
            client.get("/bleed").text
        """
    )
    result = project.runpytest_subprocess(f"--asok-trace={mode}", "-rfE")
    if mode == "strict":
        assert failed(result) == {"test_not_expected": ["bleed"]}
    else:
        result.assert_outcomes(passed=3, warnings=1 if mode == "report" else 0)


def test_workers_report_their_own(project: pytest.Pytester) -> None:
    """Under pytest-xdist each worker judges its tests; the summary has them all, once."""
    project.makepyfile(
        test_one=EACH_KIND,
        test_two="def test_too(client): client.get('/lost').text\n"
        "def test_ok(client): client.get('/ok').text\n",
    )
    result = project.runpytest_subprocess("--asok-trace=report", "-n2", "--dist=loadfile")
    result.assert_outcomes(passed=len(SLUGS) + 2, warnings=len(SLUGS) + 1)
    result.stdout.fnmatch_lines(["* asok_trace: 8 findings *", "  seen     2 times *"])
    assert lines(result).count("lost: line 'charged'") == 3  # two warnings, one summary
    result = project.runpytest_subprocess("--asok-trace=strict", "-n2", "-rfE")
    assert failed(result) == {test: [slug] for test, slug in SLUGS.items()} | {"test_too": ["lost"]}


def test_a_late_thread_in_a_worker_fails_the_run(project: pytest.Pytester) -> None:
    """What a worker of pytest-xdist could charge to no running test fails the run there, too."""
    project.makeini(THAT_ALONE)
    project.makepyfile(LEFTOVER.format(path="/late", headers={}))
    result = project.runpytest_subprocess("--asok-trace=strict", "-n1")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["  late     it showed after *::test_a had ended: *"])


QUART = """
import asyncio
import asok_trace, pytest, quart
from conftest import charge, log

{mark}

@pytest.fixture
def shop():
    app = quart.Quart("shop")

    @app.get("/ok")
    async def ok():
        await asyncio.create_task(asyncio.sleep(0))
        log.info("fine")
        return "ok"

    @app.get("/lost")
    async def lost():
        await asyncio.get_running_loop().run_in_executor(None, charge)
        return "ok"

    asok_trace.instrument(app)
    return app

async def test_ok(shop):
    reply = await shop.test_client().get("/ok")
    assert reply.status_code == 200

async def test_lost(shop):
    await shop.test_client().get("/lost")

async def test_ok_again(shop):
    await shop.test_client().get("/ok")
"""


@pytest.mark.parametrize(
    "mark",
    [
        "pytestmark = pytest.mark.asyncio",
        "pytestmark = pytest.mark.asyncio(loop_scope='module')",
        "pytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'",
    ],
    ids=["asyncio", "asyncio-one-loop", "anyio"],
)
def test_coroutine_tests_are_judged_alike(project: pytest.Pytester, mark: str) -> None:
    """Quart's test client under pytest-asyncio and anyio: the test that loses the context fails."""
    project.makepyfile(QUART.format(mark=mark))
    result = project.runpytest_subprocess("--asok-trace=strict", "-rf")
    result.assert_outcomes(passed=2, failed=1, warnings=0)
    result.stdout.fnmatch_lines(["FAILED *::test_lost - Failed: lost: *"])


def test_asoks_test_client_is_judged_alike(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asok's own test client: its clean test passes, and the one that loses the context, and the
    one that leaves ``request_var`` set, do not."""
    page = project.mkdir("site") / "src" / "pages" / "[name]" / "page.py"
    page.parent.mkdir(parents=True)
    page.write_text(
        "import threading\n"
        "from conftest import charge, log\n"
        "def get(request):\n"
        "    log.info('fine')\n"
        "    if request.params['name'] == 'lost':\n"
        "        thread = threading.Thread(target=charge)\n"
        "        thread.start()\n"
        "        thread.join()\n"
        "    return 'ok'\n"
    )
    project.makepyfile(
        """
        import asok_trace, pytest
        from asok import Asok
        from asok.context import request_var
        from asok.testing import TestClient

        @pytest.fixture(scope="module")
        def shop():
            app = Asok("site")
            app._session_store.stop_cleanup_timer()
            asok_trace.instrument(app)
            return app

        def test_ok(shop):
            assert TestClient(shop).get("/ok").status_code == 200

        def test_lost(shop):
            assert TestClient(shop).get("/lost").status_code == 200

        def test_ok_again(shop):
            assert TestClient(shop).get("/ok").status_code == 200

        def test_leaves(shop):
            from asok import Request
            request_var.set(Request({"PATH_INFO": "/", "REQUEST_METHOD": "GET"}))
        """
    )
    result = project.runpytest_subprocess("--asok-trace=strict", "-rfE", "-W", "default")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    assert failed(result) == {"test_lost": ["lost"], "test_leaves": ["bleed"]}


def test_what_is_about_to_end_is_waited_for(project: pytest.Pytester) -> None:
    """A thread that holds the request, and lets it go within the time of grace, fails nothing."""
    project.makeini(INI + "asok_trace_grace = 20\n")
    project.makepyfile(
        """
        import threading
        import asok_trace, flask

        def test_brief(app, client):
            def hold(request):
                threading.Event().wait(0.3)

            @app.get("/brief")
            def brief():
                request = flask.request._get_current_object()
                threading.Thread(target=asok_trace.detach(hold), args=(request,)).start()
                return "ok"

            client.get("/brief").text
        """
    )
    project.runpytest_subprocess("--asok-trace=strict").assert_outcomes(passed=1)


def test_an_application_keeps_its_own_level(project: pytest.Pytester) -> None:
    """``instrument(app, level="basic")`` is left at that: what ``strict`` alone finds is not."""
    project.makepyfile(
        """
        import asok_trace
        from conftest import make

        def test_basic():
            app = make()
            asok_trace.instrument(app, level="basic")
            app.test_client().get("/bleed").text
        """
    )
    project.runpytest_subprocess("--asok-trace=strict").assert_outcomes(passed=1)


def test_everything_is_as_before_when_the_run_is_over(project: pytest.Pytester) -> None:
    """Hooks, settings, variables and rules are taken back: a program may run pytest twice."""
    project.makepyfile(
        test_it="def test_lost(client): client.get('/lost').text",
        program="""
        import os, sys, pytest
        from asok_trace.core import findings, ignoring, settings
        from asok_trace.core.scope import Scope
        from asok_trace.propagate import threads

        def state():
            variables = {k: v for k, v in os.environ.items() if k.startswith("ASOK_TRACE")}
            return (variables, settings.default(), ignoring._rules[:], Scope.__init__,
                    Scope.rename, len(threads._wishes), threads._hooks[:])

        before, markers = state(), findings.markers[:]
        assert pytest.main(["-q", "--asok-trace=strict", "test_it.py"]) == 1
        assert [m for m in findings.markers if "Ledger" in repr(m)] == []
        # The application of the test is still hooked up, and wants its threads watched.
        assert state()[:5] == before[:5]
        """,
    )
    assert project.runpython("program.py").ret == 0


def test_without_the_option_next_to_nothing_is_loaded() -> None:
    """The plugin is part of every run of pytest: by itself it loads three modules of ours."""
    program = (
        "import sys, pytest; pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider',"
        " '--rootdir=/', '-c', '/dev/null', '/dev/null']);"
        "print(sorted(m for m in sys.modules if m.startswith('asok_trace')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == (
        "['asok_trace', 'asok_trace.tools', 'asok_trace.tools.pytest_plugin']"
    )

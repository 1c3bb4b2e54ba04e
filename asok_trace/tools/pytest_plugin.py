"""The pytest plugin: a test in which a request's context is lost or leaked fails, and says why.

It is installed with the package and does nothing until it is asked for::

    pytest --asok-trace=report      # warn, and sum up at the end of the run
    pytest --asok-trace=strict      # and fail the test in which it was found

or for good, in pyproject.toml::

    [tool.pytest.ini_options]
    asok_trace = "strict"
    asok_trace_ignore = ["late:shop.mail.*"]    # keys of findings that are meant to be so
    asok_trace_grace = "1"      # seconds a request may be kept alive after its end

Both put the process and each application at the level ``strict``, except one that was instrumented
with a ``level`` of its own. A finding is an `OrphanWarning` or a `LeakWarning` of its test, at the
place where it showed; so ``filterwarnings`` decides: ``error::asok_trace.LeakWarning`` makes it
fail in ``report``, too, and a warning that is ignored fails nothing in ``strict``. What is found
with no request behind it (``outside``) is neither: a test calls much that way.

A finding belongs to the test in which its request began. One that shows only after that test has
ended is in the summary, and in ``strict`` fails the run instead of the test that runs by then. What
was found before the first test, or in a fixture that several tests share, fails none.

A test that provokes a finding asks for the fixture ``asok_trace_findings``, in any mode::

    def test_the_mail_is_sent_without_the_request(client, asok_trace_findings):
        client.post("/order")
        [lost] = asok_trace_findings()      # `Finding` objects
        assert lost.slug == "lost"
        asok_trace_findings.clear()         # expected: it does not fail this test
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from asok_trace.tools.pytest_watch import Found

OFF: Final = "off"
REPORT: Final = "report"
STRICT: Final = "strict"
MODES: Final = (OFF, REPORT, STRICT)

WATCH: Final = "asok_trace_watch"
"""The name of what does the work, among pytest's plugins: registered if it is asked for."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini settings."""
    parser.getgroup("asok_trace").addoption(
        "--asok-trace",
        choices=MODES,
        help="report lost and leaked request contexts, or fail the tests that lose them",
    )
    parser.addini("asok_trace", "off, report or strict: as --asok-trace", default=OFF)
    parser.addini("asok_trace_ignore", "keys of findings that are meant to be so", type="linelist")
    parser.addini(
        "asok_trace_grace", "seconds for which a request may be kept alive after it", default="1"
    )


# First, so that what the conftests make is at the level that was asked for.
@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin to watch, if that is asked for."""
    _begin(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """The same where this module was named by a conftest."""
    _begin(config)


def _begin(config: pytest.Config) -> None:
    mode = config.known_args_namespace.asok_trace or config.getini("asok_trace")
    if mode not in MODES:
        raise pytest.UsageError(f"asok_trace={mode!r} is not a mode. Use one of {MODES}.")
    if mode == OFF or config.pluginmanager.has_plugin(WATCH):
        return
    # Not before: whoever does not ask for it loads none of it.
    from asok_trace.tools.pytest_watch import Watch

    watch = Watch(config, mode)
    config.add_cleanup(watch.stop)
    config.pluginmanager.register(watch, WATCH)


@pytest.fixture
def asok_trace_findings(request: pytest.FixtureRequest) -> "Iterator[Found]":
    """What was found in this test so far: call it for a list of `Finding` objects."""
    from asok_trace.tools.pytest_watch import Found, Watch

    watch = request.config.pluginmanager.get_plugin(WATCH)
    if watch is not None:
        yield Found(watch)
        return
    watch = Watch(request.config, OFF)
    try:
        watch.begin(request.node.nodeid)
        yield Found(watch)
    finally:
        watch.stop()

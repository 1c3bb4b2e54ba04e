"""What measures requests and work is broken, a part at a time: nobody notices, over any interface
of any framework, and it is reported once; so it is where the numbers are collected and fetched.

needs: asok, flask, opentelemetry.exporter.prometheus, quart
"""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError

import pytest
from opentelemetry.sdk.metrics import _internal as sdk
from opentelemetry.sdk.metrics._internal.exemplar import exemplar_reservoir
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asok_trace
from asok_trace.core.scope import ACTIVE
from asok_trace.frameworks import otel
from asok_trace.gateway.exchange import Exchange
from asok_trace.stamp import metrics, scrape
from tests.gateway.sites import Reply, Site
from tests.gateway.test_containment import Faults, assert_reported, broken, furnish
from tests.gateway.test_containment_pallets import SITES
from tests.metrics.conftest import ACTIVE as ACTIVE_REQUESTS
from tests.metrics.conftest import DURATION, FINDINGS, JOBS, LATE, Measured
from tests.metrics.conftest import measured as measured
from tests.metrics.conftest import spans as spans
from tests.metrics.ports import fetched, free

Call = Callable[..., Reply]

# What is asked of a request.
PARTS: dict[str, Any] = {
    "metrics.instruments": metrics,
    "Instruments.__init__": metrics.Instruments,
    "Instruments.begun": metrics.Instruments,
    "metrics.Measured": metrics,
    "Measured.ended": metrics.Measured,
    "Measured.dropped": metrics.Measured,
    "metrics._request": metrics,
    "metrics._begin": metrics,
    "Exchange._counted": Exchange,
    "otel.measures": otel,
    # Of the SDK: an exemplar that cannot be kept.
    "ExemplarReservoir.offer": exemplar_reservoir.AlignedHistogramBucketExemplarReservoir,
}


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has measured nothing."""
    monkeypatch.setattr(metrics, "_made", None)
    monkeypatch.setattr(metrics, "_begun", {})
    monkeypatch.setattr(metrics, "at_first", [])


def assert_said_once(faults: Faults, reported: int, piece: str = "measuring requests") -> None:
    assert_reported(faults)
    assert piece in faults[0].getMessage()
    assert reported == 1


@pytest.mark.parametrize("part", PARTS)
def test_a_request_of_asok(
    make_site: Callable[[], Site],
    call: Call,
    repeatable: Callable[[], None],
    faults: Faults,
    measured: Measured,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """It is answered as without us, the first time and the next."""

    def answers(site: Site) -> list[Reply]:
        repeatable()
        return [call(site.app, path).without_id() for path in ("/page", "/simple", "/none/such")]

    bare, watched = make_site(), make_site()
    for site in (bare, watched):
        furnish(site)
    without_us = answers(bare)
    monkeypatch.setattr(PARTS[part], part.partition(".")[2], broken)
    asok_trace.instrument(watched.app)
    assert answers(watched) == without_us
    reported = len(faults)
    assert answers(watched) == without_us
    assert_said_once(faults, reported)
    assert ACTIVE.get() is None


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("site", SITES)
def test_a_request_of_flask_and_quart(
    faults: Faults,
    measured: Measured,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    site: str,
    part: str,
) -> None:
    """The same."""
    make, ask, _ = SITES[site]
    logging.getLogger("site").setLevel(logging.CRITICAL + 1)
    without_us = ask(make())
    monkeypatch.setattr(PARTS[part], part.partition(".")[2], broken)
    app = make()
    asok_trace.instrument(app)
    assert ask(app) == without_us
    reported = len(faults)
    assert ask(app) == without_us
    assert_said_once(faults, reported)


@pytest.mark.parametrize("part", ["Instruments.worked", "metrics._begin"])
def test_work(
    faults: Faults, measured: Measured, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """It returns what it returns, and raises what it raises."""

    def charge(fails: bool) -> str:
        if fails:
            raise LookupError("charge")
        return "charged"

    owner = metrics.Instruments if part.startswith("Instruments") else metrics
    monkeypatch.setattr(owner, part.partition(".")[2], broken)
    with asok_trace.scope("nightly"):
        work = asok_trace.wrap(charge, outlive=True)
    for _ in range(2):
        assert work(False) == "charged"
        with pytest.raises(LookupError, match="charge"):
            work(True)
    assert_said_once(faults, len(faults))
    assert not measured.points(JOBS)


@pytest.mark.parametrize(
    ("part", "owner", "lost"),
    [
        ("_observed_active", metrics.Instruments, ACTIVE_REQUESTS),
        ("_observed_findings", metrics, FINDINGS),
        ("_observed_late", metrics, LATE),
    ],
)
def test_what_collects(
    faults: Faults,
    measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
    owner: Any,
    lost: str,
) -> None:
    """Each time that the numbers are asked for: durations are told as ever, and it is said once,
    by us alone."""
    monkeypatch.setattr(owner, part, broken)
    make, ask, _ = SITES["flask"]
    logging.getLogger("site").setLevel(logging.CRITICAL + 1)
    app = make()
    asok_trace.instrument(app)
    ask(app)
    for _ in range(3):
        assert measured.points(DURATION)
        assert not measured.points(lost)
    assert_said_once(faults, len(faults), "telling what was counted")
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


# --- the endpoint that Prometheus fetches from --------------------------------------------------


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Makes one that listens once something is measured; its port."""
    port = free(2)
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(port))
    made: list[tuple[scrape.Endpoint, sdk.MeterProvider]] = []

    def make() -> int:
        endpoint = scrape.Endpoint()
        provider = sdk.MeterProvider([endpoint])
        made.append((endpoint, provider))
        monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", provider)
        return port

    yield make
    for endpoint, provider in made:
        if endpoint._server is not None:
            endpoint._server.shutdown()
            endpoint._server.server_close()
        provider.shutdown()


@pytest.mark.parametrize("part", ["Endpoint._start", "Endpoint._serve", "scrape._bound"])
def test_an_endpoint_that_does_not_begin(
    endpoint: Callable[[], int],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Requests are answered, and it is said once."""
    reported = threading.Event()
    report = scrape.serving.failed

    class Noted:
        working = True

        @staticmethod
        def failed(error: Exception) -> None:
            report(error)
            reported.set()

    monkeypatch.setattr(scrape, "serving", Noted)
    owner = scrape.Endpoint if part.startswith("Endpoint") else scrape
    monkeypatch.setattr(owner, part.partition(".")[2], broken)
    endpoint()
    make, ask, _ = SITES["flask"]
    logging.getLogger("site").setLevel(logging.CRITICAL + 1)
    without_us = ask(make())
    app = make()
    asok_trace.instrument(app)
    assert ask(app) == ask(app) == without_us
    assert reported.wait(30)
    assert_said_once(faults, len(faults), "letting Prometheus fetch the metrics")


def test_metrics_that_cannot_be_collected(
    endpoint: Callable[[], int],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whoever fetches them sees that this has failed; it is said once, and nothing is printed. It
    is answered again as soon as it can be."""
    listening = threading.Event()
    bound = scrape._bound

    def noted(*args: Any) -> Any:
        server = bound(*args)
        listening.set()
        return server

    monkeypatch.setattr(scrape, "_bound", noted)
    failing = True
    make_app = scrape.make_wsgi_app

    def make_failing() -> Any:
        app = make_app()
        return lambda *args: broken() if failing else app(*args)

    monkeypatch.setattr(scrape, "make_wsgi_app", make_failing)
    port = endpoint()
    make, ask, _ = SITES["flask"]
    logging.getLogger("site").setLevel(logging.CRITICAL + 1)
    app = make()
    asok_trace.instrument(app)
    ask(app)
    assert listening.wait(30)
    capfd.readouterr()
    for _ in range(2):
        with pytest.raises(HTTPError) as error:
            fetched(port)
        assert error.value.code == 500
        error.value.close()
    failing = False
    assert "http_server_request_duration_seconds_count{" in fetched(port)
    assert_said_once(faults, len(faults), "letting Prometheus fetch the metrics")
    assert "Traceback" not in capfd.readouterr().err

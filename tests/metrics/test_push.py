"""Every process pushes what it measures by OTLP, as an instance of its own.

needs: flask, quart
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.receiver import Receiver, receiving
from tests.metrics.conftest import DURATION, FINDINGS
from tests.programs import run
from tests.serving import gunicorn, served, uvicorn

PROGRAM = """
import os, asok_trace
from {package} import {cls}

app = {cls}(__name__)
asok_trace.setup(app, service="shop", access_log=False)


@app.get("/items/<int:number>")
{define} item(number):
    return str(os.getpid())
"""
FLASK = PROGRAM.format(package="flask", cls="Flask", define="def")
QUART = PROGRAM.format(package="quart", cls="Quart", define="async def")

# What is pushed is pushed at the end.
NEVER = {"OTEL_METRIC_EXPORT_INTERVAL": "3600000", "OTEL_BSP_SCHEDULE_DELAY": "3600000"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector."""
    with receiving() as made:
        yield made


def plain(attributes: Any) -> dict[str, Any]:
    """The attributes as they were before the wire."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def points(receiver: Receiver, name: str = DURATION) -> list[tuple[dict[str, Any], Any]]:
    """The resource and each data point of a metric that has arrived."""
    return [
        (plain(resource.resource.attributes), point)
        for resource in receiver.metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


def environment(receiver: Receiver) -> dict[str, str]:
    """Push to the collector."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **NEVER}


@pytest.mark.parametrize("preload", [False, True], ids=["after the fork", "preloaded"])
def test_gunicorn(receiver: Receiver, tmp_path: Path, preload: bool) -> None:
    """Each worker is an instance of its own, so that none overwrites another's numbers; together
    they count each request, with exemplars of spans that have arrived, too."""
    command = gunicorn("shop:app", "--workers", "2", *(["--preload"] if preload else []))
    workers: dict[bytes, int] = {}
    with served(tmp_path, FLASK, *command, **environment(receiver)) as shop:
        while len(workers) < 2 or sum(workers.values()) < 20:
            answer = shop.get(f"/items/{sum(workers.values())}")
            workers[answer.body] = workers.get(answer.body, 0) + 1
    found = points(receiver)
    assert sum(point.count for _, point in found) == sum(workers.values())
    assert sorted(point.count for _, point in found) == sorted(workers.values())
    assert {resource["service.name"] for resource, _ in found} == {"shop"}
    assert len({resource["service.instance.id"] for resource, _ in found}) == 2
    traces = {span.trace_id for span in receiver.spans}
    exemplars = [exemplar for _, point in found for exemplar in point.exemplars]
    assert exemplars
    assert {exemplar.trace_id.hex() for exemplar in exemplars} <= traces
    assert {key for _, point in found for key in plain(point.attributes)} == {
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "url.scheme",
    }
    # From nothing on.
    assert points(receiver, FINDINGS)


def test_uvicorn(receiver: Receiver, tmp_path: Path) -> None:
    """It ends itself by a signal: what was counted is pushed before."""
    with served(tmp_path, QUART, *uvicorn("shop:app"), **environment(receiver)) as shop:
        assert shop.get("/items/7").status == 200
    [(_, point)] = points(receiver)
    assert point.count == 1


FORKED = """
import os, asok_trace
from opentelemetry import metrics

asok_trace.setup(service="shop")
child = os.fork()
grandchild = os.fork() if child == 0 else 1
metrics.get_meter_provider().get_meter("shop").create_counter("works").add(1)
metrics.get_meter_provider().force_flush()
if child and grandchild:
    assert os.waitpid(child, 0)[1] == 0
elif grandchild:
    assert os.waitpid(grandchild, 0)[1] == 0
if not (child and grandchild):
    os._exit(0)
"""


def test_forked_children(receiver: Receiver) -> None:
    """Each is another instance, and so is a child's child."""
    run(FORKED, **environment(receiver))
    found = points(receiver, "works")
    assert len({resource["service.instance.id"] for resource, _ in found}) == 3


def test_an_instance_that_is_named(receiver: Receiver) -> None:
    """What the environment calls it, it is called."""
    run(
        """
import asok_trace
from opentelemetry import metrics

asok_trace.setup(service="shop")
metrics.get_meter_provider().get_meter("shop").create_counter("works").add(1)
""",
        OTEL_RESOURCE_ATTRIBUTES="service.instance.id=shop-1",
        **environment(receiver),
    )
    assert {r["service.instance.id"] for r, _ in points(receiver, "works")} == {"shop-1"}


def test_without_the_sdks_own_way() -> None:
    """An SDK that knows of no instances gets one from us, anew in each process."""
    out = run(
        """
import os
from asok_trace import providers
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource

provider = MeterProvider(resource=Resource({}).merge(providers._instance()))
told = lambda: provider._sdk_config.resource.attributes["service.instance.id"]
before = told()
providers._renew(provider)
print(before, told())
"""
    )
    assert len(set(out.split())) == 2

"""Jaeger is started long after the applications: meanwhile they serve, and the next requests are
found.

needs: asok, flask, quart, gunicorn, uvicorn, pythonjsonlogger
"""

import re
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.jaeger.apps import APPS, running
from tests.jaeger.server import started
from tests.queues.processes import accepts, free_port, until
from tests.serving import Served

ROOM = 32


def load(server: Served) -> None:
    """Four users at once, each of whom gets twenty answers."""
    statuses: list[int] = []

    def use() -> None:
        statuses.extend(server.get("/").status for _ in range(20))

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert statuses == [200] * 80


def told(server: Served) -> list[str]:
    """What it said of its spans."""
    return re.findall(r'"asok_trace: spans are (being lost|exported again)', server.output)


def test_jaeger_comes_later(tmp_path: Path) -> None:
    """Every request is answered without it; each application says once that spans are lost, and
    once that they are exported again; then what is asked for next is found, whole."""
    port = free_port()
    settings = {
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_MAX_QUEUE_SIZE": str(ROOM),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": str(ROOM // 2),
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
    }
    with ExitStack() as running_now:
        servers: dict[str, Served] = {}
        for framework in APPS:
            folder = tmp_path / framework
            folder.mkdir()
            app = running(framework, folder, f"http://127.0.0.1:{port}", **settings)
            servers[framework] = running_now.enter_context(app)
        for server in servers.values():
            load(server)
        for server in servers.values():
            until(lambda: told(server) == ["being lost"], lambda: server.output)  # noqa: B023
        assert not accepts(port)
        jaeger = running_now.enter_context(started(tmp_path, port))
        for framework, server in servers.items():

            def exported_again(server: Served = server) -> bool:
                assert server.get("/").status == 200
                return len(told(server)) > 1

            until(exported_again, lambda: server.output)  # noqa: B023
            for _ in range(3):
                [trace_id] = server.get("/").ids
                trace = jaeger.until(trace_id, ["GET /", "look up"])
                assert trace["look up"].parent == trace["GET /"].id
                assert trace["GET /"].service == framework
            assert told(server) == ["being lost", "exported again"]

"""The examples, visited as their demos do: every request is a trace in Jaeger.

needs: asok, flask, flask_login, quart, quart_auth, gunicorn, hypercorn, httpx, websockets
"""

import re
import subprocess
import sys

import pytest

from tests.examples.demos import EXAMPLES
from tests.jaeger.reading import Jaeger


@pytest.mark.parametrize("example", ["shop", "flask_shop", "quart_chat"])
def test_each_request_is_a_trace(jaeger: Jaeger, example: str) -> None:
    """What the demo's visitors did is compared with Jaeger's traces: one of each request and each
    message, named and numbered as its client knows it, with the steps that it took, in the view,
    in threads, in background jobs; and none besides."""
    service = f"example-{example}"
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.jaeger.example",
            EXAMPLES / example,
            service,
            str(jaeger.port),
        ],
        env={
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{jaeger.endpoint}/v1/traces",
        },
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"(every request|each) has its tree", ran.stdout)
    assert len(jaeger.search(service)) > 50

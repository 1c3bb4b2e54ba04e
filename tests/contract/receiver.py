"""An OpenTelemetry collector, as far as it takes in spans, metrics and lines: OTLP over HTTP."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

WAIT_SECONDS = 20.0


class Received(NamedTuple):
    """A span that has arrived."""

    name: str
    trace_id: str
    attributes: dict[str, Any]
    events: list[str]
    resource: dict[str, Any]
    peer: int
    """The port of the connection that it came over."""


class Logged(NamedTuple):
    """A log line that has arrived."""

    logger: str
    message: str
    level: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    peer: int


class Receiver(ThreadingHTTPServer):
    """Takes in spans, metrics and log lines, in threads of its own, and keeps them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.spans: list[Received] = []
        self.metrics: list[Any] = []
        """ResourceMetrics, as they came."""
        self.logs: list[Logged] = []

    def until(self, enough: Callable[[Sequence[Received]], bool]) -> list[Received]:
        """Wait until the spans that have arrived are ``enough``, and return them."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not enough(spans := list(self.spans)):
            assert time.monotonic() < deadline, f"these spans came, and no more: {spans}"
            time.sleep(0.01)
        return spans


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        taken = {"/v1/metrics": self._metrics, "/v1/logs": self._logs}
        answer = taken.get(self.path, self._spans)(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _metrics(self, body: bytes) -> bytes:
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

        sent = service.ExportMetricsServiceRequest()
        sent.ParseFromString(body)
        self.server.metrics += sent.resource_metrics
        return bytes(service.ExportMetricsServiceResponse().SerializeToString())

    def _logs(self, body: bytes) -> bytes:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service

        sent = service.ExportLogsServiceRequest()
        sent.ParseFromString(body)
        for resource in sent.resource_logs:
            facts = _plain(resource.resource.attributes)
            for scope in resource.scope_logs:
                self.server.logs += [
                    Logged(
                        scope.scope.name,
                        line.body.string_value,
                        line.severity_text,
                        line.trace_id.hex(),
                        line.span_id.hex(),
                        _plain(line.attributes),
                        facts,
                        self.client_address[1],
                    )
                    for line in scope.log_records
                ]
        return bytes(service.ExportLogsServiceResponse().SerializeToString())

    def _spans(self, body: bytes) -> bytes:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

        sent = service.ExportTraceServiceRequest()
        sent.ParseFromString(body)
        for resource in sent.resource_spans:
            facts = _plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.server.spans += [
                    Received(
                        span.name,
                        span.trace_id.hex(),
                        _plain(span.attributes),
                        [event.name for event in span.events],
                        facts,
                        self.client_address[1],
                    )
                    for span in scope.spans
                ]
        return bytes(service.ExportTraceServiceResponse().SerializeToString())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver, for as long as this lasts."""
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()

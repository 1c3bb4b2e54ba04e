"""The metrics for Prometheus to fetch, from a port of each process.

Gunicorn's workers cannot share one: whoever answers would tell of itself alone. Each process takes
the first port that is free from ``OTEL_EXPORTER_PROMETHEUS_PORT`` (9464) on, at
``OTEL_EXPORTER_PROMETHEUS_HOST`` (localhost), at its first request or job: not when the
application is loaded, which gunicorn may do before it forks (``preload_app``). A worker that
takes the place of another takes its port. While gunicorn reloads, old and new ones have one each:
let Prometheus look at twice as many ports as there are workers::

    scrape_configs:
      - job_name: shop
        static_configs:
          - targets: ["localhost:9464", "localhost:9465", "localhost:9466", "localhost:9467"]

What no process listens on is down there (``up``), which is no fault; `sum` over the others is the
whole application. The exporter emits no exemplars: they go with OTLP.
"""

import errno
import os
import socket
import sys
import threading
from contextvars import Context
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import make_wsgi_app

from asok_trace.core.errors import ConfigError, Piece, contained
from asok_trace.stamp import metrics

serving: Final = Piece("letting Prometheus fetch the metrics", then="it will see this as down")

_HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
_PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"
_PORTS: Final = 64  # to try
_LAST: Final = 65535


class _Server(ThreadingMixIn, WSGIServer):
    """Refuses a port that another process listens on."""

    daemon_threads = True
    allow_reuse_port = False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # its own
        """Say it once; nothing of a client that has gone."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, OSError):
            serving.failed(error)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10  # of a client that says nothing, in seconds

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the interface
        """Say nothing: each fetch would be a line."""


class Endpoint(PrometheusMetricReader):
    """The official exporter, which listens in each process that measures.

    Raises:
        ConfigError: a port that is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._host = os.environ.get(_HOST, "").strip() or "localhost"
        self._port = _number(os.environ.get(_PORT, "").strip() or "9464")
        self._server: _Server | None = None
        metrics.at_first.append(self._begin)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _begin(self) -> None:
        contained(serving, self._start)

    def _start(self) -> None:
        # In a context of its own: it is the first request's thread no longer than that lasts. And
        # there, since a name may have to be looked up.
        run = partial(Context().run, contained, serving, self._serve)
        Context().run(threading.Thread(target=run, name="asok_trace-scrape", daemon=True).start)

    def _serve(self) -> None:
        self._server = _bound(self._host, self._port)
        self._server.serve_forever()

    def _forked(self) -> None:
        """Let go of the parent's port: it would stay taken when the parent has ended."""
        server, self._server = self._server, None
        if server is not None:
            contained(serving, server.socket.close)


def _bound(host: str, port: int) -> _Server:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    kind = _Server6 if family == socket.AF_INET6 else _Server
    for tried in range(port, min(port + _PORTS, _LAST + 1)):
        try:
            return make_server(host, tried, partial(_told, make_wsgi_app()), kind, _Handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"{_PORT}={port}: no port from there on is free at {host}")


def _told(app: Any, environ: Any, start_response: Any) -> Any:
    try:
        return app(environ, start_response)
    except Exception as error:  # the server would print it, each time
        serving.failed(error)
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"The metrics could not be collected. The log says why.\n"]


def _number(port: str) -> int:
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= _LAST):
        raise ConfigError(f'{_PORT}="{port}" is no port. Use a number from 1 to {_LAST}.')
    return int(port)

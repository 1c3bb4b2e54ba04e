"""What one request of Flask or Quart, with a trivial view, pays for ids and spans.

As in requests.py, all cases of a framework run on the same application object, in one process.
Spans go to a tracer provider that exports nothing: what they cost there is everybody's.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import asok_trace
from tests.benchmarks import site
from tests.benchmarks.worker import Case, Cases, Serve, Setting


def flask_app() -> Any:
    """A Flask application of one page."""
    from flask import Flask

    app = Flask("shop", static_folder=None)
    app.add_url_rule("/orders", view_func=lambda: "<p>hello</p>", endpoint="orders")
    return app


def quart_app() -> Any:
    """A Quart application of one page."""
    from quart import Quart

    async def orders() -> str:
        return "<p>hello</p>"

    app = Quart("shop", static_folder=None)
    app.add_url_rule("/orders", view_func=orders, endpoint="orders")
    return app


@contextmanager
def traced(provider: TracerProvider) -> Iterator[None]:
    """Somebody traces."""
    trace._TRACER_PROVIDER = provider
    try:
        yield
    finally:
        trace._TRACER_PROVIDER = None


@contextmanager
def ours(app: Any, *, spans: bool, access_log: bool) -> Iterator[None]:
    """With lines, if any, as JSON to nowhere."""
    provider = TracerProvider()
    provider.sampler = asok_trace.StampingSampler(provider.sampler)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        structlog.configure(
            processors=[asok_trace.inject, structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(nowhere),
        )
        try:
            with asok_trace.instrument(app, access_log=access_log):
                if spans:
                    with traced(provider):
                        yield
                else:
                    yield
        finally:
            structlog.reset_defaults()


def otel_flask(send: Callable[[Any], None]) -> Case:
    """OpenTelemetry's instrumentation of Flask, on an application of its own: it cannot be put on
    one that has served."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    app, provider = flask_app(), TracerProvider()
    FlaskInstrumentor().instrument_app(app, tracer_provider=provider)
    return Case(_run(app, send), lambda: traced(provider))


@contextmanager
def wrapped(app: Any, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Some ASGI middleware."""
    app.asgi_app = wrap(app.asgi_app)
    try:
        yield
    finally:
        del app.asgi_app


@contextmanager
def otel_asgi(app: Any, exclude_spans: list[Any] | None) -> Iterator[None]:
    """OpenTelemetry's ASGI middleware."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    provider = TracerProvider()

    def wrap(original: Any) -> Any:
        return OpenTelemetryMiddleware(
            original, tracer_provider=provider, exclude_spans=exclude_spans
        )

    with traced(provider), wrapped(app, wrap):
        yield


def correlated(app: Any) -> Any:
    """The middleware asgi-correlation-id."""
    from asgi_correlation_id import CorrelationIdMiddleware

    return wrapped(app, lambda original: CorrelationIdMiddleware(original))


def _run(app: Any, send: Callable[[Any], None]) -> Callable[[int], int]:
    def run(requests: int) -> int:
        took = []
        for _ in range(requests):
            start = time.process_time_ns()
            send(app)
            took.append(time.process_time_ns() - start)
        return round(statistics.median(took) * requests)

    return run


def _ours(app: Any, run: Callable[[int], int]) -> Cases:
    return {
        "nothing": Case(run),
        "ids": Case(run, lambda: ours(app, spans=False, access_log=False)),
        "spans": Case(run, lambda: ours(app, spans=True, access_log=False)),
        "everything": Case(run, lambda: ours(app, spans=True, access_log=True)),
    }


def flask(serve: Serve) -> None:
    """Ours and OpenTelemetry's."""
    app = flask_app()
    run = _run(app, site.wsgi)
    serve({**_ours(app, run), "otel-flask": otel_flask(site.wsgi)})


def quart(serve: Serve) -> None:
    """Ours, OpenTelemetry's, and the usual middleware for ids."""
    app = quart_app()
    run = _run(app, site.staying_asgi_client())
    serve(
        {
            **_ours(app, run),
            "otel-asgi": Case(run, lambda: otel_asgi(app, None)),
            "otel-asgi-one-span": Case(run, lambda: otel_asgi(app, ["receive", "send"])),
            "asgi-correlation-id": Case(run, lambda: correlated(app)),
        }
    )


SETTINGS: dict[str, Setting] = {"flask": flask, "quart": quart}

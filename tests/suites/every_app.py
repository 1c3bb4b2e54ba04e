"""A pytest plugin: every Flask application of the tests is instrumented, every line stamped.

``python -m pytest -p tests.suites.every_app``; how many there were is written to the file that
``SUITES_APPS`` names. With ``SUITES_CONTROL`` the applications are given a middleware that does
nothing, in the way that Flask's documentation shows, and nothing of ours is there.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import asok_trace
from asok_trace.core.hooks import Hook

_made = 0
_CONTROL = "SUITES_CONTROL" in os.environ


def _nothing(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda environ, start_response: original(environ, start_response)


def _instrumenting(hook: Hook) -> Callable[..., None]:
    def made(app: Any, *args: Any, **kwargs: Any) -> None:
        global _made
        hook.original(app, *args, **kwargs)
        if _CONTROL:
            app.wsgi_app = _nothing(app.wsgi_app)
        else:
            asok_trace.instrument(app)
        _made += 1

    return made


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is loaded."""
    Hook(flask.Flask, "__init__", _instrumenting)
    if _CONTROL:
        return
    trace.set_tracer_provider(TracerProvider(sampler=asok_trace.StampingSampler(ALWAYS_ON)))
    structlog.configure(
        processors=[asok_trace.inject], logger_factory=structlog.ReturnLoggerFactory()
    )
    asok_trace.stamp_logging()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell how many applications there were."""
    Path(os.environ["SUITES_APPS"]).write_text(str(_made), encoding="utf-8")

"""What watching for the end of each request pays, at the level ``strict``.

The gateway's own two steps, for a Flask request of each operation's own, and then its share of the
look that takes out what is gone; against the usual recipe, `weakref.finalize`.
"""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from asok_trace.core.scope import Scope
from asok_trace.core.settings import STRICT, Settings
from asok_trace.detect import retained
from asok_trace.frameworks.flask import FRAMEWORK
from asok_trace.gateway.exchange import Exchange
from asok_trace.gateway.gate import Gate
from tests.benchmarks import pallets
from tests.benchmarks.worker import Case, Serve

BATCH = 500
"""Requests between two looks."""


def _nothing(_request: Any) -> None:
    pass


def _ended() -> None:
    pass


def retained_requests(serve: Serve) -> None:
    """Ours and weakref.finalize."""
    app = pallets.flask_app()
    context = app.test_request_context("/orders")
    kind, environ = type(context.request), context.request.environ
    gate = Gate.of(app, FRAMEWORK, Settings(level=STRICT))
    exchange = Exchange(gate, incoming=None, method="GET", path="/orders", ip=None)
    exchange.scope = scope = Scope("an-id", "http", method="GET", path="/orders")
    scope._own = (context, None)
    # Nobody else is to look.
    retained._thread = threading.current_thread()

    def watched(_request: Any) -> None:
        own: Any = scope._own  # as when the response starts
        exchange._handed = weakref.ref(gate.framework.handed(own[0]))
        exchange._watch()

    def loop(step: Callable[[Any], None]) -> Callable[[int], None]:
        def run(operations: int) -> None:
            while operations > 0:
                for _ in range(min(operations, BATCH)):
                    context.request = request = object.__new__(kind)
                    request.environ = environ
                    step(request)
                operations -= BATCH
                del request
                context.request = None
                if step is watched:
                    retained._due(time.monotonic())

        return run

    serve(
        {
            "nothing": Case(loop(_nothing)),
            "finalize": Case(loop(lambda request: weakref.finalize(request, _ended) and None)),
            "watch": Case(loop(watched)),
        }
    )


SETTINGS = {"retained": retained_requests}

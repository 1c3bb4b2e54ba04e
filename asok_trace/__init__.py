"""asok_trace: an observability instrument for request contexts.

Floors; imports go down only, and folders on one floor never import each other:

    6  tools/                   people: what the frameworks' command lines load
    5  assemble.py  callables.py  config.py  providers.py
                                parse settings; install what the frameworks declare; exporters
    4  gateway/  propagate/     in: open and close scopes; across: the context goes along
    3  stamp/  keep/            out: stamp lines and spans; keep the last requests in memory
    2  frameworks/  detect/     who is calling: facts about the current request; watch
    1  core/                    the scope, the settings, the names; standard library only

Importing this package imports nothing: a public name loads its module when it is touched.
It may be loaded before pytest, which would warn that it is not rewritten: PYTEST_DONT_REWRITE.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asok_trace.assemble import instrument, setup
    from asok_trace.core.errors import ConfigError, LeakWarning, OrphanWarning
    from asok_trace.core.finding import Finding
    from asok_trace.core.findings import assert_clean, findings
    from asok_trace.core.hooks import Handle
    from asok_trace.core.ignoring import ignore
    from asok_trace.core.scope import Scope
    from asok_trace.core.telling import on_finding
    from asok_trace.frameworks.lookup import bind, current
    from asok_trace.gateway.unit import scope
    from asok_trace.keep.ring import report
    from asok_trace.propagate.carrier import from_carrier, to_carrier
    from asok_trace.propagate.executors import ContextExecutor
    from asok_trace.propagate.streams import wrap_stream
    from asok_trace.propagate.threads import propagate_threads
    from asok_trace.propagate.wrap import detach, wrap
    from asok_trace.stamp.spans import SpanStamper, StampingSampler
    from asok_trace.stamp.stdlib import RequestFilter, stamp_logging
    from asok_trace.stamp.structlog import inject

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "ContextExecutor",
    "Finding",
    "Handle",
    "LeakWarning",
    "OrphanWarning",
    "RequestFilter",
    "Scope",
    "SpanStamper",
    "StampingSampler",
    "assert_clean",
    "bind",
    "current",
    "detach",
    "findings",
    "from_carrier",
    "ignore",
    "inject",
    "instrument",
    "on_finding",
    "propagate_threads",
    "report",
    "scope",
    "setup",
    "stamp_logging",
    "to_carrier",
    "wrap",
    "wrap_stream",
]

_MODULES = {
    "ConfigError": "core.errors",
    "ContextExecutor": "propagate.executors",
    "Finding": "core.finding",
    "Handle": "core.hooks",
    "LeakWarning": "core.errors",
    "OrphanWarning": "core.errors",
    "RequestFilter": "stamp.stdlib",
    "Scope": "core.scope",
    "SpanStamper": "stamp.spans",
    "StampingSampler": "stamp.spans",
    "assert_clean": "core.findings",
    "bind": "frameworks.lookup",
    "current": "frameworks.lookup",
    "detach": "propagate.wrap",
    "findings": "core.findings",
    "from_carrier": "propagate.carrier",
    "ignore": "core.ignoring",
    "inject": "stamp.structlog",
    "instrument": "assemble",
    "on_finding": "core.telling",
    "propagate_threads": "propagate.threads",
    "report": "keep.ring",
    "scope": "gateway.unit",
    "setup": "assemble",
    "stamp_logging": "stamp.stdlib",
    "to_carrier": "propagate.carrier",
    "wrap": "propagate.wrap",
    "wrap_stream": "propagate.streams",
}


def __getattr__(name: str) -> Any:
    """Load the module of a public name (PEP 562), and the environment's settings before it."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    # Once: what `setup` was told holds from then on.
    if "asok_trace.config" not in sys.modules and any(
        variable.startswith("ASOK_TRACE_") for variable in os.environ
    ):
        import_module("asok_trace.config").apply_environment()
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

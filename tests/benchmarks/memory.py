"""Bytes per open scope, how many live on after their requests, and growth of the process.

A worker process prints these as JSON. The bytes of a scope are those of the objects that it
alone holds: itself, its dicts, its texts, after a line was logged in it. The growth of the
process is what its resident memory gains over thousands of instrumented requests, in the whole
and in the second half, when caches are full.
"""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asok_trace
from asok_trace.core.scope import ACTIVE, SERVED, Scope
from tests.benchmarks import measure, site
from tests.benchmarks.lines import resolved

REQUESTS = 20_000
QUICK_REQUESTS = 200


def measured(requests: int) -> dict[str, float]:
    """Measure in a process of its own."""
    done = subprocess.run(
        measure.command("memory", str(requests)),
        env=measure.environment(0),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def report(requests: int) -> None:
    """Print the measurements of this process as JSON."""
    # In this order: an event loop keeps a copy of the context that it was made in.
    found = {"left": float(scopes_left()), "scope_bytes": float(scope_bytes())}
    json.dump(found | growth(requests), sys.stdout)


def scope_bytes() -> int:
    """Bytes of one open scope that an instrumented request has logged in."""
    sizes = []

    def view(request: Any) -> str:
        resolved(request)
        asok_trace.inject(None, "info", {})
        scope = ACTIVE.get()
        assert scope is not None
        sizes.append(sum(map(sys.getsizeof, _owned(scope))))
        return "measured"

    app = site.make()
    app.view = view
    with asok_trace.instrument(app, access_log=False):
        site.wsgi(app)
    return sizes[0]


def _owned(scope: Scope) -> list[object]:
    """The scope and what exists for its sake; each object once."""
    found: dict[int, object] = {id(scope): scope}
    for name in Scope.__slots__:
        value = getattr(scope, name, None)
        if isinstance(value, (dict, tuple)) or name == "_request_id":
            found[id(value)] = value
        if isinstance(value, dict):
            found |= {id(text): text for text in value.values() if isinstance(text, str)}
    # The path is the environ's own text, the address that of a cache: neither is copied. Nor is
    # what every scope has.
    other = Scope("", "http")
    shared = {id(getattr(other, name, None)) for name in Scope.__slots__}
    shared |= {id(scope._path), id(scope._ip)}
    return [value for key, value in found.items() if key not in shared]


def scopes_left() -> int:
    """How many scopes live after the requests that opened them, without a collection."""
    gc.collect()
    gc.disable()
    try:
        app = site.make()
        app.view = lambda request: str(asok_trace.inject(None, "info", {}))
        send = site.asgi_client()
        with asok_trace.instrument(app, access_log=False):
            for _ in range(20):
                site.wsgi(app)
                send(app)
        # The server's context keeps the last one, for the server's own lines about it.
        last = SERVED.get()
        return sum(type(found) is Scope and found is not last for found in gc.get_objects())
    finally:
        gc.enable()


def growth(requests: int) -> dict[str, float]:
    """What the process gains over ``requests`` requests, in MiB; in the second half of them."""
    app = site.make()
    app.view = lambda request: str(asok_trace.inject(None, "info", {}))
    with asok_trace.instrument(app, access_log=False):
        _serve(app, requests // 10 + 1)
        start = _resident()
        _serve(app, requests // 2)
        middle = _resident()
        _serve(app, requests // 2)
    return {"growth": _resident() - start, "second_half": _resident() - middle}


def _serve(app: Any, requests: int) -> None:
    for _ in range(requests):
        site.wsgi(app)


def _resident() -> float:
    """Resident memory in MiB; its peak where the system tells no more; nan where not even that."""
    gc.collect()
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

"""Run an example's demo whose spans go to Jaeger, and whose trees are drawn from what Jaeger tells:
``python -m tests.jaeger.example FOLDER SERVICE PORT``, with ``OTEL_*`` for where it is."""

import os
import sys
from importlib import import_module
from typing import Any

from asok_trace.keep.ring import Kept, Trace
from tests.jaeger.reading import Jaeger, Span

ABOUT = ("request.id", "url.path", "user.id", "asok_trace.connection_id")


def main(folder: str, service: str, port: str) -> int:
    """Run the demo; return its exit status."""
    sys.path[:0] = [folder, os.path.join(folder, os.pardir, "checking")]
    serving: Any = import_module("serving")
    serving.PASSED_ON += tuple(name for name in os.environ if name.startswith("OTEL_"))
    jaeger = Jaeger(int(port), 0)
    serving.Served.report = lambda _shop: drawn(jaeger.search(service))
    status: int = import_module("demo").main()
    return status


def drawn(traces: list[list[Span]]) -> str:
    """The trees of ``traces``, as `asok_trace.report` draws them."""
    return "\n\n".join(tree(spans) for spans in traces)


def tree(spans: list[Span]) -> str:
    trace = Trace(int(spans[0].trace_id, 16))
    trace.spans += [kept(span) for span in spans]
    return trace.tree()


def kept(span: Span) -> Kept:
    """As `asok_trace.keep` has it: only what is no other's child tells what it is about."""
    about = [f"{key}={span.tags[key]}" for key in ABOUT if key in span.tags]
    return Kept(
        int(span.id, 16),
        None if span.parent is None else int(span.parent, 16),
        span.name,
        span.start * 1000,
        span.end * 1000,
        "error" in span.tags,
        "  ".join(about) if span.parent is None else "",
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""What one structlog line pays to its processor, alone, for four keys.

The processor is called in a loop with a fresh event dict of three keys; the loop that only makes
these dicts is subtracted. `inject` runs at each place a line can come from: inside an
instrumented Asok request, in one without `instrument`, in a unit of work, outside of everything.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from types import SimpleNamespace
from typing import Any

import structlog

import asok_trace
from asok_trace.core import findings
from tests.benchmarks import site
from tests.benchmarks.worker import Case, Cases, Serve, Setting

STAMP = {
    "request_id": "0af7651916cd43dd8448eb211c80319c",
    "ip": site.PEER,
    "user": "42",
    "path": "/orders",
}

Processor = Callable[[Any, str, dict[str, Any]], Any]

_variable: ContextVar[dict[str, str]] = ContextVar("floor")


def floor(logger: Any, method_name: str, event_dict: dict[str, Any]) -> dict[str, Any]:
    """The least that stamps a line: one variable is read, two dicts are merged."""
    return _variable.get() | event_dict


def nothing(operations: int) -> None:
    """The loop itself."""
    for _ in range(operations):
        _ = {"event": "order paid", "order": 17, "level": "info"}


def calling(processor: Processor, context: Context) -> Case:
    """Return the case of a processor that is called in ``context``."""

    def loop(operations: int) -> None:
        for _ in range(operations):
            processor(None, "info", {"event": "order paid", "order": 17, "level": "info"})

    return Case(lambda operations: context.run(loop, operations))


def cases(inside: Context) -> Cases:
    """The processors: ours in the context ``inside``, the others with the same four keys."""
    floors, bound = copy_context(), copy_context()
    floors.run(_variable.set, STAMP)
    bound.run(lambda: structlog.contextvars.bind_contextvars(**STAMP))
    return {
        "nothing": Case(nothing),
        "floor": calling(floor, floors),
        "merge_contextvars": calling(structlog.contextvars.merge_contextvars, bound),
        "inject": calling(asok_trace.inject, inside),
    }


def resolved(request: Any) -> None:
    """The page has asked asok who the user is."""
    assert request.session is not None
    request.user = SimpleNamespace(id=42, name="ada")


def in_session(request: Any) -> None:
    """The session names a user, and nobody has asked asok yet."""
    request.session["user_id"] = 42


def in_request(prepare: Callable[[Any], None], *, instrumented: bool) -> Setting:
    """Lines of a page of an Asok application."""

    def setting(serve: Serve) -> None:
        app = site.make()
        if instrumented:
            asok_trace.instrument(app, access_log=False)

        def view(request: Any) -> str:
            prepare(request)
            stamped = asok_trace.inject(None, "info", {})
            assert isinstance(stamped, dict)
            assert stamped.keys() == STAMP.keys(), stamped
            serve(cases(copy_context()))
            return "measured"

        app.view = view
        site.wsgi(app)

    return setting


def in_unit(serve: Serve) -> None:
    """Lines of a scope that nothing can change, with four keys too."""
    with asok_trace.scope("nightly", ip=site.PEER, user="42"):
        serve(cases(copy_context()))


def outside(*, asok: bool) -> Setting:
    """Lines of a thread that no request has anything to do with."""

    def setting(serve: Serve) -> None:
        if asok:
            site.make()
        serve(cases(Context()))

    return setting


def noted(serve: Serve) -> None:
    """Lines of a thread outside any request, in a process that serves some: each is noted at the
    place that has logged it. Through a logger, since what is compared looks for that place."""

    def logging(processor: Processor) -> Case:
        log = structlog.wrap_logger(
            structlog.ReturnLogger(), processors=[processor, lambda *_: ""]
        ).bind()

        def run(operations: int) -> None:
            for _ in range(operations):
                log.info("order paid", order=17)

        return Case(run)

    findings.serve()
    adder = structlog.processors.CallsiteParameterAdder()
    cases = {
        "nothing": logging(lambda _logger, _name, event: event),
        "CallsiteParameterAdder": logging(adder),
        "inject": logging(asok_trace.inject),
    }
    cases["inject"].run(1)
    [finding] = findings.findings()
    assert finding.callsite.endswith(" run"), finding
    serve(cases)


@contextmanager
def configured() -> Iterator[None]:
    """As most programs are: `inject` somewhere before the renderer."""
    structlog.configure(processors=[asok_trace.inject, structlog.processors.JSONRenderer()])
    try:
        yield
    finally:
        structlog.reset_defaults()


def _configured(setting: Setting) -> Setting:
    def with_chain(serve: Serve) -> None:
        with configured():
            setting(serve)

    return with_chain


SETTINGS: dict[str, Setting] = {
    name: _configured(setting)
    for name, setting in {
        "user": in_request(resolved, instrumented=True),
        "session": in_request(in_session, instrumented=True),
        "unowned": in_request(resolved, instrumented=False),
        "unit": in_unit,
        "outside": outside(asok=True),
        "outside_bare": outside(asok=False),
        "noted": noted,
    }.items()
}

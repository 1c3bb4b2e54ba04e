"""Which comparison belongs to which goal.

G1 to G13 are the project's goals: what a thing may cost at most, relative to its floor or to the
usual recipe. A row without a limit is there to be looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from tests.benchmarks.measure import Slot


@dataclass(frozen=True)
class Comparison:
    """What ``ours`` adds to ``zero``, relative to what ``base`` adds."""

    goal: str
    what: str
    ours: Slot
    base: Slot
    zero: Slot
    limit: float | None = None
    effort: int = 1
    """How much longer than others it has to be measured."""

    @property
    def slots(self) -> tuple[Slot, Slot, Slot]:
        """What has to be measured."""
        return (self.zero, self.base, self.ours)


def _line(goal: str, what: str, place: str, base: str, limit: float | None = None) -> Comparison:
    setting = f"lines.{place}"
    return Comparison(goal, what, (setting, "inject"), (setting, base), (setting, "nothing"), limit)


def _lines() -> Iterable[Comparison]:
    for what, place in (
        ("inject, user resolved", "user"),
        ("inject, user in the session", "session"),
        ("inject, in a scope()", "unit"),
    ):
        yield _line("G1", what, place, "floor", 1.5)
        yield _line("G1", what, place, "merge_contextvars", 0.25)
    yield _line("", "inject, without instrument()", "unowned", "floor")
    yield _line("", "inject, without instrument()", "unowned", "merge_contextvars")
    yield _line("G3", "inject outside, Asok loaded", "outside", "floor", 0.3)
    yield _line("G3", "inject outside, Asok not loaded", "outside_bare", "floor", 0.3)
    yield _line("G3", "inject outside, noted", "noted", "CallsiteParameterAdder", 0.2)


def _records() -> Iterable[Comparison]:
    ours, base, zero = ((f"records.{name}", name) for name in ("stamp_logging", "floor", "nothing"))
    yield Comparison("G4", "stamp_logging()", ours, base, zero, 1.8)


def _requests(interface: str, against_tracing: float | None) -> Iterable[Comparison]:
    setting = f"requests.{interface}"
    zero, floor = (setting, "nothing"), (setting, "floor")
    tracing = (setting, "TracingMiddleware")
    name = f"{interface.upper()} request"
    for goal, what, ours, against_floor, against in (
        ("G5", f"{name}, ids", (setting, "ids"), 2.0, against_tracing),
        ("", f"{name}, ids and canonical line", (setting, "access_log"), None, None),
    ):
        yield Comparison(goal, what, ours, floor, zero, against_floor, effort=2)
        yield Comparison(goal, what, ours, tracing, zero, against, effort=2)


def _hops() -> Iterable[Comparison]:
    for place in ("thread", "pool"):
        setting = f"hops.{place}"
        zero, otel = (setting, "nothing"), (setting, "otel_threading")
        for ours in ("carry", "watch"):
            what = f'{place}, threads="{ours}"'
            yield Comparison("G10", what, (setting, ours), otel, zero, 0.75, effort=2)


def _registry() -> Iterable[Comparison]:
    setting = "registry.retained"
    zero, base, ours = ((setting, case) for case in ("nothing", "finalize", "watch"))
    # 5,000 instructions, of which finalize takes 9,700.
    yield Comparison("G12", "a request watched at strict", ours, base, zero, 0.5)


def _pallets() -> Iterable[Comparison]:
    for framework, goal, what, case, base, limit in (
        ("flask", "", "Flask request, ids", "ids", "otel-flask", None),
        ("flask", "G6", "Flask request, spans", "spans", "otel-flask", 0.35),
        ("flask", "", "Flask request, spans and canonical line", "everything", "otel-flask", None),
        ("quart", "G5", "Quart request, ids", "ids", "asgi-correlation-id", 0.6),
        ("quart", "G7", "Quart request, spans", "spans", "otel-asgi", 0.25),
        ("quart", "G7", "Quart request, spans", "spans", "otel-asgi-one-span", 0.5),
        ("quart", "", "Quart request, spans and canonical line", "everything", "otel-asgi", None),
    ):
        slots = [(f"pallets.{framework}", name) for name in (case, base, "nothing")]
        yield Comparison(goal, what, slots[0], slots[1], slots[2], limit, effort=2)


COMPARISONS = (
    *_lines(),
    *_records(),
    *_hops(),
    *_registry(),
    *_requests("wsgi", 0.45),
    *_requests("asgi", None),
    *_pallets(),
)


def groups() -> list[list[Comparison]]:
    """The comparisons, those that share their processes together."""
    return [
        list(found)
        for _, found in groupby(COMPARISONS, key=lambda row: tuple(s for s, _ in row.slots))
    ]


def slots(rows: Iterable[Comparison]) -> list[Slot]:
    """All that has to be measured for ``rows``, each once."""
    return list(dict.fromkeys(slot for row in rows for slot in row.slots))

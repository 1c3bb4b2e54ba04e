"""What to write instead, as a line of code: for work whose context stayed behind."""

from asok_trace.core.settings import CARRY, OFF

threads = OFF
"""The mode of `propagate_threads` that is in force: nobody is told to do what is done."""

_LAMBDA = "<lambda>"
_WATCH = 'asok_trace.propagate_threads("watch")'


def written(work: str) -> str:
    """How one would write the function of this name where it is handed over."""
    return "lambda: ..." if work.endswith(_LAMBDA) else work


def hand_over(work: str) -> str:
    """At a place that is told."""
    fix = f"hand over asok_trace.wrap({written(work)}) there"
    if threads == CARRY:
        return fix
    return f'{fix}; or asok_trace.propagate_threads("carry") for all threads and pools'


def hand_over_where(where: str, work: str) -> str:
    """At a place that nobody has seen, unless somebody looks there."""
    fix = f"hand over asok_trace.wrap({written(work)}) {where}"
    return fix if threads != OFF else f"{fix}; {_WATCH} tells where that is"


def open_scope(work: str, *, elsewhere: bool) -> str:
    """With no request behind it; or so it seems, if it runs ``elsewhere`` and nobody looks where
    that comes from."""
    name = work.removesuffix(_LAMBDA).strip(".") or "work"
    fix = f'with asok_trace.scope("{name}"): around the work that it belongs to'
    if threads != OFF or not elsewhere:
        return fix
    return f"{fix}; if a request starts it, {_WATCH} tells where"

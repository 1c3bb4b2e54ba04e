"""Context health: whether every line and span knew its request, where not, what outlived one."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from asok_trace.core import finding
from asok_trace.core import names as wire
from grafana import names as n
from grafana.boards.common import OF_SERVICE, RANGE, RATE, board, legend, quantile, services
from grafana.panels import LOKI, curves, lines, log_now, number, prom, rows

_REQUESTS: Final = f"{n.REQUESTS}{{{OF_SERVICE}}}"
_FINDINGS: Final = f"{n.FINDINGS}{{{OF_SERVICE}}}"
_LATE: Final = f"{n.LATE_LINES}{{{OF_SERVICE}}}"
_DROPPED: Final = f"{n.EXPORT_DROPPED}{{{OF_SERVICE}}}"
_JOBS: Final = f"{n.JOBS}{{{OF_SERVICE}}}"
_FAILED_JOBS: Final = f'{n.JOBS}{{{OF_SERVICE}, {n.ERROR}!=""}}'
_JOB_BUCKETS: Final = f"{n.JOB_BUCKETS}{{{OF_SERVICE}}}"
_WORK: Final = f"{n.WORK_KIND}, {n.WORK_NAME}"

# The lines that findings are told with.
TOLD: Final = f'{{{n.LOKI_SERVICE}=~"$service"}} | {n.LOGGER}="{wire.LOGGER}"'
PLACES: Final = {
    n.LOKI_SERVICE: "Service",
    wire.FINDING: "Finding",
    wire.FINDING_CALLSITE: "Place",
    wire.FINDING_KEY: "Key, to ignore it",
}
LATE_LINES: Final = f'{{{n.LOKI_SERVICE}=~"$service"}} | {wire.LATE_MS}!=""'

_NUMBERS: Final = {
    finding.LOST: "Work that a request started and that does not know it.",
    finding.LATE: "Work that still acts for a request that is over.",
    f"{finding.BLEED}|{finding.FOREIGN}": "What one request left to another. Look at once.",
    finding.UNCLOSED: "Contexts dropped while open: streams given up, resets forgotten.",
    finding.RETAINED: "Requests still in memory after their grace time (level strict).",
    finding.OUTSIDE: "Lines and spans with no request behind them: what runs by the clock, say.",
}


def _found(slugs: str, window: str) -> str:
    """How many of some kinds of findings there were; zero where there were none."""
    counter = f'{n.FINDINGS}{{{OF_SERVICE}, {n.FINDING}=~"{slugs}"}}'
    return f"sum(increase({counter}{window})) or vector(0)"


def make() -> Dashboard:
    """The dashboard."""
    return board(
        "asok-trace-context",
        "Context health",
        "Whether every line and span knew its request, where not, and what outlived one.",
        [services(f'{{__name__=~"{n.REQUESTS}|{n.JOBS}|{n.FINDINGS}"}}')],
        [
            *(
                number(
                    slugs.replace("|", ", ").capitalize(),
                    says,
                    _found(slugs, RANGE),
                    red_from=None if slugs == finding.OUTSIDE else 1,
                )
                for slugs, says in _NUMBERS.items()
            ),
            curves(
                "Findings by kind",
                "How often each was seen.",
                prom(f"sum by ({n.FINDING}) (increase({_FINDINGS}{RATE}))", legend(n.FINDING)),
                unit="short",
                bars=True,
            ),
            curves(
                "Lost, late and retained",
                "Of a hundred requests.",
                *(
                    prom(
                        f"100 * ({_found(slug, RATE)}) / sum(increase({_REQUESTS}{RATE}))",
                        slug,
                    )
                    for slug in (finding.LOST, finding.LATE, finding.RETAINED)
                ),
                unit="short",
            ),
            rows(
                "Top places",
                "From the logs. A process tells each place once, so processes are counted.",
                LOKI,
                {**PLACES, "Value #A": "Processes"},
                log_now(
                    f"topk(20, sum by ({', '.join(PLACES)})"
                    f' (count_over_time({TOLD} | {wire.FINDING_CALLSITE}!="" {RANGE})))'
                ),
                width=24,
            ),
            lines("As they were told", "With where each came from, and the fix.", TOLD),
            curves(
                "Lines and spans after the end of their request",
                "A second.",
                prom(f"sum by ({n.SERVICE}) (rate({_LATE}{RATE}))", legend(n.SERVICE)),
                unit="short",
            ),
            rows(
                "Who is late, and by how much",
                "By the path of the request that was over.",
                LOKI,
                {wire.PATH: "Path", "Value #A": "Lines", "Value #B": "At most"},
                log_now(f"topk(20, sum by ({wire.PATH}) (count_over_time({LATE_LINES} {RANGE})))"),
                log_now(
                    f"max_over_time({LATE_LINES} | unwrap {wire.LATE_MS} {RANGE}) by ({wire.PATH})"
                ),
                units={"At most": "ms"},
            ),
            curves(
                "Background work: duration",
                "What 95 of 100 tasks, jobs and scheduled runs stay below.",
                prom(
                    quantile(0.95, _JOB_BUCKETS, _WORK),
                    legend(n.WORK_KIND, n.WORK_NAME),
                    exemplars=True,
                ),
                unit="s",
            ),
            curves(
                "Background work: runs and failures",
                "A second.",
                prom(f"sum by ({_WORK}) (rate({_JOBS}{RATE}))", legend(n.WORK_KIND, n.WORK_NAME)),
                prom(
                    f"sum by ({_WORK}, {n.ERROR}) (rate({_FAILED_JOBS}{RATE}))",
                    legend(n.WORK_KIND, n.WORK_NAME, n.ERROR),
                ),
                unit="short",
            ),
            curves(
                "Not exported",
                "Spans (traces) and log lines (logs) that are gone: the collector was away for"
                " longer than the queue lasts.",
                prom(
                    f"sum by ({n.SERVICE}, {n.SIGNAL}) (increase({_DROPPED}{RATE}))",
                    legend(n.SERVICE, n.SIGNAL),
                ),
                unit="short",
                width=24,
                bars=True,
            ),
        ],
    )

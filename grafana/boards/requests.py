"""Requests: rate, errors and duration; what is active, what is slow."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana import names as n
from grafana.boards.common import OF_SERVICE, RANGE, RATE, board, choice, legend, quantile, services
from grafana.panels import PROMETHEUS, curves, number, prom, prom_now, rows

_OF: Final = f'{OF_SERVICE}, {n.ROUTE}=~"$route"'
_ALL: Final = f"{n.REQUESTS}{{{_OF}}}"
_FAILED: Final = f'{n.REQUESTS}{{{_OF}, {n.ERROR}!=""}}'
_BUCKETS: Final = f"{n.REQUEST_BUCKETS}{{{_OF}}}"
_SECONDS: Final = f"{n.REQUEST_SECONDS}{{{_OF}}}"
_ACTIVE: Final = f"{n.ACTIVE}{{{OF_SERVICE}}}"


def make() -> Dashboard:
    """The dashboard."""
    routes = choice(
        "route",
        "Route",
        f"label_values({n.REQUESTS}{{{OF_SERVICE}}}, {n.ROUTE})",
        ".*",  # with what no route was found for
    )
    return board(
        "asok-trace-requests",
        "Requests",
        "How many, how many fail, and how long they take.",
        [services(n.REQUESTS), routes],
        [
            number("Requests", "A second.", f"sum(rate({_ALL}{RATE}))", "reqps", width=6),
            number(
                "Errors",
                "The share of requests that raised, or were answered with a 5xx.",
                f"(sum(rate({_FAILED}{RATE})) or vector(0)) / sum(rate({_ALL}{RATE}))",
                "percentunit",
                red_from=0.05,
                width=6,
            ),
            number(
                "95 of 100 are done within",
                "From the first byte of a request to the last of its response.",
                quantile(0.95, _BUCKETS),
                "s",
                red_from=1,
                width=6,
            ),
            number("Active", "Being served right now.", f"sum({_ACTIVE})", width=6),
            curves(
                "Requests by route",
                "Without a route: what none was found for.",
                prom(
                    f"sum by ({n.METHOD}, {n.ROUTE}) (rate({_ALL}{RATE}))",
                    legend(n.METHOD, n.ROUTE),
                ),
                unit="reqps",
            ),
            curves(
                "Errors by route",
                "With the exception that escaped, or the status.",
                prom(
                    f"sum by ({n.ROUTE}, {n.ERROR}) (rate({_FAILED}{RATE}))",
                    legend(n.ROUTE, n.ERROR),
                ),
                unit="reqps",
            ),
            curves(
                "Duration",
                "Each dot is a request: open its trace.",
                prom(quantile(0.5, _BUCKETS), "p50", exemplars=True),
                prom(quantile(0.95, _BUCKETS), "p95", exemplars=True),
                prom(quantile(0.99, _BUCKETS), "p99", exemplars=True),
                unit="s",
            ),
            curves(
                "Duration by route",
                "What 95 of 100 requests stay below.",
                prom(quantile(0.95, _BUCKETS, n.ROUTE), legend(n.ROUTE), exemplars=True),
                unit="s",
            ),
            curves(
                "Active requests",
                "What grows and does not shrink is stuck.",
                prom(f"sum by ({n.METHOD}) ({_ACTIVE})", legend(n.METHOD)),
                unit="short",
                width=24,
            ),
            rows(
                "Slowest routes",
                "In the whole time range.",
                PROMETHEUS,
                {n.ROUTE: "Route", "Value #A": "p95", "Value #B": "Mean", "Value #C": "Requests"},
                prom_now(f"topk(20, {quantile(0.95, _BUCKETS, n.ROUTE, RANGE)})"),
                prom_now(
                    f"sum by ({n.ROUTE}) (rate({_SECONDS}{RANGE}))"
                    f" / sum by ({n.ROUTE}) (rate({_ALL}{RANGE}))"
                ),
                prom_now(f"sum by ({n.ROUTE}) (increase({_ALL}{RANGE}))"),
                units={"p95": "s", "Mean": "s"},
            ),
            rows(
                "What failed",
                "In the whole time range.",
                PROMETHEUS,
                {
                    n.ROUTE: "Route",
                    n.STATUS: "Status",
                    n.ERROR: "Error",
                    "Value #A": "Requests",
                },
                prom_now(f"sum by ({n.ROUTE}, {n.STATUS}, {n.ERROR}) (increase({_FAILED}{RANGE}))"),
            ),
        ],
    )

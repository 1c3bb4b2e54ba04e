"""What the dashboards share: the frame of one, its variables, and the queries' parts."""

from collections.abc import Iterable
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana import names as n
from grafana.panels import PROMETHEUS

RATE: Final = "[$__rate_interval]"
RANGE: Final = "[$__range]"

OF_SERVICE: Final = f'{n.SERVICE}=~"$service"'

_TAG: Final = "asok_trace"


def board(
    uid: str,
    title: str,
    says: str,
    variables: Iterable[cog.Builder[VariableModel]],
    panels: Iterable[cog.Builder[Panel]],
) -> dashboard.Dashboard:
    """A dashboard of the last hour, with links to the others."""
    others = (
        dashboard.DashboardLink("asok_trace")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([_TAG])
        .keep_time(True)
    )
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags([_TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .annotations([])
        .link(others)
    )
    for variable in variables:
        made.with_variable(variable)
    for number, panel in enumerate(panels, 1):
        made.with_panel(panel.id(number))  # type: ignore[attr-defined]  # every panel has it
    return made


def choice(name: str, label: str, query: str, all_value: str) -> dashboard.QueryVariable:
    """A variable with the values of a label in Prometheus: some of them, or all."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(all_value)
        .current(VariableOption(text="All", value="$__all"))
    )


def services(metrics: str) -> dashboard.QueryVariable:
    """The variable ``service``: those that have such a metric."""
    return choice("service", "Service", f"label_values({metrics}, {n.SERVICE})", ".+")


def quantile(share: float, buckets: str, by: str = "", window: str = RATE) -> str:
    """A quantile of a histogram, by some labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({buckets}{window})))"


def legend(*labels: str) -> str:
    """A series is named by its values of these."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)

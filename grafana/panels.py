"""What the dashboards are made of: a panel of each sort, and the queries that it asks.

Sizes are in Grafana's grid, which is 24 wide; panels flow from left to right.
"""

from typing import Final, Self

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    logs,
    loki,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    DataSourceRef,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LogsSortOrder,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana import names

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid=names.PROMETHEUS)
LOKI: Final = DataSourceRef(type_val="loki", uid=names.LOKI)
JAEGER: Final = DataSourceRef(type_val="jaeger", uid=names.JAEGER)

Query = cog.Builder[variants.Dataquery]


def prom(expr: str, legend: str = "__auto", *, exemplars: bool = False) -> prometheus.Dataquery:
    """A query over the time range."""
    query = prometheus.Dataquery().datasource(PROMETHEUS).expr(expr)
    query.legend_format(legend).range()
    return query.exemplar(True) if exemplars else query


def prom_now(expr: str) -> prometheus.Dataquery:
    """A query for one value, or for the rows of a table."""
    query = prometheus.Dataquery().datasource(PROMETHEUS).expr(expr)
    return query.instant().format(PromQueryFormat.TABLE)


def log_lines(expr: str, lines: int = 1000) -> loki.Dataquery:
    """A query for lines."""
    query = loki.Dataquery().datasource(LOKI).expr(expr)
    return query.query_type("range").max_lines(lines)


def log_now(expr: str) -> loki.Dataquery:
    """A query that makes the rows of a table of lines."""
    return loki.Dataquery().datasource(LOKI).expr(expr).query_type("instant")


class _JaegerQuery(variants.Dataquery):
    """Grafana's SDK has none for Jaeger; the fields are those of its data source."""

    def __init__(self, **fields: object) -> None:
        self.ref_id = "A"
        self._fields = fields

    def to_json(self) -> dict[str, object]:
        source = {"type": JAEGER.type_val, "uid": JAEGER.uid}
        return {"refId": self.ref_id, "datasource": source, **self._fields}


class Traces(cog.Builder[variants.Dataquery]):
    """One trace by its id, or a search."""

    def __init__(self, **fields: object) -> None:
        self._query = _JaegerQuery(**fields)

    def build(self) -> variants.Dataquery:
        """The query."""
        return self._query

    def ref_id(self, ref_id: str) -> Self:
        """Name it within its panel."""
        self._query.ref_id = ref_id
        return self


def number(
    title: str,
    says: str,
    expr: str,
    unit: str = "short",
    *,
    red_from: float | None = None,
    width: int = 4,
) -> stat.Panel:
    """One number; red from ``red_from`` on."""
    steps = [Threshold(value=None, color="green")]
    if red_from is not None:
        steps.append(Threshold(value=red_from, color="red"))
    return (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .with_target(prometheus.Dataquery().datasource(PROMETHEUS).expr(expr).instant().ref_id("A"))
        .unit(unit)
        .color_mode(BigValueColorMode.VALUE)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .height(4)
        .span(width)
    )


def curves(
    title: str, says: str, *queries: Query, unit: str, width: int = 12, bars: bool = False
) -> timeseries.Panel:
    """Values over time; ``bars`` for what is counted, stacked."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        .height(8)
        .span(width)
    )
    for letter, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(query.ref_id(letter))  # type: ignore[attr-defined]  # each of ours has it
    if bars:
        panel.draw_style(GraphDrawStyle.BARS).fill_opacity(80)
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return panel


def rows(
    title: str,
    says: str,
    source: DataSourceRef,
    columns: dict[str, str],
    *queries: Query,
    units: dict[str, str] | None = None,
    width: int = 12,
) -> table.Panel:
    """A table. ``columns`` are the fields that are shown, with their headings, in order; several
    queries are joined by their labels, their values being ``Value #A``, ``Value #B``."""
    if len(queries) == 1:  # for Prometheus alone it is then the Value
        columns = columns | {"Value": columns["Value #A"]}
    panel = (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(source)
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {field: place for place, field in enumerate(columns)},
                    "renameByName": columns,
                },
            )
        )
        .height(9)
        .span(width)
    )
    for letter, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(query.ref_id(letter))  # type: ignore[attr-defined]
    for heading, unit in (units or {}).items():
        panel.override_by_name(heading, [DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def lines(title: str, says: str, expr: str, *, oldest_first: bool = False) -> logs.Panel:
    """Log lines, each with all that it carries when it is opened."""
    order = LogsSortOrder.ASCENDING if oldest_first else LogsSortOrder.DESCENDING
    return (
        logs.Panel()
        .title(title)
        .description(says)
        .datasource(LOKI)
        .with_target(log_lines(expr).ref_id("A"))
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(order)
        .height(11)
        .span(24)
    )


def found_traces(title: str, says: str, query: Traces) -> table.Panel:
    """What a search in Jaeger finds."""
    panel = table.Panel().title(title).description(says).datasource(JAEGER)
    return panel.with_target(query).height(6).span(24)


def trace(title: str, says: str, query: Traces) -> dashboard.Panel:
    """One trace, as Jaeger shows it."""
    panel = dashboard.Panel().type("traces").title(title).description(says).datasource(JAEGER)
    return panel.with_target(query).height(18).span(24)

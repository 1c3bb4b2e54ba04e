"""One request, by the id that its client was given: all its lines, and its trace."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    VariableRefresh,
    VariableSort,
)

from asok_trace.core import names as wire
from grafana import names as n
from grafana.boards.common import RANGE, board
from grafana.panels import LOKI, Traces, found_traces, lines, log_now, rows, trace

UID: Final = "asok-trace-request"

# In every service that it reached.
LINES: Final = f'{{{n.LOKI_SERVICE}=~".+"}} | {wire.REQUEST_ID}=`$request_id`'

_FACTS: Final = {
    wire.METHOD: "Method",
    wire.PATH: "Path",
    wire.ROUTE: "Route",
    wire.STATUS: "Status",
    wire.IP: "IP",
    wire.USER: "User",
}


def make() -> dashboard.Dashboard:
    """The dashboard."""
    service = (
        dashboard.QueryVariable("service")
        .label("Service")
        .description("Whose spans Jaeger looks through.")
        .datasource(LOKI)
        .query({"label": n.LOKI_SERVICE, "refId": "services", "stream": "", "type": 1})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    request_id = (
        dashboard.TextBoxVariable("request_id")
        .label("Request id")
        .description("The X-Request-ID of the response.")
        .default_value("")
    )
    trace_id = (
        dashboard.TextBoxVariable("trace_id")
        .label("Trace id")
        .description("The same as the request id, unless the client sent an id of its own.")
        .default_value("")
    )
    show = DynamicConfigValue(
        id_val="links",
        value=[
            {
                "title": "Show it below",
                "url": f"/d/{UID}?${{service:queryparam}}&${{request_id:queryparam}}"
                "&var-trace_id=${__value.raw}&${__url_time_range}",
            }
        ],
    )
    by_id = Traces(
        queryType="search",
        service="$service",
        tags=f"{wire.ATTRIBUTE_REQUEST_ID}=$request_id",
        limit=20,
    )
    return board(
        UID,
        "One request",
        "All its lines and its trace, by its id.",
        [service, request_id, trace_id],
        [
            rows(
                "The request",
                "From its canonical line.",
                LOKI,
                {**_FACTS, "Value #A": "Duration"},
                log_now(
                    f'max_over_time({LINES} | {wire.DURATION_MS}!=""'
                    f" | unwrap {wire.DURATION_MS} {RANGE}) by ({', '.join(_FACTS)})"
                ),
                units={"Duration": "ms"},
                width=24,
            ).height(5),
            lines("Its lines", "Oldest first.", LINES, oldest_first=True),
            found_traces(
                "Its traces", "Usually one. Click its id to see it below.", by_id
            ).override_by_name("Trace ID", [show]),
            trace("The trace", "Of the trace id above.", Traces(query="$trace_id")),
        ],
    )

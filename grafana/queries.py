"""Every query of the dashboards, as the data source gets it: for tests, and for trying one by hand.

``python -m grafana.queries`` prints them as JSON. The dashboards' files are all that is needed.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).with_name("dashboards")

VALUES: Final = {
    "__rate_interval": "1m",
    "__range": "1h",
    "__interval": "15s",
    "service": ".+",
    "route": ".*",
    "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}
"""What stands in for the variables where nothing else is given."""

_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


class Query(NamedTuple):
    """One query of a panel."""

    dashboard: str
    """The name of its file, without the suffix."""
    panel: str
    expr: str
    instant: bool
    """Whether it is asked for one moment; else for a range of time."""

    @property
    def own(self) -> str:
        """The query without what stands in for data where there is none."""
        return self.expr.replace(" or vector(0)", "")


def promql(**values: str) -> list[Query]:
    """The PromQL of all dashboards. ``values`` are those of variables: ``__rate_interval="5s"``."""
    return list(_queries("prometheus", values))


def logql(**values: str) -> list[Query]:
    """The LogQL of all dashboards, likewise."""
    return list(_queries("loki", values))


def targets() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The dashboard's name, the panel and the target of each query, as they are in the files."""
    for path in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield path.stem, panel, target


def filled(text: str, **values: str) -> str:
    """``text`` with its variables replaced.

    Raises:
        KeyError: a variable that has no value.
    """
    known = VALUES | values
    return _VARIABLE.sub(lambda found: known[found[1] or found[2]], text)


def _queries(source: str, values: dict[str, str]) -> Iterator[Query]:
    for name, panel, target in targets():
        if target["datasource"]["type"] == source:
            instant = target.get("instant") is True or target.get("queryType") == "instant"
            yield Query(name, panel["title"], filled(target["expr"], **values), instant)


if __name__ == "__main__":
    found = {"promql": promql(), "logql": logql()}
    print(json.dumps({k: [q._asdict() for q in v] for k, v in found.items()}, indent=2))

"""What Grafana is provisioned with: data sources that lead to each other, and the dashboards.

needs: yaml
"""

import re

import yaml

from tests import outside

FOLDER = outside.GRAFANA / "provisioning"
TEXT = (FOLDER / "datasources/datasources.yml").read_text(encoding="utf-8")
SOURCES = {source["uid"]: source for source in yaml.safe_load(TEXT)["datasources"]}
LINE = (
    '{"event": "paying", "request_id": "4bf92f3577b34da6a3ce929d0e0e4736", '
    '"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}'
)


def test_each_leads_to_the_others() -> None:
    """A metric's exemplar to its trace, a line to its trace, a span to its lines."""
    exemplars = SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert [(it["name"], it["datasourceUid"]) for it in exemplars] == [("trace_id", "jaeger")]
    derived = SOURCES["loki"]["jsonData"]["derivedFields"]
    assert {it["datasourceUid"] for it in derived if "datasourceUid" in it} == {"jaeger"}
    assert SOURCES["jaeger"]["jsonData"]["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert SOURCES["jaeger"]["jsonData"]["tracesToMetrics"]["datasourceUid"] == "prometheus"
    assert [uid for uid, source in SOURCES.items() if source.get("isDefault")] == ["prometheus"]


def test_ids_are_found_in_json_lines() -> None:
    """The derived fields for lines that nobody takes apart, on a line as structlog writes it."""
    derived = SOURCES["loki"]["jsonData"]["derivedFields"]
    patterns = [it["matcherRegex"] for it in derived if it.get("matcherType") != "label"]
    assert len(patterns) == 2
    for pattern in patterns:
        for line in (LINE, LINE.replace(": ", ":")):
            found = re.search(pattern, line)
            assert found is not None
            assert found[1] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_no_variable_of_grafana_is_taken_for_one_of_the_environment() -> None:
    """Each dollar sign is written twice."""
    assert "$$" in TEXT
    assert "$" not in TEXT.replace("$$", "")


def test_the_dashboards_are_where_they_are_mounted() -> None:
    """The provider's path is the one of the compose file."""
    provider = yaml.safe_load((FOLDER / "dashboards/dashboards.yml").read_text(encoding="utf-8"))
    path = provider["providers"][0]["options"]["path"]
    assert f"./dashboards:{path}:ro" in (outside.GRAFANA / "docker-compose.yml").read_text()

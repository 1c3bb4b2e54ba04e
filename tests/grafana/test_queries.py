"""The queries of dashboards, rules and data sources, by Grafana's and Prometheus's own parsers.

needs: yaml
"""

import re

import pytest
import yaml

from asok_trace.core import finding
from grafana import names, queries
from tests import outside

RULES = yaml.safe_load((outside.GRAFANA / "prometheus/rules.yml").read_text(encoding="utf-8"))
SOURCES = (outside.GRAFANA / "provisioning/datasources/datasources.yml").read_text(encoding="utf-8")


def rules() -> list[str]:
    return [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]


def wrong(language: str, exprs: list[str]) -> list[list[str]]:
    given = [{"language": language, "expr": expr} for expr in exprs]
    return [places for places in outside.script("parse.mjs", given) if places]


def test_promql_parses() -> None:
    """Of every panel and every rule."""
    exprs = [query.expr for query in queries.promql()] + rules()
    assert len(exprs) > 30
    assert not wrong("promql", exprs)


def test_logql_parses() -> None:
    """Of every panel, and of the way from a span to its lines."""
    from_span = re.findall(r"query: '(\{service_name.*)'", SOURCES)
    assert len(from_span) == 1
    exprs = [query.expr for query in queries.logql()] + from_span
    assert len(exprs) > 6
    assert not wrong("logql", exprs)


@pytest.mark.parametrize(
    ("language", "expr"),
    [("promql", "sum by (job (rate(x[5m]))"), ("logql", '{service_name="shop"} | path=')],
)
def test_the_parsers_find_what_is_wrong(language: str, expr: str) -> None:
    """A query that is no query is told."""
    assert wrong(language, [expr])


def test_only_names_that_are_written_once() -> None:
    """Each metric and label in PromQL is one of grafana.names."""
    known = {*names.METRICS, *names.LABELS}
    for expr in [query.expr for query in queries.promql()] + rules():
        used = set(re.findall(r"\b(?:http|asok_trace|error|url)_\w+", expr))
        assert used <= known, expr
        assert used & set(names.METRICS), expr


def test_only_slugs_that_exist() -> None:
    """Each kind of finding that a query asks for is one."""
    exprs = [query.expr for query in queries.promql()] + rules()
    asked = set(re.findall(rf'{names.FINDING}=~?"([a-z|]+)"', " ".join(exprs)))
    assert len(asked) >= 6
    assert {slug for slugs in asked for slug in slugs.split("|")} <= set(finding.KINDS)


def test_no_id_is_a_label() -> None:
    """The stream selectors, which only labels may stand in, name the service alone."""
    for query in queries.logql():
        selectors = re.findall(r"\{([^}]*)\}", query.expr)
        assert selectors
        for selector in selectors:
            assert re.findall(r"(\w+)\s*[=!]", selector) == [names.LOKI_SERVICE]

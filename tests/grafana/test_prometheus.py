"""Prometheus's configuration and alert rules, by promtool.

needs: yaml
"""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import outside

FOLDER = outside.GRAFANA / "prometheus"


def parsed(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


ALERTS = {rule["alert"]: rule for group in parsed("rules.yml")["groups"] for rule in group["rules"]}
TESTS = parsed("rules_test.yml")["tests"]


def flat(expr: str) -> str:
    return re.sub(r"\s+", "", expr)


def test_the_configuration_is_valid() -> None:
    """With the rules that it names."""
    assert "1 rule files found" in outside.run(
        "promtool", "check", "config", FOLDER / "prometheus.yml"
    )


def test_the_commented_target_is_valid(tmp_path: Path) -> None:
    """For applications that are scraped: with its signs taken away it is a job of its own, at the
    host name that the compose file gives the machine."""
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    told, _, commented = text.partition("  # - job_name: shop")
    assert commented
    uncommented = ("  # - job_name: shop" + commented).replace("  # ", "  ")
    (tmp_path / "prometheus.yml").write_text(told + uncommented, encoding="utf-8")
    shutil.copy(FOLDER / "rules.yml", tmp_path)
    outside.run("promtool", "check", "config", tmp_path / "prometheus.yml")
    jobs = yaml.safe_load(told + uncommented)["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["collector", "shop"]
    compose = (outside.GRAFANA / "docker-compose.yml").read_text(encoding="utf-8")
    for target in jobs[1]["static_configs"][0]["targets"]:
        assert f"{target.partition(':')[0]}:host-gateway" in compose


def test_the_rules_are_valid() -> None:
    """All of them are read."""
    said = outside.run("promtool", "check", "rules", FOLDER / "rules.yml")
    assert f"{len(ALERTS)} rules found" in said


def test_each_alert_fires_when_it_should() -> None:
    """``promtool test rules`` sees each alert fire, and be silent."""
    outside.run("promtool", "test", "rules", "rules_test.yml", folder=FOLDER)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_both_ways(alert: str) -> None:
    """There is a case in which it fires, and its value without the threshold is asked for; and one
    with data in which it does not, unless any value at all is an alert."""
    cases = [
        (test, case)
        for test in TESTS
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    ]
    assert any(case.get("exp_alerts") for _, case in cases)
    quiet = any(not case.get("exp_alerts") for _, case in cases)
    assert quiet or any(len(test["input_series"]) > len(case["exp_alerts"]) for test, case in cases)
    value, threshold = ALERTS[alert]["expr"].rsplit(">", 1)
    assert float(threshold) >= 0
    assert any(
        flat(value) in flat(asked["expr"]) and asked["exp_samples"]
        for test, _ in cases
        for asked in test.get("promql_expr_test", ())
    )


def test_each_alert_says_what_to_look_at() -> None:
    """What happened, and on which dashboard to see it."""
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() >= {"summary", "description", "dashboard"}

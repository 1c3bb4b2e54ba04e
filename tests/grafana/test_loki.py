"""Loki's configuration, by Loki.

needs: yaml
"""

from pathlib import Path

import pytest
import yaml

from tests import outside

FILE = outside.GRAFANA / "loki/loki.yml"


def test_it_is_valid() -> None:
    """Every setting is known."""
    outside.run("loki", f"-config.file={FILE}", "-verify-config")


def test_a_misspelt_setting_is_found(tmp_path: Path) -> None:
    """So the verification above says something."""
    text = FILE.read_text(encoding="utf-8").replace("retention_period", "retention")
    (tmp_path / "wrong.yml").write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match="field retention not found"):
        outside.run("loki", f"-config.file={tmp_path}/wrong.yml", "-verify-config")


def test_labels_are_few_and_lines_end() -> None:
    """What may be a label is what a deployment is named by; old lines are deleted."""
    config = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    otlp = config["limits_config"]["otlp_config"]
    assert otlp.keys() == {"resource_attributes"}
    assert otlp["resource_attributes"]["ignore_defaults"]
    (labels,) = otlp["resource_attributes"]["attributes_config"]
    assert set(labels["attributes"]) == {
        "service.name",
        "service.namespace",
        "deployment.environment.name",
    }
    assert config["compactor"]["retention_enabled"]
    assert config["limits_config"]["retention_period"] == "168h"

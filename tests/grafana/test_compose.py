"""docker-compose.yml, by what docker compose reads it with, and what it mounts.

needs: yaml
"""

import ipaddress
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests import outside

COMPOSE = yaml.safe_load((outside.GRAFANA / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


def loaded(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [outside.build("compose"), path], cwd=outside.GRAFANA, capture_output=True, text=True
    )


def test_it_is_a_compose_file(tmp_path: Path) -> None:
    """By the loader and the schema of ``docker compose``; which find a misspelt key."""
    path = outside.GRAFANA / "docker-compose.yml"
    done = loaded(path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(path.read_text(encoding="utf-8").replace("ports:", "prots:"))
    done = loaded(wrong)
    assert done.returncode != 0
    assert "prots" in done.stdout + done.stderr


def test_nothing_is_reachable_from_outside() -> None:
    """Every port is bound to loopback."""
    ports = [port for service in SERVICES.values() for port in service["ports"]]
    assert {"127.0.0.1:4318:4318", "127.0.0.1:3000:3000"} <= set(ports)
    assert all(ipaddress.ip_address(port.split(":")[0]).is_loopback for port in ports)


def test_every_image_is_pinned() -> None:
    """To a release, of those that the issue names."""
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert images.keys() == {"jaeger", "collector", "prometheus", "loki", "grafana"}
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in images.values())


def test_the_loki_that_is_tested_is_the_one_that_is_run() -> None:
    """The module that the tests build has the version of the image."""
    mod = (outside.HERE / "loki/go.mod").read_text(encoding="utf-8")
    found = re.search(r"github.com/grafana/loki/v3 v(\S+)", mod)
    assert found is not None
    assert SERVICES["loki"]["image"] == f"grafana/loki:{found[1]}"


def test_the_dashboards_types_are_those_of_the_grafana_that_is_run() -> None:
    """The schema is made of the package of the same version as the image."""
    package = json.loads((outside.NODE / "package.json").read_text(encoding="utf-8"))
    version = package["dependencies"]["@grafana/schema"]
    assert SERVICES["grafana"]["image"] == f"grafana/grafana:{version}"


def test_what_is_mounted_is_there() -> None:
    """Each file and folder of ours, where the program looks for it; each volume is declared."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (outside.GRAFANA / source).exists()
                assert volume.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]


def test_services_find_each_other() -> None:
    """The host names in the configurations are services of the compose file, and their ports those
    that the programs listen on."""
    files = ("collector/collector.yml", "prometheus/prometheus.yml")
    files = (*files, "provisioning/datasources/datasources.yml")
    text = "".join((outside.GRAFANA / name).read_text(encoding="utf-8") for name in files)
    asked = set(re.findall(r"\b(collector|jaeger|loki|prometheus):(\d+)", text))
    assert asked == {
        ("collector", "8889"),
        ("jaeger", "4317"),
        ("jaeger", "16686"),
        ("loki", "3100"),
        ("prometheus", "9090"),
    }

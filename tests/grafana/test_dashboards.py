"""The dashboards: as their Python says, as Grafana's own types want them, whole in themselves.

needs: grafana_foundation_sdk, jsonschema, yaml
"""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from grafana import generate, queries
from tests import outside

FILES = sorted(generate.FOLDER.glob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
SOURCES = yaml.safe_load(
    (outside.GRAFANA / "provisioning/datasources/datasources.yml").read_text(encoding="utf-8")
)["datasources"]

each = pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))


def test_generating_them_again_changes_nothing() -> None:
    """What is checked in is what the Python makes."""
    assert generate.generate() == {path.name: path.read_text(encoding="utf-8") for path in FILES}, (
        "run: python -m grafana.generate"
    )


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A JSON schema of the types that Grafana publishes for its own release."""
    packages = outside.packages()
    shutil.copy(outside.NODE / "schema.ts", packages)
    made = tmp_path_factory.mktemp("schema") / "schema.json"
    generator = packages / "node_modules/ts-json-schema-generator/bin/ts-json-schema-generator.js"
    subprocess.run(
        [
            *(outside.program("node"), generator, "--path", "schema.ts", "--no-type-check"),
            *("--type", "*", "--out", made),
        ],
        cwd=packages,
        check=True,
        timeout=100,
    )
    return json.loads(made.read_text(encoding="utf-8"))["definitions"]


def complaints(definitions: dict[str, Any], name: str, value: object) -> list[str]:
    schema = {"$ref": f"#/definitions/{name}", "definitions": definitions}
    found = jsonschema.Draft7Validator(schema).iter_errors(value)
    return [f"{name} {error.json_path}: {error.message}" for error in found]


@each
def test_they_are_what_grafanas_types_say(
    board: dict[str, Any], definitions: dict[str, Any]
) -> None:
    """No field that Grafana does not know, none missing, none of another type; for the options of
    each panel, too."""
    wrong = complaints(definitions, "WholeDashboard", board)
    for panel in board["panels"]:
        wrong += complaints(definitions, "OnePanel", panel)
        options = f"{panel['type'].capitalize()}Options"
        if options in definitions:
            wrong += complaints(definitions, options, panel["options"])
        if panel["type"] == "timeseries":
            custom = panel["fieldConfig"]["defaults"]["custom"]
            wrong += complaints(definitions, "TimeseriesField", custom)
    assert not wrong


def test_the_schema_finds_what_is_wrong(definitions: dict[str, Any]) -> None:
    """A misspelt field, and a value that is none of the known ones."""
    board = json.loads(json.dumps(BOARDS["requests"]))
    board["refesh"] = board.pop("refresh")
    assert complaints(definitions, "WholeDashboard", board)
    assert complaints(definitions, "TimeseriesField", {"drawStyle": "dots"})


def test_ids_and_titles_are_unique() -> None:
    """Each dashboard has a uid, each panel an id and a title of its own, and says what it shows."""
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        panels = board["panels"]
        assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
        assert len({panel["title"] for panel in panels}) == len(panels)
        assert all(panel["description"] for panel in panels)


@each
def test_panels_lie_beside_each_other(board: dict[str, Any]) -> None:
    """None covers another, none is wider than the page."""
    places = [panel["gridPos"] for panel in board["panels"]]
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (a, b)
    assert all(place["x"] + place["w"] <= 24 for place in places)


@each
def test_every_data_source_is_provisioned(board: dict[str, Any]) -> None:
    """Of panels, their queries and variables: by uid and type."""
    known = {(source["uid"], source["type"]) for source in SOURCES}
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    asking = [*board["panels"], *targets, *board["templating"]["list"]]
    used = {
        (it["datasource"]["uid"], it["datasource"]["type"]) for it in asking if "datasource" in it
    }
    assert used <= known
    assert all("datasource" in it for it in (*board["panels"], *targets))


# Grafana's own.
BUILT_IN = {"__rate_interval", "__range", "__value", "__url_time_range"}


@each
def test_every_variable_is_defined_and_used(board: dict[str, Any]) -> None:
    """No query with a hole in it, no box that does nothing."""
    defined = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([board["panels"], board["templating"]])))
    used.discard("__all")
    assert used - BUILT_IN == defined


def test_links_lead_to_dashboards() -> None:
    """Where a link names a dashboard, there is one of that uid with those variables."""
    uids = {board["uid"]: board for board in BOARDS.values()}
    text = json.dumps([list(BOARDS.values()), SOURCES])
    links = re.findall(r"/d/([\w-]+)([^\"]*)", text)
    assert links
    for uid, rest in links:
        defined = {variable["name"] for variable in uids[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", rest)) <= defined


def test_every_query_is_listed_with_its_variables_replaced() -> None:
    """``promql()`` and ``logql()`` leave out none, and no dollar sign in any."""
    listed = [*queries.promql(), *queries.logql()]
    targets = [target for *_, target in queries.targets() if "expr" in target]
    assert len(listed) == len(targets)
    assert not [query for query in listed if "$" in query.expr]
    given = queries.promql(service="shop", __rate_interval="7s")
    assert all('job=~"shop"' in query.expr for query in given)
    assert any("[7s]" in query.expr for query in given)


def test_what_is_needed_is_in_the_folder() -> None:
    """The folder of dashboards holds nothing else: Grafana reads all of it."""
    names = {"requests.json", "context.json", "request.json"}
    assert {path.name for path in Path(generate.FOLDER).iterdir()} == names

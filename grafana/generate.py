"""Write the dashboards: ``python -m grafana.generate`` makes ``dashboards/*.json`` anew."""

import json
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.boards import context, request, requests

FOLDER: Final = Path(__file__).with_name("dashboards")

# What the SDK writes everywhere, and Grafana's own types have elsewhere or not at all.
_OF_INTERVALS: Final = ("auto", "auto_count", "auto_min")


def generate() -> dict[str, str]:
    """The files of ``dashboards/`` and what is to be in them."""
    boards = {"requests": requests, "context": context, "request": request}
    return {f"{name}.json": _written(board.make()) for name, board in boards.items()}


def _written(board: Dashboard) -> str:
    made: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    for variable in made["templating"]["list"]:
        for key in _OF_INTERVALS:
            variable.pop(key, None)
    for panel in made["panels"]:
        panel.get("options", {}).pop("footer", None)
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name, content in generate().items():
        (FOLDER / name).write_text(content, encoding="utf-8")

"""The demo of the example shop proves what it says: it passes, and it is able to fail.

needs: asok
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHOP = Path(__file__).parents[2] / "examples" / "shop"


def demo(shop: Path, temporary: Path) -> tuple[int, str]:
    """Run the demo in ``shop``, with ``temporary`` for its files; return its status and output."""
    temporary.mkdir()
    ran = subprocess.run(
        [sys.executable, str(shop / "demo.py")],
        env={"TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    return ran.returncode, ran.stdout


def sources() -> set[Path]:
    return {path for path in SHOP.rglob("*") if "__pycache__" not in path.parts}


class TestDemo:
    def test_passes_and_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """The demo ends with success, lines, trees and a summary; its files and the server are
        gone."""
        temporary = tmp_path / "temporary"
        before = sources()

        status, output = demo(SHOP, temporary)

        assert status == 0, output
        summary = (
            r"(\d+) requests, (\d+) WebSocket messages, (\d+) lines: "
            r"every line carries its own request, every request has its tree\."
        )
        found = re.search(summary, output)
        assert found is not None, output
        requests, messages, lines = map(int, found.groups())
        assert requests > 50
        assert messages > 10
        assert lines > 2 * (requests + messages)
        assert "token=alice-" in output
        assert "token=bob-" in output
        assert "POST /checkout" in output
        assert "│  └─ charge card" in output
        assert "websocket message /likes/[product]" in output
        assert "\033" not in output, "coloured, though not on a terminal"
        assert list(temporary.iterdir()) == []
        assert sources() == before

    @pytest.mark.parametrize(
        ("line", "instead", "complaint"),
        [
            ("setup(app)", "setup()", "no X-Request-ID in the response"),
            (
                "setup(app)",
                "setup(app, access_log=False)",
                "'request' by user None logged 0 times, not 1",
            ),
            (
                "asok_trace.setup(app)",
                "__import__('structlog').configure(processors=[asok_trace.inject])\n"
                "asok_trace.instrument(app)",
                "there are no trees",
            ),
            ("asok_trace.instrument(ws)", "", "the shop could not be visited: TimeoutError"),
            ("app = Asok()", "app = None", "the shop could not be visited"),
        ],
    )
    def test_fails_with_a_shop_that_is_not_in_order(
        self, tmp_path: Path, line: str, instead: str, complaint: str
    ) -> None:
        """Without its lines in wsgi.py, or without an application, the demo says so and fails."""
        shop = shutil.copytree(SHOP, tmp_path / "shop")
        code = (shop / "wsgi.py").read_text("utf-8")
        assert line in code
        (shop / "wsgi.py").write_text(code.replace(line, instead), "utf-8")
        temporary = tmp_path / "temporary"

        status, output = demo(shop, temporary)

        assert status == 1, output
        assert "FAILED" in output
        assert complaint in output
        assert "every line carries" not in output
        assert list(temporary.iterdir()) == []

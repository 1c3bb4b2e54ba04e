"""The demo of the example shop proves what it says: it passes, and it is able to fail.

needs: asok
"""

import re
from pathlib import Path

import pytest

from tests.examples.demos import EXAMPLES, demo, sources, spoiled


class TestDemo:
    def test_passes_and_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """The demo ends with success, lines, trees and a summary; its files and the server are
        gone."""
        temporary = tmp_path / "temporary"
        before = sources()

        status, output = demo(EXAMPLES / "shop", temporary)

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
        # Its job may begin after the response, in a tree of its own: nothing else follows then.
        assert re.search("\n  (│  |   )└─ charge card", output)
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
        shop = spoiled("shop", "wsgi.py", line, instead, tmp_path)
        temporary = tmp_path / "temporary"

        status, output = demo(shop, temporary)

        assert status == 1, output
        assert "FAILED" in output
        assert complaint in output
        assert "every line carries" not in output
        assert list(temporary.iterdir()) == []

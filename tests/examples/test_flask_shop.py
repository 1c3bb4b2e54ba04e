"""The demo of the Flask shop proves what it says: it passes, and it is able to fail.

needs: flask, flask_login, gunicorn, httpx
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

        status, output = demo(EXAMPLES / "flask_shop", temporary)

        assert status == 0, output
        found = re.search(r"Flask: (\d+) requests, (\d+) lines: every line carries its", output)
        assert found is not None, output
        requests, lines = map(int, found.groups())
        assert requests > 50
        assert lines > 2 * requests
        assert "token=alice-" in output
        assert "token=bob-" in output
        assert "POST /checkout" in output
        assert re.search("\n  (│  |   )└─ charge card", output)
        assert "\033" not in output, "coloured, though not on a terminal"
        assert list(temporary.iterdir()) == []
        assert sources() == before

    @pytest.mark.parametrize(
        ("part", "instead", "complaint"),
        [
            ("    asok_trace.setup(app)\n", "", "no X-Request-ID in the response"),
            ("setup(app)", "setup()", "no X-Request-ID in the response"),
            (
                "setup(app)",
                "setup(app, access_log=False)",
                "GET /: 'request' by user None logged 0 times, not 1",
            ),
            (
                "setup(app)",
                'setup(app, threads="off")',
                "POST /checkout: request_id is '(absent)'",
            ),
            (
                "bank.submit(charge,",
                "bank.submit(asok_trace.detach(charge),",
                "on 'card charged'",
            ),
            (
                # Bound once, to the first request that comes by.
                "bank.submit(charge,",
                'bank.submit(globals().setdefault("bound", asok_trace.wrap(charge)),',
                "on 'card charged'",
            ),
            (
                "asok_trace.wrap(send_receipt, outlive=True)",
                "send_receipt",
                "POST /checkout: task is '(absent)', not 'send_receipt', on 'mail sent'",
            ),
            (
                "asok_trace.setup(app)",
                "__import__('structlog').configure(processors=[asok_trace.inject])\n"
                "    asok_trace.instrument(app, threads='carry')",
                "there are no trees",
            ),
            ("    login_user(user)\n", "", "'logged in' by user '1' logged 0 times, not 1"),
            ("app = Flask(__name__)", "app = None", "the shop could not be visited"),
        ],
    )
    def test_fails_with_a_shop_that_is_not_in_order(
        self, tmp_path: Path, part: str, instead: str, complaint: str
    ) -> None:
        """Without its line, with a thread that has lost its request, or without an application, the
        demo says so and fails."""
        shop = spoiled("flask_shop", "app.py", part, instead, tmp_path)
        temporary = tmp_path / "temporary"

        status, output = demo(shop, temporary)

        assert status == 1, output
        assert "FAILED" in output
        assert complaint in output
        assert "every line carries" not in output
        assert list(temporary.iterdir()) == []

"""The demo of the Quart chat proves what it says: it passes, and it is able to fail.

needs: quart, hypercorn, httpx, websockets
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

        status, output = demo(EXAMPLES / "quart_chat", temporary)

        assert status == 0, output
        summary = (
            r"Quart: (\d+) requests, (\d+) WebSocket messages, (\d+) lines: every line carries its "
            r"own request or message, each has its tree\. \((\d+) messages overlapped another"
        )
        found = re.search(summary, output)
        assert found is not None, output
        requests, messages, lines, overlapped = map(int, found.groups())
        assert requests > 30
        assert messages > 10
        assert lines > 3 * (requests + messages)
        assert overlapped > 1
        assert "token=alice-" in output
        assert "token=carol-" in output
        assert "websocket message /rooms/<room>/talk" in output
        assert "\033" not in output, "coloured, though not on a terminal"
        assert list(temporary.iterdir()) == []
        assert sources() == before

    @pytest.mark.parametrize(
        ("part", "instead", "complaint"),
        [
            ("asok_trace.setup(app)\n", "", "no X-Request-ID in the response"),
            ("setup(app)", "setup()", "no X-Request-ID in the response"),
            (
                "asyncio.to_thread(keep,",
                "asyncio.to_thread(asok_trace.detach(keep),",
                "on 'kept'",
            ),
            (
                "app.add_background_task(index, text)",
                "asyncio.ensure_future(index(text))",
                "task is '(absent)', not 'index', on 'indexed'",
            ),
            (
                # What is delivered is no longer told from what is said.
                "inbox.put_nowait(said)",
                "inbox.put_nowait(said._replace(message_id='0'))",
                "0: the id of",
            ),
            (
                "    for inbox in members[room]:\n",
                "    for inbox in list(members[room]) * 2:\n",
                "alice heard [",
            ),
            ("    session.clear()\n", "", "'logged out' by user None logged 0 times, not 1"),
            ("app = Quart(__name__)", "app = None", "the chat could not be joined"),
        ],
    )
    def test_fails_with_a_chat_that_is_not_in_order(
        self, tmp_path: Path, part: str, instead: str, complaint: str
    ) -> None:
        """Without its line, with work that has lost its message, or without an application, the
        demo says so and fails."""
        chat = spoiled("quart_chat", "app.py", part, instead, tmp_path)
        temporary = tmp_path / "temporary"

        status, output = demo(chat, temporary)

        assert status == 1, output
        assert "FAILED" in output
        assert complaint in output
        assert "every line carries" not in output
        assert list(temporary.iterdir()) == []

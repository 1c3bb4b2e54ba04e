"""The page of deliberate bugs: each is found, and the demo sees what is missed or wrong.

needs: asok
"""

import re
from pathlib import Path

import pytest

from tests.examples.demos import EXAMPLES, demo, sources, spoiled

PAGE = "src/pages/bugs/[bug]/page.py"


def test_every_bug_is_found_and_nothing_else(tmp_path: Path) -> None:
    """Each with its line, its cause and what to write instead; nothing stays behind."""
    temporary = tmp_path / "temporary"
    before = sources()

    status, output = demo(EXAMPLES / "bugs", temporary)

    assert status == 0, output
    assert "5 bugs found, each once, at its line; and nothing else." in output
    kinds = re.findall(r"^(\w+): ", output, re.MULTILINE)
    assert sorted(kinds) == ["bleed", "late", "lost", "lost", "retained"]
    assert output.count("  fix  ") == output.count("  ignore  ") == 5
    assert "asok_trace.wrap(charge)" in output
    assert f"the global {PAGE.removesuffix('.py').replace('/', '.')}.recent" in output
    assert list(temporary.iterdir()) == []
    assert sources() == before


@pytest.mark.parametrize(
    ("file", "part", "instead", "complaint"),
    [
        ("wsgi.py", 'level="strict"', 'level="off"', "FAILED: missed [Found(slug='bleed'"),
        ("wsgi.py", 'level="strict"', 'level="basic"', "missed [Found(slug='bleed', line=1)"),
        ("wsgi.py", 'threads="watch"', 'threads="carry"', "FAILED: missed [Found(slug='lost'"),
        ("wsgi.py", "app = Asok()", "app = None", "FAILED: the bugs could not be visited"),
        (PAGE, "recent.append(request)", "recent.append(1)", "FAILED: missed [Found(slug='ret"),
        (
            PAGE,
            '    return "seen"',
            '    threading.Thread(target=log.info, args=("x",)).start()\n    return "seen"',
            "found besides [Found(slug='lost'",
        ),
    ],
)
def test_a_deaf_detector_fails(
    tmp_path: Path, file: str, part: str, instead: str, complaint: str
) -> None:
    """So does a bug that is gone, and one that no comment tells of."""
    temporary = tmp_path / "temporary"

    status, output = demo(spoiled("bugs", file, part, instead, tmp_path), temporary)

    assert status == 1, output
    assert complaint in output
    assert "and nothing else" not in output

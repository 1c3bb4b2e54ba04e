"""Small real bugs: each is found as what it is, where it is, and nothing else is; and repaired as
it is told to, it is silent.

needs: asok, flask, quart, gevent, waitress, websockets
"""

from pathlib import Path

import pytest

from tests.findings.corpus import Bug, twin
from tests.findings.stage import Played, corpus, play, play_alone

CORPUS = corpus()


def played(bug: Bug, root: Path, *, fixed: bool) -> Played:
    if bug.alone or bug.environment:
        return play_alone(bug, fixed=fixed)
    return play(twin(bug) if fixed else bug, root)


def told(found: Played) -> str:
    """What was found, for the message of a failure."""
    return "\n\n".join(map(str, found.findings)) or "nothing was found"


@pytest.mark.parametrize("bug", CORPUS, ids=[bug.name for bug in CORPUS])
def test_a_bug_is_found_as_what_it_is(
    bug: Bug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly one finding: its slug, its place, where it came from, in which request, and what to
    write instead. It was logged as it is, once."""
    result = played(bug, tmp_path, fixed=False)
    if bug.slug is None:
        assert not result.findings, told(result)
        return
    assert [finding.slug for finding in result.findings] == [bug.slug], told(result)
    [finding] = result.findings
    assert (bug.place or "?") in f"{finding.callsite} ", told(result)
    started = bug.marked("STARTED HERE") or bug.origin
    if started is None:
        assert finding.origin is None, told(result)
    else:
        assert started in f"{finding.origin} ", told(result)
    assert finding.path == bug.of, told(result)
    if bug.of is None:
        assert finding.request_id is None, told(result)
    else:
        ids = result.ids.get(bug.of.rpartition(" ")[2])
        assert finding.request_id, told(result)
        assert ids is None or finding.request_id in ids, told(result)
    assert bug.fix in finding.fix, told(result)
    assert bug.says in finding.message, told(result)
    assert (bug.marked("NAMED HERE") or "") in f"{finding.message} ", told(result)
    logged = [text for text in result.texts if text.startswith(f"{bug.slug}: {finding.message}")]
    assert len(logged) == 1, result.texts
    if bug.note:
        [note] = result.notes
        assert bug.note in note
        assert (started or "").strip() in note


TWINS = [bug for bug in CORPUS if bug.has_twin]


@pytest.mark.parametrize("bug", TWINS, ids=[bug.name for bug in TWINS])
def test_a_repaired_bug_is_silent(bug: Bug, tmp_path: Path) -> None:
    """With the fix that it is told, nothing is found: not even a line outside any request."""
    result = played(bug, tmp_path, fixed=True)
    assert not result.findings, told(result)
    assert not result.notes


def test_the_corpus_is_as_large_as_is_promised() -> None:
    """Of every slug there are bugs, of every framework, and each has a repaired twin."""
    slugs = {bug.slug for bug in CORPUS if bug.slug is not None}
    assert slugs >= {"outside", "lost", "late", "bleed", "foreign", "unclosed", "retained"}
    assert {bug.framework for bug in CORPUS} == {"asok", "flask", "quart"}
    assert len(TWINS) >= 80
    assert [bug for bug in CORPUS if bug.slug is not None] == TWINS

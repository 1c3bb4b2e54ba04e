"""A fault of ours is swallowed, reported once, and switches its piece off."""

import logging

import pytest

from asok_trace.core.errors import PIECES, Piece, contained


def boom(value: int) -> int:
    raise LookupError(value)


def test_a_fault_is_reported_once_and_switches_the_piece_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first fault is logged with its traceback; after it the piece is not even called."""
    piece = Piece("the test piece")
    calls = []
    assert contained(piece, boom, 1) is None
    assert contained(piece, calls.append, 1) is None
    piece.failed(LookupError(2))
    assert calls == []
    [record] = [r for r in caplog.records if r.name == "asok_trace"]
    assert record.levelno == logging.ERROR
    assert "the test piece failed" in record.getMessage()
    assert record.exc_info is not None
    PIECES.remove(piece)


def test_a_piece_that_works_answers() -> None:
    """Nothing is changed as long as nothing fails."""
    piece = Piece("the test piece")
    assert contained(piece, divmod, 7, 2) == (3, 1)
    assert piece.working
    PIECES.remove(piece)


@pytest.mark.parametrize("error", [RecursionError(), MemoryError()])
def test_an_exhausted_stack_or_heap_is_not_the_fault_of_the_piece(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The state of the moment is swallowed in silence; the next line is stamped again."""
    piece = Piece("the test piece")
    piece.failed(error)
    assert piece.working
    assert not caplog.records
    PIECES.remove(piece)


def test_logging_that_fails_is_not_our_host_s_problem() -> None:
    """A handler that raises while we report does not let the fault out after all."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    logging.getLogger("asok_trace").addHandler(Broken())
    piece = Piece("the test piece")
    assert contained(piece, boom, 1) is None
    assert not piece.working
    PIECES.remove(piece)

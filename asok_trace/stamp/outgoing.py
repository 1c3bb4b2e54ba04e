"""What is on its way to a collector: never more of it than a queue holds, and nobody waits for a
collector that is not there."""

import threading
import time
from contextvars import Context
from functools import partial
from typing import Any, Final

from asok_trace.core.errors import attempted, contained
from asok_trace.stamp.exporting import Signal, Watched, watching

_FLUSH_MILLIS: Final = 30_000
_END_MILLIS: Final = 5000


class Outgoing:
    """Mixed into the SDK's batch processors and its metric reader: a flush lasts as long as it may,
    and the end five seconds. Their own last as long as the collector does."""

    _watched: Watched
    _flushing: threading.Thread | None = None

    def force_flush(self, timeout_millis: float | None = None) -> bool:
        """Export what there is, in so many milliseconds at the most (30,000 if it is not said);
        return whether that was done."""
        seconds = (_FLUSH_MILLIS if timeout_millis is None else timeout_millis) / 1000
        deadline = time.monotonic() + seconds
        done: list[bool] = []
        flush = partial(super().force_flush, int(seconds * 1000))  # type: ignore[misc]  # the SDK's

        def flushing() -> None:
            done.append(bool(attempted(watching, flush)))

        # One that has outlasted its caller is waited for: there would be more and more of them.
        earlier = self._flushing
        if earlier is not None:
            earlier.join(seconds)
            if earlier.is_alive():
                return False
        thread = threading.Thread(target=flushing, name="asok_trace-flush", daemon=True)
        try:
            Context().run(thread.start)
        except RuntimeError:  # the interpreter ends
            flushing()
        else:
            self._flushing = thread
            thread.join(max(deadline - time.monotonic(), 0))
        return done == [True]

    def shutdown(self, *_limits: Any, **_options: Any) -> None:
        """Export what is left, in five seconds at the most; nothing more once that has failed."""
        attempted(watching, self._watched.ends)
        self._shut_down(_END_MILLIS)
        attempted(watching, self._watched.ended)

    def _shut_down(self, timeout_millis: int) -> None:
        """As the SDK does it, which each of them has a way of its own for."""
        raise NotImplementedError


class Queue(Outgoing):
    """Mixed into the SDK's batch processors: what does not fit is counted, and not given to them;
    they would let go of the oldest instead, and not say how many."""

    def _watch(self, exporter: Any, signal: Signal) -> Watched:
        room = self._default_max_queue_size()  # type: ignore[attr-defined]  # the SDK's
        self._watched = Watched(exporter, signal, room)
        return self._watched

    def _takes(self) -> bool:
        return contained(watching, self._watched.takes) is not False

    def _shut_down(self, timeout_millis: int) -> None:
        self._batch_processor.shutdown(timeout_millis)  # type: ignore[attr-defined]  # the SDK's

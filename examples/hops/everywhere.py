"""All threads, timers and pools at once, without touching the code that starts them:
`propagate_threads("carry")`. `asok_trace.setup()` does it; `undo()` takes it back.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


def somebody_elses_code(note: str) -> None:
    thread = threading.Thread(target=log.info, args=(f"in a thread{note}",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor() as pool:
        pool.submit(log.info, f"in a pool{note}").result()


with asok_trace.scope("checkout"):
    log.info("in the request")
    somebody_elses_code(": no id")
    with asok_trace.propagate_threads("carry"):
        somebody_elses_code(", carried")
    somebody_elses_code(" when it is undone: no id")

"""Work that goes on after the response: `wrap(outlive=True)` gives it a lifetime of its own. It
has the id of the request and `task=` on its lines, is open when the request is over, and keeps
nothing of the request alive.
"""

import threading

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()
response_sent = threading.Event()


def send_receipt(how: str) -> None:
    response_sent.wait()
    log.info(f"mailing, {how}", request_open=asok_trace.current() is not None)


with asok_trace.scope("checkout"):
    log.info("in the request", request_open=asok_trace.current() is not None)
    # Only wrapped: it has the id, but works for a request that is over.
    wrapped = threading.Thread(target=asok_trace.wrap(send_receipt), args=["late"])
    outliving = asok_trace.wrap(send_receipt, outlive=True)
    outlived = threading.Thread(target=outliving, args=["in a scope of its own"])
    wrapped.start()
    outlived.start()

response_sent.set()
wrapped.join()
outlived.join()

"""Another process: a context cannot go there, text can. `to_carrier` turns the request into a flat
mapping of text, `from_carrier` opens a unit of work from it on the other side. The same two
functions serve any message queue: put the mapping into the message's headers.
"""

import multiprocessing

import structlog

import asok_trace

structlog.configure(processors=[asok_trace.inject])
log = structlog.get_logger()


def charge(carrier: dict[str, str]) -> None:
    log.info("in the other process, before: no id")
    with asok_trace.from_carrier(carrier, "charge", shard=3):
        log.info("in the other process")
    log.info("in the other process, after: no id")


if __name__ == "__main__":
    with asok_trace.scope("checkout"):
        asok_trace.bind(user=7)
        log.info("in the request", carrier=asok_trace.to_carrier())
        process = multiprocessing.get_context("spawn").Process(
            target=charge, args=(asok_trace.to_carrier(),)
        )
        process.start()
        process.join()

"""One bug per function. The comment says where it is told to be."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import structlog
from asok import Request, current_request

log = structlog.get_logger()

pool = ThreadPoolExecutor(max_workers=1)
recent: list[Request] = []  # FOUND: retained


def render(request: Request) -> str:
    bug = str(request.params["bug"])
    return BUGS[bug](request)


def thread(request: Request) -> str:
    """Its line has no id: a thread starts with an empty context."""
    work = threading.Thread(target=charge)  # STARTED HERE
    work.start()
    work.join()
    return "charged"


def charge() -> None:
    log.info("card charged")  # FOUND: lost


def job(request: Request) -> str:
    """The job asks for the request, in a pool's thread: there is none."""
    try:
        return pool.submit(greet).result()  # STARTED HERE
    except RuntimeError:
        return "hello, whoever you are"


def greet() -> str:
    return f"hello, {current_request.ip}"  # FOUND: lost


def late(request: Request) -> str:
    """The thread has the context, and goes on when the response has been sent."""
    threading.Thread(target=copy_context().run, args=(send_receipt,)).start()
    return "a receipt will be sent"


def send_receipt() -> None:
    time.sleep(0.3)
    log.info("receipt sent")  # FOUND: late


def bound(request: Request) -> str:
    """Bound for this request, and for the next one on this thread where nothing isolates it."""
    structlog.contextvars.bind_contextvars(cart="c-1")  # FOUND: bleed, by its page
    return "in the cart"


def kept(request: Request) -> str:
    """A cache of requests, of which the memory never forgets one."""
    recent.append(request)
    return "seen"


BUGS = {"thread": thread, "job": job, "late": late, "bound": bound, "kept": kept}

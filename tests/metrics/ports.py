"""Ports in a row that nobody listens on, and what a process tells on one."""

import random
import socket
from urllib.request import Request, urlopen

# What Prometheus 3 asks for, which takes names in any alphabet, dots included.
OPENMETRICS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


def free(count: int) -> int:
    """The first of ``count`` ports that are free. Below those that the system gives to others."""
    while True:
        first = random.randrange(20000, 32000)
        if all(is_free(port) for port in range(first, first + count)):
            return first


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def fetched(port: int) -> str:
    """What Prometheus would get of a process, in the format that can hold exemplars."""
    request = Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": OPENMETRICS})
    with urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())

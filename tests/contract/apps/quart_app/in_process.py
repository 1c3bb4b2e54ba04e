"""Quart's test client, driven over standard input: a JSON request in, a JSON response out.

A process of its own, because an application configures logging for the whole process, and the
suite's must stay what it is.
"""

import asyncio
import base64
import json
import sys

from asgi import app
from quart.testing.client import QuartClient
from quart.testing.connections import TestHTTPConnection
from werkzeug.datastructures import Headers


class Connection(TestHTTPConnection):
    """Quart's; what the application lets out is answered as servers do."""

    async def __aexit__(self, *error):
        try:
            await super().__aexit__(*error)
        except (LookupError, ExceptionGroup):  # the newest Quart's are of a task group
            if self.status_code is None:
                self.status_code, self.headers = 500, Headers()
            else:
                broken.append(self)


class Client(QuartClient):
    http_connection_class = Connection


broken = []


async def ask(client, asked):
    """Send one request."""
    broken.clear()
    headers = Headers(asked["headers"])
    if asked["content_type"]:
        headers["Content-Type"] = asked["content_type"]
    response = await client.open(
        asked["path"],
        method=asked["method"],
        headers=headers,
        data=base64.b64decode(asked["body"]),
    )
    return {
        "status": response.status_code,
        "headers": list(response.headers),
        "body": base64.b64encode(await response.get_data()).decode(),
        "whole": not broken,
    }


async def main():
    """Answer requests until standard input ends. Each client name is a browser."""
    clients = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        client = clients.setdefault(asked["client"], Client(app))
        print(json.dumps(await ask(client, asked)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

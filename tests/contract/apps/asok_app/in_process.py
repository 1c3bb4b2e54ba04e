"""Asok's TestClient, driven over standard input: a JSON request in, a JSON response out.

A process of its own, because an application configures logging for the whole process, and the
suite's must stay what it is.
"""

import base64
import json
import sys

from asok.testing import TestClient
from wsgi import app


class Client(TestClient):
    """Asok's, which can send a body of bytes too."""

    def _parse_body(self, data, json_body, content_type):
        return data, content_type


def main():
    """Answer requests until standard input ends. Each client name is a browser."""
    sent = []
    clients = {}

    def recording(environ, start_response):
        # TestResponse keeps its headers in a dict, which hides a doubled one.
        def keep(status, headers):
            sent[:] = headers
            return start_response(status, headers)

        return app(environ, keep)

    for line in sys.stdin:
        asked = json.loads(line)
        try:
            response = clients.setdefault(asked["client"], Client(recording))._request(
                asked["method"],
                asked["path"],
                data=base64.b64decode(asked["body"]),
                headers=asked["headers"],
                content_type=asked["content_type"],
            )
        except UnicodeDecodeError:  # let out; answered as servers do
            print(json.dumps({"status": 500, "headers": [], "body": ""}), flush=True)
            continue
        answer = {
            "status": response.status_code,
            "headers": sent,
            "body": base64.b64encode(response.body).decode(),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

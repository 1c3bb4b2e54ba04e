"""Flask's test client, driven over standard input: a JSON request in, a JSON response out.

A process of its own, because an application configures logging for the whole process, and the
suite's must stay what it is.
"""

import base64
import json
import sys

from wsgi import app


def ask(client, asked):
    """Send one request. An exception that the application lets out is answered as servers do."""
    try:
        response = client.open(
            asked["path"],
            method=asked["method"],
            headers=asked["headers"],
            data=base64.b64decode(asked["body"]),
            content_type=asked["content_type"] or None,
        )
    except LookupError:
        return {"status": 500, "headers": [], "body": ""}
    body, whole = b"", True
    try:
        for piece in response.iter_encoded():
            body += piece
    except LookupError:
        whole = False
    response.close()
    return {
        "status": response.status_code,
        "headers": list(response.headers),
        "body": base64.b64encode(body).decode(),
        "whole": whole,
    }


def main():
    """Answer requests until standard input ends. Each client name is a browser."""
    clients = {}
    for line in sys.stdin:
        asked = json.loads(line)
        client = clients.setdefault(asked["client"], app.test_client())
        print(json.dumps(ask(client, asked)), flush=True)


if __name__ == "__main__":
    main()

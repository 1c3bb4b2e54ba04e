"""Requests that are kept alive where gevent has replaced the threads.

needs: flask, gevent
"""

import json

from tests import programs

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import json
import flask
import asok_trace

app = flask.Flask("shop")
asok_trace.instrument(app, level="strict", grace=0)
KEPT = []

@app.get("/")
def index():
    return "index"

@app.get("/keep")
def keep():
    KEPT.append(flask.request._get_current_object())
    return "kept"

app.test_client().get("/").close()
app.test_client().get("/keep").close()
print(json.dumps([[one.slug, one.key] for one in asok_trace.findings()]))
"""


def test_the_holder_is_found() -> None:
    """Each greenlet has an ident of its own there, and is no thread of Python's."""
    assert json.loads(programs.run(PROGRAM)) == [["retained", "retained:__main__.KEPT"]]

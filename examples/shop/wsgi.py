"""A small shop: an ordinary Asok application, and the lines that stamp its log and its spans.

`asok_trace.setup(app)` is the whole thing in one call:

- Every line that a page, a helper, a background job or a streamed body logs through structlog
  carries the request's id, the client's ip, the user and the path, and the ids of the trace and
  of the span it was logged in.
- Every response carries the same id in its ``X-Request-ID`` header, and each request ends in one
  line of its own with its status, route and duration.
- Every request is a trace; a page adds steps to it with OpenTelemetry's own API. The last
  hundred are kept in memory for `asok_trace.report()`. They go to a collector instead where
  ``OTEL_EXPORTER_OTLP_ENDPOINT`` names one.

`asok_trace.instrument(ws)` does the same for the messages of a WebSocketServer, which Asok keeps
apart from its application. No page and no handler knows of it: see ``src/``.

(Stamped lines alone, without spans, are
``structlog.configure(processors=[asok_trace.inject])`` and ``asok_trace.instrument(app)``.)

``make demo`` serves the shop to two users at once and checks every line and every trace. To try
it by hand, copy this directory somewhere (Asok keeps its database where it is started), then::

    export SECRET_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')
    asok seed
    gunicorn wsgi:app

and log in at http://localhost:8000/login as ``alice``; ``src/seeds.py`` has the password. Once
gunicorn is stopped, ``report.txt`` has the requests; see ``gunicorn.conf.py``.
"""

from asok import Asok, WebSocketServer
from src import likes

import asok_trace

app = Asok()
app.config["HTML_MINIFY"] = False  # Asok would minify the streamed CSV as well

ws = WebSocketServer(app=app)  # on the port that ASOK_WS_PORT says
likes.register(ws)

asok_trace.setup(app)
asok_trace.instrument(ws)

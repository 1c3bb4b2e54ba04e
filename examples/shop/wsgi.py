"""A small shop: an ordinary Asok application, with the two lines that stamp its log.

Every line that a page, a helper, a background job or a streamed body logs through structlog
then carries the request's id, the client's ip, the user and the path; every response carries
the same id in its ``X-Request-ID`` header; and each request ends in one line of its own with
its status, route and duration. No page knows of it: see ``src/``.

``make demo`` serves it to two users at once and checks every line. To try it by hand, copy
this directory somewhere (Asok keeps its database where it is started), then::

    export SECRET_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')
    asok seed
    gunicorn --threads 8 wsgi:app

and log in at http://localhost:8000/login as ``alice``; ``src/seeds.py`` has the password.
"""

import structlog
from asok import Asok

import asok_trace

app = Asok()
app.config["HTML_MINIFY"] = False  # Asok would minify the streamed CSV as well

structlog.configure(processors=[asok_trace.inject])
asok_trace.instrument(app)

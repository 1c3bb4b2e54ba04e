"""An Asok application that queues jobs, set up with one line."""

import os

from asok import Asok

import asok_trace

app = Asok(os.path.dirname(os.path.abspath(__file__)))
app.config["RATE_LIMIT"] = False
app.config["CSRF"] = False
asok_trace.setup(app, user=lambda request: request.environ.get("HTTP_X_USER"))

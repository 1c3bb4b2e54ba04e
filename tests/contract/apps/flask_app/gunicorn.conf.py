"""Gunicorn reads this where it is started: it tells which bodies it sends with sendfile(2)."""

from gunicorn.http.wsgi import Response

_original = Response.sendfile


def _telling(self, body):
    done = _original(self, body)
    print("sendfile:", type(body).__name__, done, flush=True)
    return done


Response.sendfile = _telling

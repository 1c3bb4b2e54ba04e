"""Bodies that somebody has dropped half-way."""

import structlog

from tests.findings.corpus import bug
from tests.findings.stage import Stage
from tests.gateway.sites import Started, environ, wsgi

log = structlog.get_logger()


@bug("unclosed", fix="close()", of="GET /export")
def body_dropped_by_the_server(stage: Stage) -> None:
    @stage.view  # FOUND HERE
    def export():
        return (str(row) for row in range(3))

    body = stage.app(environ("/export"), Started())
    next(iter(body))
    # FIXED: body.close()
    del body
    stage.get("/none")


@bug("unclosed", "asok", fix="close()", of="GET /export", found="src/pages/[name]/page.py:1 ")
def stream_of_asok_dropped(stage: Stage) -> None:
    @stage.view
    def export(request):
        return (str(row) for row in range(3))

    body = stage.app(environ("/export"), Started())
    next(iter(body))
    # FIXED: body.close()
    del body
    stage.get("/plain")


@bug("unclosed", fix="close()", of="GET /export")
def middleware_that_swallows_close(stage: Stage) -> None:
    @stage.view  # FOUND HERE
    def export():
        return (str(row) for row in range(3))

    class Shorten:
        def __init__(self, application):
            self.application = application

        def __call__(self, environ, start_response):
            body = self.application(environ, start_response)
            for piece in body:
                return [piece]
                # FIXED: body.close()
                # FIXED: return [piece]
            return []

    stage.app.wsgi_app = Shorten(stage.app.wsgi_app)
    wsgi(stage.app, "/export")
    stage.app.wsgi_app = stage.app.wsgi_app.application
    stage.get("/none")

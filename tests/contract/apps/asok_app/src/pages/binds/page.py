import structlog
from contract_logs import say


def render(request):
    structlog.contextvars.bind_contextvars(left="behind")
    say("binds")
    return "<p>bound</p>"

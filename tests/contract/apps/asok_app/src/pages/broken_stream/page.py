from contract_logs import say


def render(request):
    say("broken stream")
    return body()


def body():
    yield "<p>so far</p>"
    raise LookupError("in the middle of the body")

from contract_logs import say


def render(request):
    say("created")
    request.status_code(201)
    return "<p>made</p>"

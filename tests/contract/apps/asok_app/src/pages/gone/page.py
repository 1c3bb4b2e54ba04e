from contract_logs import say


def render(request):
    say("gone")
    request.abort(404, "gone")

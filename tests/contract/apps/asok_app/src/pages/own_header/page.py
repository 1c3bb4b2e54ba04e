from contract_logs import say


def render(request):
    say("own header")
    request.header("X-Request-ID", "mine").header("x-request-id", "mine again")
    return "<p>ours wins</p>"

from contract_logs import say


def render(request):
    say("form")
    return "<form method=post></form>"


def post(request):
    say("form posted")
    return "<p>thanks</p>"

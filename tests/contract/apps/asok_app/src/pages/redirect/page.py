from contract_logs import say


def render(request):
    say("redirect")
    request.redirect("/")

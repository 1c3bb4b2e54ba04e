from contract_logs import say


def render(request):
    say("back")
    request.back()

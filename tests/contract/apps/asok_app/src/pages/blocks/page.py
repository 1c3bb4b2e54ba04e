from contract_logs import say


def render(request):
    say("blocks")
    return request.block("page.html", "main")

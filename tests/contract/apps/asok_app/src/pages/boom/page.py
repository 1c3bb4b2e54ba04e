from contract_logs import say


def render(request):
    say("boom")
    raise LookupError("the view raised")

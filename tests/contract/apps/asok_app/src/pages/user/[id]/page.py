from contract_logs import say


def render(request):
    say("user page", id=request.params["id"])
    return "<h1>User</h1>"

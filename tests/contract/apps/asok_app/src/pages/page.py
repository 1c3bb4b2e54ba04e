from contract_logs import say


def render(request):
    say("home", token=request.args.get("token"))
    return "<h1>Home</h1>"

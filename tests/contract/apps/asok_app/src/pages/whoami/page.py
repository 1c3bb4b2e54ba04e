from contract_logs import say


def render(request):
    say("whoami", token=request.args.get("token"))
    return "<p>you</p>"

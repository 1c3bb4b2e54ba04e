from contract_logs import say


def render(request):
    say("before logout")
    request.logout()
    say("after logout")
    return "<p>bye</p>"

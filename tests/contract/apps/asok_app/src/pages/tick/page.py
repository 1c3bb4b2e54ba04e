import contract_logs


def render(request):
    contract_logs.say("asked for a tick")
    contract_logs.tick()
    return "<p>told the clock</p>"

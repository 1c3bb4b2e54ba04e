from contract_logs import say


def get(request):
    say("items")
    return request.api([1, 2])


def post(request):
    say("posted")  # never: CSRF comes first
    return request.api([])

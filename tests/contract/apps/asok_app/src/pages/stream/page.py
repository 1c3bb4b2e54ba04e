from asok.context import current_request
from contract_logs import say


def render(request):
    token = request.args.get("token")
    say("stream", token=token)
    return body(token)


def body(token):
    for part in range(3):
        alive = bool(current_request)
        seen = current_request.path if alive else None
        say("part", part=part, alive=alive, seen=seen, token=token)
        yield f"<p>{part}</p>"

from asok.orm import MODELS_REGISTRY
from contract_logs import say


def render(request):
    say("login form")
    return "<form method=post></form>"


def post(request):
    say("before login")
    request.login(MODELS_REGISTRY["User"].find(id=int(request.args["id"])))
    say("after login")
    return "<p>welcome</p>"

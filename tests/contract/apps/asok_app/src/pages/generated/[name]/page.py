from contract_logs import say

SSG = True
REVALIDATE = 3600


def render(request):
    say("generated")
    return "<h1>Written once</h1>"

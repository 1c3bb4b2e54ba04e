import asyncio

from contract_logs import say


async def render(request):
    say("first", token=request.args.get("token"))
    await asyncio.sleep(0)
    say("second", token=request.args.get("token"))
    return "<p>async</p>"

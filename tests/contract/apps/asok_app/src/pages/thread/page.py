import contextvars
import threading

from contract_logs import say


def render(request):
    token = request.args.get("token")
    say("before thread", token=token)
    carried = contextvars.copy_context()
    worker = threading.Thread(target=lambda: carried.run(say, "in thread", token=token))
    worker.start()
    worker.join()
    return "<p>threaded</p>"

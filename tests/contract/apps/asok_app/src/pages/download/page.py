from contract_logs import say


def render(request):
    say("download")
    inline = request.args.get("inline")
    return request.send_file(request.args.get("name", "report.txt"), as_attachment=inline is None)

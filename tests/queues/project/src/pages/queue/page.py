"""Queue a job, as the query string says, or send a mail."""

import json

import jobs
from asok import Mail, background


def get(request):
    if request.args.get("mail"):
        Mail.send("ada@example.org", "Receipt", "Thank you.", from_addr="shop@example.org")
        return "sent"
    job = getattr(jobs, request.args["job"])
    arguments = json.loads(request.args.get("arguments") or "[]")
    if request.args.get("delay"):
        return job.delay(*arguments).job_id
    queue = request.args.get("queue") or "default"
    retries = int(request.args.get("retries") or 0)
    return background(job, *arguments, _queue=queue, _retries=retries, _backoff=0).job_id

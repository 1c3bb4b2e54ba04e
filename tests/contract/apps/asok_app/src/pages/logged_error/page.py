import structlog


def render(request):
    try:
        raise LookupError("told by the view")
    except LookupError:
        structlog.get_logger().exception("caught", token=request.args.get("token"))
    return "<p>logged</p>"

"""The application itself, before anybody instruments it."""

import asyncio
import contextvars
import os
import threading

import contract_logs
import structlog
from contract_logs import say
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    has_request_context,
    jsonify,
    redirect,
    request,
    send_file,
    send_from_directory,
    stream_with_context,
)
from flask_login import LoginManager, UserMixin, login_user, logout_user

pages = Blueprint("pages", __name__)


class User(UserMixin):
    def __init__(self, key):
        self.id = key


def make_app():
    """Return the application, with its users in place."""
    app = Flask(__name__, static_folder="static/css", static_url_path="/css")
    with open(os.path.join(app.root_path, "static/uploads/large.bin"), "wb") as file:
        file.truncate(5 * 1024 * 1024 + 1)
    app.config.update(SECRET_KEY=os.environ["SECRET_KEY"], MAX_CONTENT_LENGTH=1000)
    LoginManager(app).user_loader(User)
    app.register_blueprint(pages)
    return app


@pages.get("/health")
def health():
    return {"status": "ok"}


@pages.get("/")
def home():
    say("home", token=request.args.get("token"))
    return "<h1>Home</h1>"


@pages.get("/api/items")
def items():
    say("items")
    return jsonify([1, 2])


@pages.get("/created")
def created():
    say("created")
    return "<p>made</p>", 201


@pages.get("/own_header")
def own_header():
    say("own header")
    return "<p>ours wins</p>", [("X-Request-ID", "mine"), ("x-request-id", "mine again")]


@pages.get("/redirect")
def redirects():
    say("redirect")
    return redirect("/")


@pages.get("/back")
def back():
    say("back")
    return redirect(request.referrer)


@pages.get("/folder/")
def folder():
    say("folder")  # never without the slash: the router redirects
    return "<p>folder</p>"


@pages.route("/form", methods=["GET", "POST"])
def form():
    if request.method == "POST":
        request.get_data()
        say("form posted")
        return "<p>thanks</p>"
    say("form")
    return "<form method=post></form>"


@pages.app_errorhandler(413)
def too_large(error):
    return "Request body too large", 413


@pages.get("/gone")
def gone():
    say("gone")
    abort(404, "gone")


@pages.get("/unavailable")
def unavailable():
    say("unavailable")
    abort(503)


@pages.get("/boom")
def boom():
    say("boom")
    raise LookupError("the view raised")


@pages.get("/own_response")
def own_response():
    say("own response")
    abort(Response("<p>as I like it</p>", 409))


@pages.get("/handled")
def handled():
    say("handled")
    raise ZeroDivisionError("the view raised what has a handler")


@pages.app_errorhandler(ZeroDivisionError)
def handler(error):
    say("in handler")
    return "<p>handled</p>", 400


@pages.get("/early")
def never():
    say("never")
    return "<p>too late</p>"


@pages.before_app_request
def early():
    if request.path == "/early":
        say("early")
        return "<p>before the view</p>"
    return None


@pages.get("/after_raises")
def after_raises():
    say("after raises")
    return "<p>nobody gets this</p>"


@pages.get("/teardown_raises")
def teardown_raises():
    say("teardown raises")
    return "<p>nobody gets this either</p>"


@pages.get("/propagates")
def propagates():
    say("propagates")
    current_app.config["PROPAGATE_EXCEPTIONS"] = True  # until this request is torn down
    raise LookupError("the view raised, and no page is made of it")


@pages.after_app_request
def after(response):
    if request.path == "/after_raises":
        raise LookupError("after_request raised")
    return response


@pages.teardown_app_request
def teardown(error):
    current_app.config["PROPAGATE_EXCEPTIONS"] = None
    if request.path == "/teardown_raises":
        raise LookupError("teardown_request raised")


@pages.get("/images/<name>")
def image(name):
    return send_from_directory("static/images", name)


@pages.get("/download")
def download():
    say("download")
    name = request.args.get("name", "report.txt")
    return send_file(f"static/uploads/{name}", as_attachment="inline" not in request.args)


@pages.get("/user/<number>")
def user(number):
    say("user page", id=number)
    return "<h1>User</h1>"


@pages.get("/whoami")
def whoami():
    say("whoami", token=request.args.get("token"))
    return "<p>you</p>"


@pages.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "GET":
        say("login form")
        return "<form method=post></form>"
    say("before login")
    login_user(User(request.args["id"]))
    say("after login")
    return "<p>welcome</p>"


@pages.get("/logout")
def logout():
    say("before logout")
    logout_user()
    say("after logout")
    return "<p>bye</p>"


@pages.get("/first_thing")
async def first_thing():
    say("first", token=request.args.get("token"))
    await asyncio.sleep(0)
    say("second", token=request.args.get("token"))
    return "<p>async</p>"


@pages.get("/thread")
def thread():
    token = request.args.get("token")
    say("before thread", token=token)
    carried = contextvars.copy_context()
    worker = threading.Thread(target=lambda: carried.run(say, "in thread", token=token))
    worker.start()
    worker.join()
    return "<p>threaded</p>"


@pages.get("/tick")
def tick():
    say("asked for a tick")
    contract_logs.tick()
    return "<p>told the clock</p>"


@pages.get("/binds")
def binds():
    structlog.contextvars.bind_contextvars(left="behind")
    g.left = "behind"
    say("binds")
    return "<p>bound</p>"


@pages.get("/logged_error")
def logged_error():
    try:
        raise LookupError("told by the view")
    except LookupError:
        structlog.get_logger().exception("caught", token=request.args.get("token"))
    return "<p>logged</p>"


@pages.get("/stream")
def stream():
    token = request.args.get("token")
    say("stream", token=token)
    return Response(stream_with_context(parts(token)))


@pages.get("/plain_stream")
def plain_stream():
    say("plain stream")
    return Response(parts(None))


def parts(token):
    for part in range(3):
        alive = has_request_context()
        say("part", part=part, alive=alive, seen=request.path if alive else None, token=token)
        yield f"<p>{part}</p>"


@pages.get("/broken_stream")
def broken_stream():
    say("broken stream")
    return Response(broken_body())


def broken_body():
    yield "<p>so far</p>"
    raise LookupError("in the middle of the body")

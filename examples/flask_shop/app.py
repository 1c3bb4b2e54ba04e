"""A small shop: an ordinary Flask application, and the two lines that stamp its log and its spans.

``import asok_trace`` and ``asok_trace.setup(app)`` are all of it. Every line that a view, a thread
or a streamed body logs through structlog carries the request's id, the client's ip, the user and
the path, and the ids of its trace and span; every response has the same id in its ``X-Request-ID``
header. No view knows of it, but for what is to go on after the response: that has to be said
(`asok_trace.wrap`).

``demo.py`` serves it to two users at once and checks every line; the tokens that are logged are
for it. To try it by hand::

    export SECRET_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')
    gunicorn 'app:create_app()'

and log in at http://localhost:8000 as ``alice``; the password is ``alice's password``. Once
gunicorn is stopped, ``report.txt`` has the requests as trees; see ``gunicorn.conf.py``.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from flask import Blueprint, Flask, redirect, render_template, request, session, stream_with_context
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from opentelemetry import trace
from werkzeug.security import check_password_hash, generate_password_hash

import asok_trace

PRICES = {"kettle": 35, "teapot": 28, "cup": 6}

log = structlog.get_logger()
tracer = trace.get_tracer("shop")
shop = Blueprint("shop", __name__)
logins = LoginManager()
bank = ThreadPoolExecutor(4)
mailer = ThreadPoolExecutor(1)


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(SECRET_KEY=os.environ["SECRET_KEY"], SESSION_COOKIE_SAMESITE="Lax")
    app.register_blueprint(shop)
    logins.init_app(app)
    asok_trace.setup(app)
    return app


class User(UserMixin):
    def __init__(self, number: str, name: str) -> None:
        self.id = number
        self.name = name
        self.password = generate_password_hash(f"{name}'s password")


USERS = {user.id: user for user in (User("1", "alice"), User("2", "bob"))}


@logins.user_loader
def load_user(user_id: str) -> User | None:
    return USERS.get(user_id)


@shop.get("/")
def catalogue() -> str:
    log.info("catalogue shown", token=request.args.get("token"), products=len(PRICES))
    return render_template("catalogue.html", prices=PRICES, cart=session.get("cart", []))


@shop.post("/login")
def login() -> Any:
    """The user changes in the middle of this request, and so do its lines."""
    token, name = request.args.get("token"), request.form["name"]
    log.info("login asked for", token=token)
    user = next((user for user in USERS.values() if user.name == name), None)
    if user is None or not check_password_hash(user.password, request.form["password"]):
        log.warning("login refused", token=token)
        return "Wrong name or password.", 401
    login_user(user)
    log.info("logged in", token=token)
    return redirect("/")


@shop.post("/logout")
def logout() -> Any:
    logout_user()
    log.info("logged out", token=request.args.get("token"))
    return redirect("/")


@shop.post("/cart/<product>")
@login_required
def put_in_cart(product: str) -> Any:
    if product not in PRICES:
        return "There is no such thing.", 404
    session["cart"] = [*session.get("cart", []), product]
    log.info("put in cart", token=request.args.get("token"), product=product)
    return redirect("/")


@shop.post("/checkout")
@login_required
def checkout() -> str:
    token = request.args.get("token")
    total = sum(PRICES[product] for product in session.pop("cart", []))
    with tracer.start_as_current_span("place order"):
        # `setup` has pools and threads carry the request along.
        bank.submit(charge, total, token).result()
    # This one goes on after the response, and must not hold on to the request.
    mailer.submit(asok_trace.wrap(send_receipt, outlive=True), current_user.name, token)
    log.info("order placed", token=token)
    return "Thank you. A receipt is on its way."


def charge(euros: int, token: str | None) -> None:
    with tracer.start_as_current_span("charge card"):
        time.sleep(0.01)  # a bank that takes its time, so that requests overlap
        log.info("card charged", token=token, euros=euros)


def send_receipt(name: str, token: str | None) -> None:
    time.sleep(0.05)  # a mail server that takes its time
    log.info("mail sent", to=name, token=token)


@shop.get("/export.csv")
def export() -> Any:
    """The stock as CSV, streamed: the rows are made after the view has returned."""
    return stream_with_context(rows()), {"Content-Type": "text/csv; charset=utf-8"}


def rows() -> Iterator[str]:
    log.info("export started", token=request.args.get("token"))
    yield "product,price\n"
    for product, price in PRICES.items():
        with tracer.start_as_current_span("count stock"):
            time.sleep(0.005)
        yield f"{product},{price}\n"
    log.info("export ended", token=request.args.get("token"))


@shop.get("/broken")
def broken() -> str:
    with tracer.start_as_current_span("open till"):
        log.warning("about to fail", token=request.args.get("token"))
        raise RuntimeError("the till is jammed")


@shop.app_errorhandler(500)
def apologise(error: Exception) -> tuple[str, int]:
    """Say the id by which support finds every line of the failed request."""
    log.error("apologised", token=request.args.get("token"))
    return f"That is our fault. Tell us this, please: {asok_trace.current().request_id}", 500

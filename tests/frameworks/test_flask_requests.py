"""How Flask applications are built and tested, with and without `instrument`: factories,
blueprints, hooks, signals, error handlers, commands and test clients are what they were, and
their lines are stamped.
needs: flask"""

from collections.abc import Callable
from typing import Any

import flask
import pytest

import asok_trace
from tests.frameworks.said import Hook, Line, bare, canonical, named, say, stamped

pytestmark = pytest.mark.usefixtures("sound")


def get(app: Any, path: str, **request: Any) -> Any:
    """Ask for ``path`` and read the response to its end."""
    return app.test_client().get(path, buffered=True, **request)


def logs(event: str) -> Callable[..., str]:
    """A view that logs ``event``."""

    def view(**_values: Any) -> str:
        say(event)
        return event

    return view


def routes(lines: list[Line]) -> list[str | None]:
    """The route of each canonical line."""
    return [line.get("route") for line in lines if line["event"] == "request"]


# --- applications ---------------------------------------------------------------------------


def test_an_application_factory(lines: list[Line]) -> None:
    """Each application that a factory makes is instrumented by itself."""

    def create_app(name: str, *, traced: bool) -> Any:
        app = flask.Flask(name)
        app.add_url_rule("/", "index", logs(name))
        if traced:
            asok_trace.instrument(app)
        return app

    traced, untraced = create_app("traced", traced=True), create_app("untraced", traced=False)
    assert "X-Request-ID" in get(traced, "/").headers
    assert "X-Request-ID" not in get(untraced, "/").headers
    stamped(lines, "/", "traced")
    stamped(lines, "/", "untraced")
    assert len(routes(lines)) == 1


def test_a_subclass(hook: Hook, lines: list[Line]) -> None:
    """A class of one's own is a Flask application."""

    class Shop(flask.Flask):
        pass

    app = hook(Shop("shop"))
    app.add_url_rule("/", "index", logs("inside"))
    get(app, "/")
    stamped(lines, "/", "inside")


def test_nested_blueprints(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """A blueprint in a blueprint has its hooks, and its route has every prefix."""
    app, outer, inner = (
        flask.Flask("app"),
        flask.Blueprint("outer", "o"),
        flask.Blueprint("in", "i"),
    )
    inner.before_request(lambda: say("inner before"))
    outer.before_request(lambda: say("outer before"))
    inner.add_url_rule("/<int:number>", "page", logs("view"))
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    assert get(hook(app), "/outer/inner/5").text == "view"
    stamped(lines, "/outer/inner/5", "outer before", "inner before", "view")
    if instrumented:
        assert routes(lines) == ["/outer/inner/<int:number>"]


def test_a_rule_added_late(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """Rules may be added after `instrument`."""
    app = hook(flask.Flask("app"))
    app.add_url_rule("/late", "late", logs("late"))
    get(app, "/late")
    stamped(lines, "/late", "late")
    assert routes(lines) == (["/late"] if instrumented else [])


def test_a_mounted_application(hook: Hook, lines: list[Line]) -> None:
    """Under a dispatcher the path is what the application itself sees."""
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    from werkzeug.test import Client

    app = hook(flask.Flask("app"))
    app.add_url_rule("/page", "page", logs("inside"))
    reply = Client(DispatcherMiddleware(flask.Flask("root"), {"/shop": app})).get("/shop/page")
    assert reply.text == "inside"
    stamped(lines, "/page", "inside")


# --- requests within requests ---------------------------------------------------------------


def test_a_test_client_inside_a_view(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """The inner request has an id of its own; the outer one goes on as it was."""
    app = hook(flask.Flask("app"))
    app.add_url_rule("/inner", "inner", logs("inner"))

    @app.get("/outer")
    def outer() -> str:
        say("before")
        assert app.test_client().get("/inner", buffered=True).text == "inner"
        assert flask.request.path == "/outer"
        say("after")
        return "outer"

    assert get(app, "/outer").text == "outer"
    stamped(lines, "/outer", "before", "after")
    stamped(lines, "/inner", "inner")
    assert named(lines, "inner")["request_id"] != named(lines, "before")["request_id"]
    assert routes(lines) == (["/inner", "/outer"] if instrumented else [])


def test_an_uninstrumented_application_inside(hook: Hook, lines: list[Line]) -> None:
    """A request to another application that nobody has instrumented does not take ours away."""
    other = flask.Flask("other")
    other.add_url_rule("/inner", "inner", logs("inner"))
    app = hook(flask.Flask("app"))

    @app.get("/outer")
    def outer() -> str:
        say("before")
        get(other, "/inner")
        say("after")
        return "outer"

    get(app, "/outer")
    stamped(lines, "/outer", "before", "after")
    assert named(lines, "inner")["path"] == "/inner"


# --- test clients ---------------------------------------------------------------------------


def test_with_client(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """``with client:`` keeps the request for the test to look at, line by line."""
    app = hook(flask.Flask("app"))
    app.add_url_rule("/one", "one", logs("one"))
    app.add_url_rule("/two", "two", logs("two"))
    with app.test_client() as client:
        for name in ("one", "two"):
            assert client.get(f"/{name}").text == name
            assert flask.request.path == f"/{name}"
            assert flask.has_request_context()
            say(f"kept {name}")
    stamped(lines, "/one", "one", "kept one")
    stamped(lines, "/two", "two", "kept two")
    say("outside")
    bare(lines, "outside")


@pytest.mark.parametrize("buffered", [True, False])
def test_test_clients(hook: Hook, lines: list[Line], instrumented: bool, buffered: bool) -> None:
    """Buffered or not, a response that is read to its end is one canonical line."""
    app = hook(flask.Flask("app"))
    app.add_url_rule("/", "index", logs("inside"))
    reply = app.test_client().get("/", buffered=buffered)
    assert reply.text == "inside"
    reply.close()
    stamped(lines, "/", "inside")
    assert len(routes(lines)) == int(instrumented)


def test_a_client_that_does_not_read(lines: list[Line]) -> None:
    """A response that nobody closes is ended by the next request at the latest, once."""
    app = flask.Flask("app")
    app.add_url_rule("/", "index", logs("inside"))
    with asok_trace.instrument(app):
        client = app.test_client()
        client.get("/")
        get(app, "/")
    assert len(routes(lines)) == 2


def test_a_session_transaction(hook: Hook, lines: list[Line]) -> None:
    """Preparing a session in a test works and is no request."""
    app = hook(flask.Flask("app"))
    app.secret_key = "for the test"
    app.add_url_rule("/", "index", lambda: flask.session["name"])
    client = app.test_client()
    with client.session_transaction() as session:
        session["name"] = "ada"
    assert client.get("/").text == "ada"


# --- commands -------------------------------------------------------------------------------


def test_a_command(hook: Hook, lines: list[Line]) -> None:
    """A command has the application and no request: no stamp, no complaint."""
    app = hook(flask.Flask("app"))

    @app.cli.command("tidy")
    def tidy() -> None:
        assert flask.has_app_context()
        assert not flask.has_request_context()
        say(f"tidying {flask.current_app.name}")
        assert asok_trace.current() is None

    result = app.test_cli_runner().invoke(args=["tidy"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output == ""
    bare(lines, "tidying app")


# --- hooks, signals, errors -----------------------------------------------------------------


def test_hooks_and_teardown(hook: Hook, lines: list[Line]) -> None:
    """Everything that runs for a request is stamped, teardown included."""
    app = flask.Flask("app")
    app.before_request(lambda: say("before"))
    app.after_request(lambda response: say("after") or response)
    app.teardown_request(lambda error: say("teardown request"))
    app.teardown_appcontext(lambda error: say("teardown application"))
    app.add_url_rule("/", "index", logs("view"))
    get(hook(app), "/")
    stamped(lines, "/", "before", "view", "after", "teardown request")
    # The request is put away before it, except where both are one context.
    assert named(lines, "teardown application")


def test_teardown_of_the_application_instrumented(lines: list[Line]) -> None:
    """The application's own teardown is within the request that the gateway holds open."""
    app = flask.Flask("app")
    app.teardown_appcontext(lambda error: say("teardown"))
    app.add_url_rule("/", "index", logs("view"))
    with asok_trace.instrument(app):
        get(app, "/")
    stamped(lines, "/", "view", "teardown")


def test_an_early_answer(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """A function before the request that answers itself is answered, routed and ended."""
    app = hook(flask.Flask("app"))
    app.before_request(lambda: (say("early"), ("no", 403))[1])
    app.add_url_rule("/", "index", logs("view"))
    assert get(app, "/").status_code == 403
    stamped(lines, "/", "early")
    if instrumented:
        assert canonical(lines)["status"] == 403
        assert canonical(lines)["route"] == "/"


def test_signals(hook: Hook, lines: list[Line]) -> None:
    """Receivers of the request's signals get what they got, and are stamped."""
    app = hook(flask.Flask("app"))
    app.add_url_rule("/", "index", logs("view"))
    senders = []

    def started(sender: Any, **_rest: Any) -> None:
        senders.append(sender)
        say("started")

    def finished(sender: Any, response: Any, **_rest: Any) -> None:
        senders.append(sender)
        say(f"finished {response.status_code}")

    with (
        flask.request_started.connected_to(started, app),
        flask.request_finished.connected_to(finished, app),
    ):
        get(app, "/")
    assert senders == [app, app]
    stamped(lines, "/", "started", "view", "finished 200")


def failing(hook: Hook) -> Any:
    app = hook(flask.Flask("app"))

    @app.get("/")
    def fail() -> str:
        raise LookupError("of the view")

    return app


def test_got_request_exception(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """Its receivers, and the 500 page's, see the exception; so does the canonical line."""
    app = failing(hook)

    def receive(sender: Any, exception: BaseException, **_rest: Any) -> None:
        say(f"signal {exception}")

    @app.errorhandler(500)
    def page(error: Any) -> Any:
        say(f"page {error.original_exception}")
        return "sorry", 500

    with flask.got_request_exception.connected_to(receive, app):
        assert get(app, "/").text == "sorry"
    [signal] = [line for line in lines if line["event"].startswith("signal")]
    [shown] = [line for line in lines if line["event"].startswith("page")]
    assert signal["request_id"] == shown["request_id"]
    if instrumented:
        line = canonical(lines)
        assert (line["status"], line["error"], line["level"]) == (500, "LookupError", "error")


def test_an_error_handler(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """An exception that a handler makes an ordinary page of is no failure."""
    app = failing(hook)

    @app.errorhandler(LookupError)
    def page(error: LookupError) -> Any:
        say("handled")
        return "not here", 404

    assert get(app, "/").status_code == 404
    stamped(lines, "/", "handled")
    if instrumented:
        assert "error" not in canonical(lines)
        assert canonical(lines)["level"] == "info"


def test_propagated_exceptions(hook: Hook, lines: list[Line], instrumented: bool) -> None:
    """Where Flask lets exceptions through, they come out as they were, and the line has them."""
    app = failing(hook)
    app.testing = True
    with pytest.raises(LookupError, match="of the view"):
        get(app, "/")
    if instrumented:
        line = canonical(lines)
        assert (line["status"], line["error"], line["level"]) == (500, "LookupError", "error")


@pytest.mark.parametrize("where", ["after_request", "teardown_request"])
def test_a_hook_that_fails(hook: Hook, lines: list[Line], instrumented: bool, where: str) -> None:
    """What a function after the request raises is on the line, as far as the client sees it."""
    app = hook(flask.Flask("app"))
    app.testing = True
    app.add_url_rule("/", "index", logs("view"))

    def fail(_given: Any) -> Any:
        raise LookupError(where)

    getattr(app, where)(fail)
    with pytest.raises(LookupError):
        get(app, "/")
    stamped(lines, "/", "view")
    if instrumented:
        assert canonical(lines)["error"] == "LookupError"

"""Which framework is asking is told without importing any, and Quart is never taken for Flask.
needs: flask, quart, quart_flask_patch"""

import subprocess
import sys
import textwrap

import pytest
import quart.ctx


def run(program: str) -> str:
    """What ``program`` prints, run as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


LOADED = "print(sorted({'asok', 'flask', 'quart'} & sys.modules.keys()))"


def test_nothing_is_imported() -> None:
    """Lines, `current`, and a plain callable's requests load no framework."""
    assert (
        run(f"""
        import sys
        import asok_trace, structlog
        structlog.configure(processors=[asok_trace.inject, structlog.processors.JSONRenderer()])
        structlog.get_logger().info("outside")
        assert asok_trace.current() is None

        def application(environ, start_response):
            start_response("200 OK", [])
            structlog.get_logger().info("inside")
            return [b""]

        handle = asok_trace.instrument(application)
        handle.app({{"REQUEST_METHOD": "GET", "PATH_INFO": "/"}}, lambda *args: None)
        {LOADED}
        """).splitlines()[-1]
        == "[]"
    )


def test_flask_alone() -> None:
    """An application of Flask is Flask's, and neither Asok nor Quart is loaded for it."""
    assert (
        run(f"""
        import sys
        import asok_trace, flask
        from asok_trace.frameworks import base
        app = flask.Flask("app")
        framework, _entries = base.of_app(app)
        print(type(framework).__module__)
        app.add_url_rule("/", "index", lambda: asok_trace.current().path)
        with asok_trace.instrument(app, access_log=False):
            print(app.test_client().get("/").text)
        print(app.test_client().get("/").text)
        {LOADED}
        """)
        == "asok_trace.frameworks.flask\n/\n/\n['flask']\n"
    )


def test_quart_alone() -> None:
    """An application of Quart is Quart's, although Quart loads Flask."""
    assert (
        run(f"""
        import asyncio, sys
        import asok_trace, quart
        from asok_trace.frameworks import base
        app = quart.Quart("app")
        assert "flask" in sys.modules
        framework, _entries = base.of_app(app)
        print(type(framework).__module__)

        @app.get("/")
        async def index():
            return asok_trace.current().path

        async def ask():
            print(await (await app.test_client().get("/")).get_data(as_text=True))

        with asok_trace.instrument(app, access_log=False):
            asyncio.run(ask())
        asyncio.run(ask())
        {LOADED}
        """)
        == "asok_trace.frameworks.quart\n/\n/\n['flask', 'quart']\n"
    )


@pytest.mark.parametrize("first", ["quart_flask_patch", "asok_trace"])
def test_quart_flask_patch(first: str) -> None:
    """Where Flask's names are Quart's, an application is Quart's, whichever is imported first; its
    requests have one scope, and Flask's own functions find it."""
    if not hasattr(quart.ctx, "RequestContext"):
        # Its last release does not know Quart 0.23, where one context holds all.
        assert run(f"""
            try:
                import {first}, quart_flask_patch
            except ImportError as error:
                print(error.name)
        """).startswith("quart")
        return
    program = f"""
        import asyncio, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import {first}
        import asok_trace, quart_flask_patch, quart, flask
        from asok_trace.frameworks import base
        app = quart.Quart("app")
        framework, _entries = base.of_app(app)
        print(type(framework).__module__, flask.Flask is quart.Quart)

        @app.get("/sync")
        def sync():
            assert flask.request.path == "/sync"
            return asok_trace.current().path

        @app.get("/async")
        async def asynchronous():
            flask.g.seen = flask.has_request_context()
            return asok_trace.current().path

        async def ask():
            for path in ("/sync", "/async"):
                reply = await app.test_client().get(path)
                print(await reply.get_data(as_text=True), "X-Request-ID" in reply.headers)

        asyncio.run(ask())
        with asok_trace.instrument(app, access_log=False):
            asyncio.run(ask())
        """
    assert run(program).splitlines() == [
        "asok_trace.frameworks.quart True",
        "/sync False",
        "/async False",
        "/sync True",
        "/async True",
    ]


def test_both_in_one_process() -> None:
    """Flask and Quart side by side are each their own framework, also one within the other, which
    without `instrument` cannot be told."""
    program = """
        import asyncio
        import asok_trace, flask, quart
        from asok_trace.frameworks import base
        one, two = flask.Flask("one"), quart.Quart("two")
        for app in (one, two):
            print(type(base.of_app(app)[0]).__module__)
        one.add_url_rule("/flask", "page", lambda: asok_trace.current().path)

        @two.get("/quart")
        async def page():
            before = asok_trace.current().path
            inner = one.test_client().get("/flask", buffered=True).text
            return " ".join((before, inner, asok_trace.current().path))

        async def ask():
            print(await (await two.test_client().get("/quart")).get_data(as_text=True))

        with asok_trace.instrument(one, access_log=False):
            asyncio.run(ask())
            with asok_trace.instrument(two, access_log=False):
                asyncio.run(ask())
        """
    assert run(program).splitlines() == [
        "asok_trace.frameworks.flask",
        "asok_trace.frameworks.quart",
        *["/quart /flask /quart"] * 2,
    ]

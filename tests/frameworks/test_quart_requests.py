"""How Quart applications are built and tested, with and without `instrument`: blueprints, commands,
test requests and test clients are what they were, and their lines are stamped.
needs: quart"""

import asyncio

import pytest
import quart

from asok_trace import current
from tests.frameworks.quarts import Site
from tests.frameworks.said import Hook, Line, bare, named, say, stamped

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def site(hook: Hook, lines: list[Line]) -> Site:
    return Site(hook)


# --- requests without a server --------------------------------------------------------------


def test_test_request_context(site: Site, lines: list[Line]) -> None:
    """A request that a test makes has its path on its lines, and one id."""

    async def run() -> None:
        async with site.app.test_request_context("/made"):
            assert quart.request.path == "/made"
            say("one")
            await asyncio.create_task(_say("two"))
        say("outside")

    asyncio.run(run())
    stamped(lines, "/made", "one", "two")
    bare(lines, "outside")


async def _say(event: str) -> None:
    say(event)


def test_another_request_made_current_in_a_view(
    site: Site, lines: list[Line], instrumented: bool
) -> None:
    """Instrumented, a request that a view makes keeps the id and says its own path."""

    @site.page
    async def page() -> None:
        say("before")
        async with site.app.test_request_context("/made"):
            say("made")
        say("after")

    site.get("/page")
    stamped(lines, "/page", "before", "after")
    made, around = named(lines, "made"), named(lines, "before")
    assert made["path"] == "/made"
    assert (made["request_id"] == around["request_id"]) is instrumented


def test_a_test_client_inside_a_view(site: Site, lines: list[Line], instrumented: bool) -> None:
    """The inner request has an id of its own; the outer one goes on as it was."""

    @site.page
    async def inner() -> None:
        say("inner")

    @site.page
    async def outer() -> None:
        say("before")
        reply = await site.app.test_client().get("/inner")
        await reply.get_data()
        assert quart.request.path == "/outer"
        say("after")

    site.get("/outer")
    stamped(lines, "/outer", "before", "after")
    stamped(lines, "/inner", "inner")
    assert named(lines, "inner")["request_id"] != named(lines, "before")["request_id"]
    routes = [line["route"] for line in lines if line["event"] == "request"]
    assert routes == (["/inner", "/outer"] if instrumented else [])


def test_blueprints(site: Site, lines: list[Line], instrumented: bool) -> None:
    """A blueprint in a blueprint has its hooks, and its route has every prefix."""
    outer, inner = quart.Blueprint("outer", "o"), quart.Blueprint("inner", "i")

    @inner.before_request
    async def before() -> None:
        say("before")

    @inner.get("/<int:number>")
    async def page(number: int) -> str:
        say(f"view {number}")
        return "page"

    outer.register_blueprint(inner, url_prefix="/inner")
    site.app.register_blueprint(outer, url_prefix="/outer")
    site.get("/outer/inner/5")
    stamped(lines, "/outer/inner/5", "before", "view 5")
    if instrumented:
        assert named(lines, "request")["route"] == "/outer/inner/<int:number>"


def test_a_command(site: Site, lines: list[Line]) -> None:
    """A command has no request: no stamp, no complaint."""

    @site.app.cli.command("tidy")
    def tidy() -> None:
        say("tidying")
        assert current() is None

    result = site.app.test_cli_runner().invoke(args=["tidy"], catch_exceptions=False)
    assert result.exit_code == 0
    bare(lines, "tidying")

"""`asok dev` serves in a child that it forks anew, and that throws asok's modules away first.

needs: asok
"""

from tests.contract.lines import WAIT_SECONDS, canonical, said_by_views, saying
from tests.contract.parameters import named
from tests.contract.site import Site


@named("asok-dev")
def test_after_a_reload(site: Site) -> None:
    """A changed file brings a new child: its requests have ids and its lines are stamped."""
    mark = site.log.mark()
    page = site.root / "src/pages/later/page.py"
    page.parent.mkdir()
    page.write_text((site.root / "src/pages/whoami/page.py").read_text())
    site.log.until(mark, lambda lines: len(saying(lines, "starting")) == 2)
    site.wait_until_it_accepts(WAIT_SECONDS)

    browser = site.browser()
    site.log_in(browser, 2)
    reply, lines = site.exchange("GET", "/later", browser=browser)
    assert reply.status == 200
    said = said_by_views(lines)
    assert len(said) == 2
    for line in [*said, *canonical(lines)]:
        assert (line["request_id"], line["user"], line["path"]) == (reply.id, "2", "/later")

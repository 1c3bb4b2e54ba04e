"""Sites to test: each application behind each server, started when it is first asked for."""

from collections.abc import Generator, Iterator

import pytest

from tests.contract.servers import Framework, Server
from tests.contract.site import GetSite, Site


@pytest.fixture(scope="package")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetSite]:
    """Gives the site of a framework and a server. Each is started once, and all are stopped at
    the end of this package's tests."""
    running: dict[tuple[str, str], Site] = {}

    def get(framework: Framework, server: Server) -> Site:
        key = framework.name, server.name
        if key not in running:
            running[key] = Site(framework, server, tmp_path_factory.mktemp("-".join(key)))
            running[key].start()
        return running[key]

    yield get
    for site in running.values():
        site.stop()


@pytest.fixture
def site(request: pytest.FixtureRequest, sites: GetSite) -> Iterator[Site]:
    """The site of the framework and the server that a test is run with."""
    site = sites(*request.param)
    yield site
    site.close_browsers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the server has printed under a test that failed."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections.append((f"output of {site.server.name}", site.tail()))
    return report

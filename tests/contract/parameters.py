"""What a test is run with: every site, some of them, every kind of response of each."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.contract.kinds import Kind
from tests.contract.servers import FRAMEWORKS, SERVERS, Framework, Server

_BY_NAME = {server.name: server for server in SERVERS}


def _served(
    wanted: Callable[[Server], bool], of: Sequence[str] = ()
) -> Iterator[tuple[str, Framework, Server]]:
    for framework in FRAMEWORKS:
        for name in framework.servers:
            if (not of or framework.name in of) and wanted(_BY_NAME[name]):
                yield f"{framework.name}-{name}", framework, _BY_NAME[name]


def where(
    wanted: Callable[[Server], bool] = lambda server: True, *, of: str | Sequence[str] = ()
) -> pytest.MarkDecorator:
    """Run a test with the ``site`` of every server that is ``wanted``, of these frameworks."""
    return pytest.mark.parametrize(
        "site",
        [
            pytest.param((framework, server), id=name)
            for name, framework, server in _served(wanted, [of] if isinstance(of, str) else of)
        ],
        indirect=True,
    )


def named(*names: str) -> pytest.MarkDecorator:
    """Run a test with the ``site`` of these servers."""
    assert set(names) <= _BY_NAME.keys()
    return where(lambda server: server.name in names)


everywhere = where()
"""Run a test with every ``site``."""

over_sockets = where(lambda server: not server.in_process)
"""Run a test with every ``site`` that is talked to over a socket."""


def every_kind(
    kinds: Callable[[Framework], Sequence[Kind]] = lambda framework: framework.kinds,
    served: Callable[[Server], bool] = lambda server: True,
) -> pytest.MarkDecorator:
    """Run a test with every ``site``, or those that are ``served`` so, and every ``kind`` of its
    framework, or those that ``kinds`` gives."""
    return pytest.mark.parametrize(
        ("site", "kind"),
        [
            pytest.param((framework, server), kind, id=f"{name}-{kind.name.replace(' ', '_')}")
            for name, framework, server in _served(served)
            for kind in kinds(framework)
        ],
        indirect=["site"],
    )

"""One Jaeger for all tests here."""

from collections.abc import Iterator

import pytest

from tests.jaeger.reading import Jaeger
from tests.jaeger.server import started
from tests.queues.conftest import redis_url as redis_url  # a fixture


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger without any traces."""
    with started(tmp_path_factory.mktemp("jaeger")) as jaeger:
        yield jaeger

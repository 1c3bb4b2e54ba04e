"""A real Redis for the tests of queues, and a shop that uses it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.receiver import Receiver, receiving
from tests.queues.processes import Shop, listening

if TYPE_CHECKING:
    from redis import Redis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server of this run's own, that keeps nothing on disk."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("there is no redis-server; on Debian: apt-get install redis-server")
    where = tmp_path_factory.mktemp("redis")
    with listening(
        lambda port: (
            *(server, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(where)),
            *("--save", "", "--appendonly", "no"),
        ),
        where,
        where / "redis.txt",
        {},
    ) as (port, _):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def redis(redis_url: str) -> "Iterator[Redis]":
    """A client of the server, which is empty."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A collector of spans."""
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def shop(
    redis_url: str, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A served application and a worker with four threads, for all tests of a module."""
    where: Path = tmp_path_factory.mktemp("shop")
    made = Shop(where, redis_url, receiver.endpoint)
    with made.served(), made.worker(ASOK_WORKER_CONCURRENCY="4"):
        yield made

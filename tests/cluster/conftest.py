"""PostgreSQL and NATS for the tests here, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusterlab import Shared, Workers, shared


@pytest.fixture(scope="session")
def servers() -> Iterator[Shared]:
    """Both, started."""
    with shared() as both:
        yield both


@pytest.fixture(scope="module")
def kept_workers(servers: Shared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two workers, not started; whatever is left of them in the end is ended."""
    made = Workers(2, servers.settings(), folder=tmp_path_factory.mktemp("workers"))
    yield made
    made.stop()


@pytest.fixture
async def workers(kept_workers: Workers) -> Workers:
    """Two workers, those of the test before if they still run: they take long to start."""
    if not kept_workers.is_running:
        await kept_workers.begin_all()
    return kept_workers

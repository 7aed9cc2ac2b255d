"""A JWKS server on this machine, reached without a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tokens import JwksServer


@pytest.fixture(scope="session")
def root_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only certificate that is trusted; nobody has its key."""
    path = tmp_path_factory.mktemp("trust") / "root.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def one_root(root_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that make many clients and speak no TLS: httpx reads all roots for each client, which takes it long."""
    monkeypatch.setenv("SSL_CERT_FILE", str(root_file))


@pytest.fixture
async def jwks(monkeypatch: pytest.MonkeyPatch, one_root: None) -> AsyncIterator[JwksServer]:
    """It runs for the test."""
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    server = JwksServer()
    await server.start()
    yield server
    await server.stop()

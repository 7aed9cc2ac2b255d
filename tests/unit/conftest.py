"""A JWKS server on this machine, reached without a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tokens import JwksServer


@pytest.fixture(scope="session")
def one_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whom to trust where nobody speaks TLS: httpx reads it for each client, and all there are take it long."""
    path = tmp_path_factory.mktemp("trust") / "root.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
async def jwks(monkeypatch: pytest.MonkeyPatch, one_root: Path) -> AsyncIterator[JwksServer]:
    """It runs for the test."""
    monkeypatch.setenv("SSL_CERT_FILE", str(one_root))
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    server = JwksServer()
    await server.start()
    yield server
    await server.stop()

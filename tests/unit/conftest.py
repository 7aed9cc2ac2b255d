"""A JWKS server on this machine, reached without a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tokens import JwksServer


@pytest.fixture
async def jwks(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JwksServer]:
    """It runs for the test."""
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    server = JwksServer()
    await server.start()
    yield server
    await server.stop()

"""The client libraries in a silent room, at a gateway that ends connections for being idle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.client import connect
from live import SECRET, ServerProcess, Wire, token, until
from nodejs import run_js


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A chat whose connections end when there was no message for two seconds: API Gateway's ten minutes, scaled."""
    process = ServerProcess(tmp_path, HUBBUB_SECRET=SECRET, HUBBUB_IDLE_S="2")
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


async def outlast(url: str, times: int) -> None:
    """Return when as many connections in turn have ended because nothing was said on them."""
    for _ in range(times):
        async with await Wire.open(url, token("silent")) as silent:
            assert await silent.closed() == 1001


async def test_a_silent_client_keeps_its_connection_by_its_heartbeat(impatient: ServerProcess) -> None:
    """It is the same connection when two that ask nothing have been ended one after the other."""
    async with connect(impatient.ws_url, token=token("alice"), heartbeat_s=0.3) as alice:
        await alice.ping()
        before = alice.connection_id
        await outlast(impatient.ws_url, 2)
        assert (alice.state, alice.connection_id) == ("live", before)
        await alice.ping()
        assert alice.connection_id == before


async def test_a_client_that_asks_too_seldom_is_back_on_another_connection(impatient: ServerProcess) -> None:
    """So it is the heartbeat that keeps it."""
    async with connect(impatient.ws_url, token=token("alice"), heartbeat_s=60, backoff_base_s=0.01) as alice:
        await alice.ping()
        before = alice.connection_id
        await outlast(impatient.ws_url, 1)
        await until(lambda: alice.connection_id not in (None, before), "another connection")


async def test_the_javascript_client_does_so_too(impatient: ServerProcess) -> None:
    """While one that asks too seldom is ended twice, one that asks often enough stays."""
    script = """
  const [often, seldom] = [await open(tokens[0], { heartbeatMs: 300 }), await open(tokens[0], { heartbeatMs: 60000 })];
  const before = often.connectionId;
  for (let lives = 0, id = seldom.connectionId; lives < 2;) {
    await new Promise((resolve) => seldom.on("state", resolve));
    if (seldom.state.state === "live" && seldom.connectionId !== id) [lives, id] = [lives + 1, seldom.connectionId];
  }
  await often.ping();
  print(often.connectionId === before);
  often.close();
  seldom.close();
"""
    assert await run_js(script, impatient.ws_url, token("alice")) == [True]

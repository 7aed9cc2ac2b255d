"""The page over TLS with compression, which browsers always offer: all as usual, in less bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser
from visitor import Visitor

from live import ServerProcess
from tlslab import Issuer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """`hubbub serve --dev` with a certificate, which compresses what has 50 bytes or more."""
    issuer = Issuer(tmp_path)
    issuer.write()
    tls = {"HUBBUB_TLS_CERT": str(issuer.cert), "HUBBUB_TLS_KEY": str(issuer.key)}
    process = ServerProcess(tmp_path, "--dev", HUBBUB_DEFLATE="1", HUBBUB_DEFLATE_MIN_BYTES="50", **tls)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


async def test_two_people_talk_over_tls_and_compressed(browser: Browser, server: ServerProcess) -> None:
    """What one says the other sees, long or short, and far fewer bytes go out than were said."""
    people = [await Visitor.open(browser, server.url, ignore_https_errors=True) for _ in range(2)]
    try:
        ada, grace = people
        await ada.enter("Ada")
        await grace.enter("Grace")
        long = "Well, well. " * 500
        for words in ("Good morning", long.strip()):
            await ada.say(words)
            await grace.sees(words)
        await grace.say("Yes")
        await ada.sees("Yes")
        for each in people:
            await each.verify()
    finally:
        for each in people:
            await each.context.close()
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        numbers = (await client.get(f"{server.url}/metrics")).text
    sent = re.search(r"^hubbub_bytes_out_total ([\d.e+]+)$", numbers, re.MULTILINE)
    assert sent is not None, numbers
    assert float(sent[1]) < len(long)

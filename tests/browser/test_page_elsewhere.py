"""The page on a host of its own, which serves files and nothing else, with the chat on another."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from visitor import BOUND_MS, Visitor

from live import SECRET, ServerProcess, backend, token

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
ADVISED = re.search(
    r"^Content-Security-Policy: (.*) wss://[\w.-]+(; .*)$", (ROOT / "docs/how-to/aws.md").read_text(), re.MULTILINE
)
"""What the how-to lets a host send with the page: what is before the address of the chat, and what is after."""


class Site:
    """The page's files on a host.

    Attributes:
        folder: where they are.
        policy: the Content-Security-Policy that is sent with each.
        url: where the page is.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = "default-src 'none'"
        self.url = ""

    def tell(self, chat: str) -> None:
        """Tell the page where the chat's WebSocket is, and the browser that it may connect to it."""
        assert ADVISED is not None
        (self.folder / "web" / "chat.json").write_text(json.dumps({"url": chat}))
        self.policy = f"{ADVISED[1]} {chat.rpartition('/')[0]}{ADVISED[2]}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The files as the how-to puts them together, and a server that knows of no chat."""
    made = Site(tmp_path / "site")
    shutil.copytree(ROOT / "src/hubbub/web", made.folder / "web")
    shutil.copytree(ROOT / "clients/js", made.folder / "js", ignore=shutil.ignore_patterns("test", "node_modules"))
    shutil.copy(ROOT / "src/hubbub/web/index.html", made.folder)

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *about: Any) -> None:
            super().__init__(*about, directory=str(made.folder))

        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", made.policy)
            super().end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        server.daemon_threads = True
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join(20)


@pytest_asyncio.fixture(loop_scope="session")
async def elsewhere(tmp_path: Path, site: Site) -> AsyncIterator[ServerProcess]:
    """A chat that accepts the page's host, and whose secret the backend has."""
    (tmp_path / "chat").mkdir()
    process = ServerProcess(tmp_path / "chat", HUBBUB_SECRET=SECRET, HUBBUB_ALLOWED_ORIGINS=site.url)
    try:
        await process.start()
        site.tell(process.ws_url)
        yield process
    finally:
        await process.stop()


async def come_in(page: Page, url: str, user: str) -> None:
    """Open the page in a tab, with a token that the backend has made."""
    await page.goto(url)
    await page.get_by_text("I have a token").click()
    await page.locator("#start-token").fill(token(user, name=user.title(), rooms={"general": "member"}))
    await page.locator("#start-go").click()
    await expect(page.locator("#me-state")).to_have_text("online", timeout=BOUND_MS)


async def test_two_tabs_of_a_page_on_another_host_talk(browser: Browser, site: Site, elsewhere: ServerProcess) -> None:
    """Files from one host, the WebSocket of another, and the policy that the how-to advises: nothing is violated."""
    async with backend(elsewhere.url) as client:
        (
            await client.post("/v1/rooms", json={"kind": "public", "room": "general", "name": "General"})
        ).raise_for_status()
    ann = await Visitor.open(browser, site.url)
    bob = Visitor(ann.context, await ann.context.new_page(), site.url)
    try:
        await come_in(ann.page, site.url, "ann")
        await come_in(bob.page, site.url, "bob")
        await ann.say("Hello from one host")
        await bob.sees("Hello from one host")
        await bob.say("Hello by way of another")
        await ann.sees("Hello by way of another")
        await ann.page.reload()
        await ann.present()
        await ann.sees("Hello by way of another")
        for visitor in (ann, bob):
            await visitor.verify()
    finally:
        await ann.context.close()

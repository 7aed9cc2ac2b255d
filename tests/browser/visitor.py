"""Somebody with a browser tab on the chat page: what tests let people do, and what they may expect to see."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Locator, Page, expect

from live import ServerProcess, Wire, token

BOUND_MS = 15_000
"""How long anything on a page may take before the test fails."""

expect.set_options(timeout=BOUND_MS)

SCREENSHOTS = Path(__file__).parent / "screenshots"

_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


class Visitor:
    """One person in one browser context.

    Attributes:
        page: the tab.
        errors: what the page's console called an error, and what was thrown and not caught; must stay empty.
        tolerated: parts of such errors that the test itself causes, as by cutting the network.

    """

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context = context
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.tolerated: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", self._thrown)

    @classmethod
    async def open(cls, browser: Browser, url: str, **options: Any) -> Visitor:
        """A fresh context with one tab that is not yet on the page."""
        context = await browser.new_context(
            **{"viewport": {"width": 1200, "height": 760}, "locale": "en-GB", "reduced_motion": "reduce", **options}
        )
        context.set_default_timeout(BOUND_MS)
        await context.add_init_script(_WATCH)
        return cls(context, await context.new_page(), url)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _thrown(self, error: Error) -> None:
        self.errors.append(str(error))

    async def verify(self) -> None:
        """Fail if anything went wrong behind the scenes."""
        if self.page.is_closed():
            return
        assert await self.page.evaluate("window.violations ?? []") == []
        assert [error for error in self.errors if not any(part in error for part in self.tolerated)] == []

    # Parts of the page

    @property
    def text(self) -> Locator:
        """Where one writes."""
        return self.page.locator("#composer-text")

    @property
    def messages(self) -> Locator:
        """The messages shown, from old to new."""
        return self.page.locator("#timeline > .message")

    def message(self, words: str) -> Locator:
        """The message with these words."""
        return self.messages.filter(has=self.page.locator(".text", has_text=words))

    def room(self, name: str) -> Locator:
        """The room's line in the list."""
        return self.page.locator(".room-link", has=self.page.get_by_text(name, exact=True))

    # What one does

    async def enter(self, name: str) -> Visitor:
        """Come in under this name and wait for the conversation."""
        await self.page.goto(self.url)
        await self.page.locator("#start-name").fill(name)
        await self.page.locator("#start-go").click()
        return await self.present()

    async def present(self) -> Visitor:
        """Wait until one can write."""
        await expect(self.text).to_be_enabled(timeout=BOUND_MS)
        await expect(self.page.locator("#me-state")).to_have_text("online", timeout=BOUND_MS)
        return self

    async def say(self, words: str) -> None:
        """Write and send."""
        await self.text.fill(words)
        await self.text.press("Enter")

    async def arrived(self, words: str) -> None:
        """One's own message has come back as an entry of the log: only then can it be edited."""
        await expect(self.message(words)).to_have_attribute("data-seq", re.compile(r"\d+"), timeout=BOUND_MS)

    async def point(self, words: str) -> Locator:
        """Point at a message, so that its actions show; returns it."""
        message = self.message(words)
        await message.hover()
        await expect(message.locator(".actions")).to_be_visible(timeout=BOUND_MS)
        return message

    async def act(self, words: str, action: str) -> None:
        """Use one of a message's actions, by its name."""
        message = await self.point(words)
        await message.get_by_role("button", name=action, exact=True).click()

    async def react(self, words: str, reaction: str) -> None:
        """React to a message, by the reaction's name, and see it: what comes moves what one would point at next."""
        await self.act(words, "React")
        await self.page.get_by_role("group", name="React with").get_by_role("button", name=reaction).click()
        shown = self.message(words).get_by_role("button", name=re.compile(rf"^{reaction}, .*\byou\b"))
        await expect(shown).to_be_visible(timeout=BOUND_MS)

    async def make_room(self, name: str, *, private: bool = False) -> None:
        """Make a room and be in it."""
        await self.page.get_by_role("button", name="Make a room").click()
        dialog = self.page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill(name)
        if private:
            await dialog.get_by_text("The invited").click()
        await dialog.get_by_role("button", name="Make the room").click()
        await self.is_in(name)

    # What one sees

    async def sees(self, words: str, *, times: int = 1) -> None:
        """The words stand in so many messages."""
        await expect(self.message(words)).to_have_count(times, timeout=BOUND_MS)

    async def is_in(self, name: str) -> None:
        """The open room is this one."""
        await expect(self.page.locator("#room-name")).to_have_text(name, timeout=BOUND_MS)
        await expect(self.text).to_be_enabled(timeout=BOUND_MS)

    async def words(self) -> list[str]:
        """The words of all messages shown, from old to new."""
        texts: list[str] = await self.page.locator("#timeline > .message .text").all_inner_texts()
        return texts

    async def becomes(self, script: str, expected: object = True) -> None:
        """Wait until a script on the page gives this."""
        deadline = asyncio.get_running_loop().time() + BOUND_MS / 1000
        while (got := await self.page.evaluate(script)) != expected:
            assert asyncio.get_running_loop().time() < deadline, f"{script}: {got!r}, not {expected!r}"
            await asyncio.sleep(0.02)

    async def picture(self, name: str) -> Path:
        """A screenshot, for people to look at."""
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        await self.page.screenshot(path=path)
        return path


async def fill(server: ServerProcess, room: str, count: int, *, begin: int = 0) -> None:
    """Let Bob write so many messages."""
    async with await Wire.open(server.ws_url, token("bob", name="Bob", rooms={room: "member"})) as bob:
        await bob.ok("sync")
        for start in range(begin, begin + count, 100):
            numbers = range(start, min(start + 100, begin + count))
            frames = [f'{{"action":"send","ref":"s{n}","room":"{room}","text":"line {n:05}"}}' for n in numbers]
            for frame in frames:
                await bob.socket.send(frame)
            missing = {f"s{n}" for n in numbers}
            while missing:
                reply = await bob.receive()
                assert reply["type"] != "error", reply
                missing.discard(reply.get("ref", ""))


Visit = Callable[..., Awaitable[Visitor]]
"""The fixture `visit`: somebody by name, or with no name before the start; options are the browser context's."""

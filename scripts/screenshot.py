"""Make the README's picture anew: `.venv/bin/python scripts/screenshot.py` writes docs/screenshot.png.

It starts a server of its own on an empty folder, lets a few people talk, and photographs the page of one of them with
Debian's Chromium. It looks as it should with the Debian packages fonts-inter and fonts-noto-color-emoji.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "browser")]

from playwright.async_api import Browser, async_playwright, expect  # noqa: E402  found through the path above
from visitor import Visitor  # noqa: E402

from live import ServerProcess, Wire, token  # noqa: E402

SIZE = {"width": 1200, "height": 762}
FONTS = {"Inter": "fonts-inter", "Noto Color Emoji": "fonts-noto-color-emoji"}


def missing_fonts() -> list[str]:
    """The Debian packages that the picture would look better with."""
    known = subprocess.run(["fc-list", ":", "family"], capture_output=True, text=True, check=False).stdout
    return [package for family, package in FONTS.items() if family not in known]


@asynccontextmanager
async def talking(server: ServerProcess, user: str, name: str) -> AsyncIterator[Wire]:
    """Somebody else in General, without a page."""
    claims = {"name": name, "rooms": {"general": "member"}}
    async with await Wire.open(server.ws_url, token(user, **claims)) as wire:
        await wire.ok("sync")
        await wire.ok("join", room="general")
        yield wire


async def converse(ada: Visitor, grace: Wire, katherine: Wire) -> None:
    """What can be seen in General."""
    await ada.say("Good morning! All the cards are punched.")
    await ada.sees("All the cards are punched")
    moth = await grace.ok("send", room="general", text="Morning! I found a moth in the relay.")
    await ada.sees("I found a moth")
    for who, reaction in ((grace, "😮"), (katherine, "😂"), (grace, "😂")):
        await who.ok("react", room="general", target=moth["seq"], reaction=reaction)
    await ada.react("I found a moth", "tears of joy")
    await ada.act("I found a moth", "Reply")
    await ada.say("Please glue it into the logbook!")
    await ada.say("Then start the first program: `make run`")
    await ada.sees("Then start the first program")
    await grace.ok("send", room="general", text="On it:\n```\nfor card in cards:\n    punch(card)\n```")
    runs = await grace.ok("send", room="general", text="It runs. Notes are at https://example.org/notes")
    await katherine.ok("react", room="general", target=runs["seq"], reaction="❤️")
    await ada.react("It runs", "heart")
    await katherine.ok("send", room="general", text="Checked the numbers by hand: all correct 🎉")
    await ada.sees("Checked the numbers")


async def furnish(ada: Visitor, grace: Wire, katherine: Wire) -> None:
    """Other rooms, some with something new in them, and a direct chat."""
    for name, kind, count in (("Garden", "public", 0), ("Release 2", "public", 3), ("Surprise party", "private", 0)):
        made = await grace.ok("create", kind=kind, name=name, members=["ada-lovelace"])
        for number in range(count):
            await grace.ok("send", room=made["room"], text=f"Step {number + 1} is done.")
    for wire, words in ((grace, 0), (katherine, 1)):
        made = await wire.ok("create", kind="direct", members=["ada-lovelace"])
        for _ in range(words):
            await wire.ok("send", room=made["room"], text="Lunch?")
    await expect(ada.page.locator(".room-link")).to_have_count(6)


async def photograph(browser: Browser, server: ServerProcess, path: Path) -> None:
    """Let them talk, and keep the picture."""
    ada = await Visitor.open(browser, server.url, viewport=SIZE, color_scheme="light")
    await ada.enter("Ada Lovelace")
    async with AsyncExitStack() as stack:
        grace = await stack.enter_async_context(talking(server, "grace", "Grace Hopper"))
        katherine = await stack.enter_async_context(talking(server, "katherine", "Katherine Johnson"))
        async with talking(server, "edsger", "Edsger Dijkstra"):
            pass
        await furnish(ada, grace, katherine)
        await converse(ada, grace, katherine)
        await ada.page.get_by_role("button", name="Members", exact=True).click()
        await expect(ada.page.locator(".member.online")).to_have_count(3)
        await grace.ok("typing", room="general")
        await expect(ada.page.locator("#typing")).to_have_text("Grace Hopper is typing")
        await ada.text.focus()
        await ada.page.mouse.move(5, 5)
        await ada.page.screenshot(path=path)
    await ada.verify()


async def main() -> None:
    """Make the picture."""
    if missing := missing_fonts():
        print(f"The picture will look better after: apt-get install {' '.join(missing)}", file=sys.stderr)
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("There is no Chromium: scripts/setup system")
    path = ROOT / "docs" / "screenshot.png"
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder), "--dev", HUBBUB_PRESENCE_GRACE_S="0.1")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            try:
                await server.start()
                await photograph(browser, server, path)
            finally:
                await browser.close()
                await server.stop()
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    asyncio.run(main())

"""A room with a long history stays quick: pages as one scrolls, what is read stays in place, the page stays small."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect
from visitor import BOUND_MS, Visit, Visitor, fill

from live import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = 1_200


async def first_number(page: Visitor) -> int:
    """The number of the oldest message shown."""
    return int((await page.messages.first.locator(".text").inner_text()).removeprefix("line "))


async def test_scrolling_up_loads_the_past_and_keeps_the_place(visit: Visit, server: ServerProcess) -> None:
    """What one looks at does not move when older messages come above it, down to the beginning, and none is missing."""
    await fill(server, "general", 300)
    ada = await visit("Ada")
    await ada.sees("line 00299")
    await expect(ada.message("line 00299")).to_be_in_viewport()
    assert await first_number(ada) > 100
    scroller = ada.page.locator("#scroller")
    while (first := await first_number(ada)) > 0:
        mark = ada.page.locator(".message", has_text=f"line {first:05}")
        # Stand still near the top; then only what comes above can move the message.
        before = await scroller.evaluate("(s) => { s.scrollTop = 150; return s.scrollTop; }")
        box = await mark.bounding_box()
        assert box is not None and before == 150
        await ada.becomes(f"document.querySelector('#timeline > .message .text').textContent !== 'line {first:05}'")
        moved = await mark.bounding_box()
        assert moved is not None and abs(moved["y"] - box["y"]) <= 2
    assert await ada.words() == [f"line {n:05}" for n in range(300)]
    await expect(ada.page.locator("#top")).to_have_text("This is where it begins.")


async def test_the_page_stays_small_however_far_one_scrolls(visit: Visit, server: ServerProcess) -> None:
    """At most 500 messages are in the page; what was dropped comes back, and the newest is one click away."""
    await fill(server, "general", LONG)
    ada = await visit("Ada")
    await ada.sees(f"line {LONG - 1:05}")
    scroller = ada.page.locator("#scroller")
    most = 0
    while (first := await first_number(ada)) > 0:
        await scroller.evaluate("(s) => { s.scrollTop = 0; s.dispatchEvent(new Event('scroll')); }")
        await ada.becomes(f"document.querySelector('#timeline > .message .text').textContent !== 'line {first:05}'")
        most = max(most, await ada.messages.count())
    assert most <= 560
    await ada.sees(f"line {LONG - 1:05}", times=0)
    await fill(server, "general", 3, begin=LONG)
    jump = ada.page.locator("#jump")
    await expect(jump).to_have_text("3 new messages", timeout=BOUND_MS)
    await ada.sees(f"line {LONG:05}", times=0)
    # Down again by scrolling: every message passes by once.
    last = 0
    while last < LONG + 2:
        await scroller.evaluate("(s) => { s.scrollTop = s.scrollHeight; }")
        numbers = [int(text.removeprefix("line ")) for text in await ada.words()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) <= 560
        last = numbers[-1]
        await asyncio.sleep(0)
    await scroller.evaluate("(s) => { s.scrollTop = 0; }")
    await expect(jump).to_have_text("Jump to newest", timeout=BOUND_MS)
    await jump.click()
    await expect(ada.message(f"line {LONG + 2:05}")).to_be_in_viewport(timeout=BOUND_MS)
    await expect(jump).to_be_hidden()


async def test_one_begins_to_read_at_what_is_new(visit: Visit, server: ServerProcess) -> None:
    """Coming back to many unread messages, a button leads to the first of them, below the line that says so."""
    ada = await visit("Ada")
    await ada.make_room("Engine")
    await ada.say("my last word")
    engine = await ada.page.evaluate("decodeURIComponent(location.hash.slice(1))")
    await ada.room("General").click()
    await ada.is_in("General")
    await fill(server, engine, 150)
    await expect(ada.room("Engine").locator(".badge")).to_have_text("99+ unread", timeout=BOUND_MS)
    await ada.page.reload()
    await ada.is_in("General")
    await ada.room("Engine").click()
    await ada.sees("line 00149")
    await ada.page.locator("#unread-above").click()
    await expect(ada.page.locator(".new-line")).to_be_in_viewport(timeout=BOUND_MS)
    await expect(ada.message("line 00000")).to_be_in_viewport()
    await ada.page.locator("#jump").click()
    await expect(ada.message("line 00149")).to_be_in_viewport(timeout=BOUND_MS)
    await expect(ada.room("Engine").locator(".badge")).to_have_count(0, timeout=BOUND_MS)

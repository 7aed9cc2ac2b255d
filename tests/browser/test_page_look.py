"""The page stays in shape: long names, many rooms, big letters, high contrast, texts that can be read in any state."""

from __future__ import annotations

import pytest
from cable import CUT, Cable
from looks import FAINT, OUTSIDE
from playwright.async_api import expect
from visitor import BOUND_MS, Visit, Visitor, fill

from live import ServerProcess, Wire, backend, token

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = "A name that goes on and on and on without any end in sight, " * 2
WORD = "W" * 120


async def crowd(server: ServerProcess, member: str) -> None:
    """Many rooms with unread messages, long names without blanks among them, and direct chats."""
    async with await Wire.open(server.ws_url, token("grace", name=LONG[:128], rooms={"general": "member"})) as grace:
        await grace.ok("sync")
        await grace.ok("join", room="general")
        for number in range(30):
            name = {3: LONG[:128], 7: WORD}.get(number, f"Room {number:02}")
            kind = "private" if number % 3 else "public"
            made = await grace.ok("create", kind=kind, name=name, members=[member])
            for _ in range(number % 5):
                await grace.ok("send", room=made["room"], text="hello")
        made = await grace.ok("create", kind="direct", members=[member])
        await grace.ok("send", room=made["room"], text="only for you")
        for text in (WORD * 3, f"https://example.org/{WORD}", f"`{WORD}`", f"```\n{WORD}\n```", "שלום עולם", "👩‍🚀🎉"):
            await grace.ok("send", room="general", text=text)
        await grace.ok("send", room="general", data={WORD: [WORD, {"deep": [1, 2, 3]}]})
        sent = await grace.ok("send", room="general", text="the end")
        await grace.ok("react", room="general", target=sent["seq"], reaction="W" * 32)
        await grace.ok("send", room="general", text="a reply", reply_to=sent["seq"] - 7)


@pytest.mark.parametrize(
    ("width", "height"), [(1200, 760), (800, 600), (600, 380), (360, 740), (320, 256)], ids=lambda size: str(size)
)
async def test_nothing_sticks_out(visit: Visit, server: ServerProcess, width: int, height: int) -> None:
    """On a desk, on a tablet, at twice and four times the size of letters, and on a phone all is inside the page."""
    ada = await visit("Ada", viewport={"width": width, "height": height})
    await crowd(server, "ada")
    await ada.sees("the end")
    await expect(ada.page.locator(".room-link")).to_have_count(32, timeout=BOUND_MS)
    assert await ada.page.evaluate(OUTSIDE) == []
    narrow = width < 720
    if narrow:
        await ada.page.get_by_role("button", name="Rooms", exact=True).click()
        await expect(ada.room("General")).to_be_in_viewport(timeout=BOUND_MS)
    badge = ada.room("Room 04").locator(".badge")
    await expect(badge).to_have_text("4 unread", timeout=BOUND_MS)
    await badge.scroll_into_view_if_needed()
    await expect(badge).to_be_in_viewport(ratio=1)
    await ada.picture(f"crowd-{width}")
    await ada.page.get_by_role("button", name="Find public rooms").click()
    await expect(ada.page.locator(".pick")).to_have_count(11, timeout=BOUND_MS)
    assert await ada.page.evaluate(OUTSIDE) == []
    await expect(ada.page.locator(".pick-do").first).to_be_in_viewport()
    await ada.page.keyboard.press("Escape")
    if narrow:
        await ada.page.keyboard.press("Escape")
        await expect(ada.page.locator("#sidebar")).to_be_hidden(timeout=BOUND_MS)
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member")).to_have_count(2, timeout=BOUND_MS)
    assert await ada.page.evaluate(OUTSIDE) == []
    await ada.picture(f"crowd-members-{width}")


async def test_a_room_with_much_that_is_new_does_not_move_the_page(visit: Visit, server: ServerProcess) -> None:
    """Only the messages scroll; the first new one is in view, below the line that says so, and where one writes too."""
    ada = await visit("Ada")
    await crowd(server, "ada")
    await ada.make_room("Engine")
    engine = await ada.page.evaluate("decodeURIComponent(location.hash.slice(1))")
    await ada.say("read")
    await ada.room("General").click()
    await ada.is_in("General")
    await fill(server, engine, 40)
    await expect(ada.room("Engine").locator(".badge")).to_have_text("40 unread", timeout=BOUND_MS)
    await ada.room("Engine").click()
    await expect(ada.page.locator(".new-line")).to_be_in_viewport(timeout=BOUND_MS)
    await expect(ada.message("line 00000")).to_be_in_viewport()
    await expect(ada.text).to_be_in_viewport(ratio=1)
    assert await ada.page.evaluate(OUTSIDE) == []
    await ada.message("line 00020").focus()
    await expect(ada.message("line 00020")).to_be_in_viewport()
    assert await ada.page.evaluate(OUTSIDE) == []


async def test_with_the_systems_colours_everything_can_still_be_told_apart(visit: Visit) -> None:
    """In high contrast the open room, a pressed reaction, bubbles and badges have borders, for backgrounds are gone."""
    grace, ada = await visit("Grace"), await visit("Ada", forced_colors="active")
    await ada.make_room("Engine")
    await ada.room("General").click()
    await ada.is_in("General")
    await grace.say("hello")
    await ada.sees("hello")
    await ada.react("hello", "heart")
    await expect(ada.page.locator(".chip")).to_be_visible(timeout=BOUND_MS)
    width = "(node) => parseFloat(getComputedStyle(node).borderTopWidth)"
    here, there = ada.room("General"), ada.room("Engine")
    assert await here.evaluate(width) > await there.evaluate(width)
    for part in (".bubble", ".chip", ".composer", ".send"):
        assert await ada.page.locator(part).first.evaluate(width) >= 1
    assert await ada.page.locator('.chip[aria-pressed="true"]').evaluate(width) == 2
    await ada.picture("forced-colours")


async def unreadable(person: Visitor) -> list[str]:
    """The texts in view that have too little contrast."""
    faint: list[str] = await person.page.evaluate(FAINT)
    return faint


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_texts_can_be_read_when_things_go_wrong(visit: Visit, server: ServerProcess, scheme: str) -> None:
    """Banners, notices, what is on its way, what was refused, the door's own words: all have a contrast of 4.5 to 1."""
    async with Cable(server.port) as cable:
        ada = await visit("Ada", url=cable.url, color_scheme=scheme)
        ada.tolerated += CUT
        await ada.say("x" * 20_000)
        await expect(ada.page.locator(".message.failed")).to_have_count(1, timeout=BOUND_MS)
        await ada.page.locator(".failed .text").evaluate("(text) => { text.textContent = 'shorter'; }")
        await ada.page.get_by_role("button", name="Talk to somebody directly").click()
        await ada.page.get_by_role("dialog").get_by_label("Who?").fill("ada")
        await ada.page.get_by_role("dialog").get_by_role("button", name="Talk").click()
        await expect(ada.page.locator(".toast")).to_have_count(1, timeout=BOUND_MS)
        await cable.pull()
        await ada.say("on its way")
        await expect(ada.page.locator(".message.pending")).to_have_count(1, timeout=BOUND_MS)
        await expect(ada.page.locator("#banner.waiting")).to_be_visible(timeout=BOUND_MS)
        assert await unreadable(ada) == []
        await ada.picture(f"wrong-{scheme}")
        second = await ada.context.new_page()
        await cable.plug()
        await expect(ada.page.locator("#banner")).to_be_hidden(timeout=BOUND_MS)
        await second.goto(ada.page.url)
        await expect(second.locator("#start-notice")).to_be_visible(timeout=BOUND_MS)
        await second.locator("#start-name").fill("system")
        await second.locator("#start-go").click()
        await expect(second.locator("#start-problem")).to_contain_text("another name", timeout=BOUND_MS)
        await second.get_by_text("I have a token").click()
        assert await second.evaluate(FAINT) == []
        await ada.verify()
        await second.close()
        await ada.page.close()
    grace = await visit("Grace", color_scheme=scheme)
    async with backend(server.url) as http:
        assert (await http.put("/v1/users/grace/ban", json={})).status_code < 300
    await expect(grace.page.locator("#banner.closed")).to_be_visible(timeout=BOUND_MS)
    assert await unreadable(grace) == []

"""Everything on the page without a mouse: what Tab reaches and in which order, and where the focus goes afterwards."""

from __future__ import annotations

import pytest
from cable import CUT, Cable
from playwright.async_api import expect
from visitor import BOUND_MS, Visit, Visitor, fill

from live import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOCUSED = """
() => {
  const node = document.activeElement;
  const label = node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent ?? node.innerText ?? "";
  return label.replace(/\\s+/gu, " ").trim() || node.tagName;
}
"""


async def focused(person: Visitor) -> str:
    """The name of what has the focus."""
    name: str = await person.page.evaluate(FOCUSED)
    return name


async def tab_to(person: Visitor, name: str, *, key: str = "Tab") -> None:
    """Press Tab until something of this name has the focus."""
    seen: list[str] = []
    for _ in range(60):
        if (at := await focused(person)) == name:
            return
        seen.append(at)
        await person.page.keyboard.press(key)
    pytest.fail(f"Tab does not reach {name!r}, only {seen}")


async def test_tab_goes_through_the_page_from_its_beginning_to_its_end(visit: Visit) -> None:
    """Rooms, then the room's own buttons, then one message with its actions, then where one writes."""
    ada = await visit("Ada")
    await ada.say("first")
    await ada.say("second")
    await expect(ada.message("second").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
    await ada.page.mouse.move(600, 5)
    await ada.page.locator("#app").evaluate(
        "(app) => { app.tabIndex = -1; app.focus(); app.removeAttribute('tabindex'); }"
    )
    seen: list[str] = []
    while "Send" not in seen:
        await ada.page.keyboard.press("Tab")
        seen.append(await focused(ada))
        assert len(seen) < 40, seen
    rooms = ["Use dark colours", "Find public rooms", "Make a room", "General", "Talk to somebody directly"]
    foot = ["Open another tab and be somebody else", "Sign out"]
    head = ["Invite somebody", "Members", "Leave the room"]
    message = ["You", "React", "Reply", "Edit", "Delete"]
    assert seen == ["Skip to writing", *rooms, *foot, *head, *message, "Message General", "Send"]


@pytest.mark.parametrize(
    ("opener", "first"),
    [
        ("Find public rooms", "Filter the public rooms"),
        ("Make a room", "Name"),
        ("Talk to somebody directly", "Who?"),
        ("Invite somebody", "Who?"),
        ("Leave the room", "Leave"),
    ],
)
async def test_a_dialog_takes_the_focus_keeps_it_and_gives_it_back(visit: Visit, opener: str, first: str) -> None:
    """It begins at the first thing to do, Tab does not leave it, and Escape leads back to what opened it."""
    ada = await visit("Ada")
    await tab_to(ada, opener)
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.get_by_role("dialog")).to_be_visible(timeout=BOUND_MS)
    assert await focused(ada) == first
    inside = "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
    for _ in range(8):
        await ada.page.keyboard.press("Tab")
        assert await ada.page.evaluate(inside)
    await ada.page.keyboard.press("Escape")
    await expect(ada.page.get_by_role("dialog")).to_have_count(0)
    assert await focused(ada) == opener


async def test_rooms_are_made_joined_shared_and_left_by_keyboard(visit: Visit) -> None:
    """A private room, an invitation, a removal; a public room, found and left; a direct chat."""
    ada, grace = await visit("Ada"), await visit("Grace")
    keys = ada.page.keyboard
    await tab_to(ada, "Make a room")
    await keys.press("Enter")
    await keys.type("Cellar")
    await keys.press("Tab")
    await keys.press("ArrowDown")
    await keys.press("Enter")
    await ada.is_in("Cellar")
    await expect(ada.text).to_be_focused(timeout=BOUND_MS)
    await tab_to(ada, "Invite somebody", key="Shift+Tab")
    await keys.press("Enter")
    await keys.type("grace")
    await keys.press("Enter")
    await expect(grace.room("Cellar")).to_be_visible(timeout=BOUND_MS)
    assert await focused(ada) == "Invite somebody"
    await tab_to(ada, "Members")
    await keys.press("Enter")
    assert await focused(ada) == "Close the list of members"
    await tab_to(ada, "Remove Grace")
    await keys.press("Enter")
    await expect(ada.page.get_by_role("dialog")).to_be_visible(timeout=BOUND_MS)
    await keys.press("Enter")
    await expect(grace.room("Cellar")).to_have_count(0, timeout=BOUND_MS)
    await expect(ada.page.locator(".member")).to_have_count(1, timeout=BOUND_MS)
    assert await focused(ada) == "Close the list of members"  # the button that was pressed is gone
    await keys.press("Escape")
    assert await focused(ada) == "Members"
    await grace.make_room("Attic")
    await tab_to(ada, "Find public rooms")
    await keys.press("Enter")
    await expect(ada.page.locator(".pick")).to_have_count(2, timeout=BOUND_MS)
    await keys.type("att")
    await keys.press("Tab")
    await keys.press("Enter")
    await ada.is_in("Attic")
    await tab_to(ada, "Leave the room")
    await keys.press("Enter")
    await expect(ada.page.get_by_role("dialog")).to_be_visible(timeout=BOUND_MS)
    await keys.press("Enter")
    await ada.is_in("General")
    await tab_to(ada, "Talk to somebody directly")
    await keys.press("Enter")
    await keys.type("grace")
    await keys.press("Enter")
    await ada.is_in("Grace")
    await tab_to(ada, "General")
    await keys.press("Enter")
    await ada.is_in("General")
    await tab_to(ada, "Sign out")
    await keys.press("Enter")
    await expect(ada.page.locator("#start-name")).to_be_focused(timeout=BOUND_MS)


async def test_the_door_opens_by_keyboard(visit: Visit) -> None:
    """Another name, the colours, and the field for a token are reached and used."""
    ada = await visit()
    await ada.page.goto(ada.url)
    await expect(ada.page.locator("#start-name")).to_be_focused(timeout=BOUND_MS)
    keys = ada.page.keyboard
    before = await ada.page.locator("#start-name").input_value()
    while await ada.page.locator("#start-name").input_value() == before:
        await tab_to(ada, "Suggest another name")
        await keys.press("Enter")
    await tab_to(ada, "I have a token")
    await keys.press("Enter")
    await keys.press("Tab")
    await expect(ada.page.locator("#start-token")).to_be_focused()
    await tab_to(ada, "Use dark colours", key="Shift+Tab")
    await keys.press("Enter")
    assert await focused(ada) == "Use light colours"
    await tab_to(ada, "Come in")
    await keys.press("Enter")
    await ada.present()


async def test_what_goes_away_leaves_the_focus_where_one_was(visit: Visit, server: ServerProcess) -> None:
    """The buttons that lead down and up vanish when pressed: the focus is then on a message, not nowhere."""
    ada = await visit("Ada")
    await ada.make_room("Engine")
    engine = await ada.page.evaluate("decodeURIComponent(location.hash.slice(1))")
    await ada.room("General").click()
    await ada.is_in("General")
    await fill(server, engine, 90)
    await ada.page.reload()
    await expect(ada.room("Engine").locator(".badge")).to_have_text("90 unread", timeout=BOUND_MS)
    await ada.room("Engine").click()
    await ada.sees("line 00089")
    keys = ada.page.keyboard
    above = ada.page.locator("#unread-above")
    await expect(above).to_be_visible(timeout=BOUND_MS)
    await above.focus()
    await keys.press("Enter")
    await expect(ada.message("line 00000")).to_be_focused(timeout=BOUND_MS)
    await expect(ada.message("line 00000")).to_be_in_viewport()
    await keys.press("ArrowDown")
    await expect(ada.message("line 00001")).to_be_focused()
    await ada.page.locator("#jump").focus()
    await keys.press("Enter")
    await expect(ada.message("line 00089")).to_be_focused(timeout=BOUND_MS)
    await keys.press("Escape")
    await expect(ada.text).to_be_focused()


async def test_after_a_click_on_a_button_that_goes_keys_are_for_writing(visit: Visit, server: ServerProcess) -> None:
    """Who jumps to the newest with the mouse and types, writes; the letters are no shortcuts."""
    ada = await visit("Ada")
    await fill(server, "general", 40)
    await ada.sees("line 00039")
    await ada.page.locator("#scroller").evaluate("(s) => { s.scrollTop = 0; }")
    await ada.page.locator("#jump").click()
    await ada.page.keyboard.type("really?")
    await expect(ada.page.locator("#composer-context")).to_be_hidden()
    await expect(ada.text).to_have_value("really?")


async def test_a_message_that_was_not_sent_is_mended_by_keyboard(visit: Visit) -> None:
    """Try again and discard are reached from the message, and leave the focus where one writes."""
    ada = await visit("Ada")
    await ada.say("x" * 20_000)
    await expect(ada.page.locator(".message.failed")).to_have_count(1, timeout=BOUND_MS)
    keys = ada.page.keyboard
    await tab_to(ada, "Try again", key="Shift+Tab")
    await keys.press("Enter")
    await expect(ada.page.locator(".failure")).to_be_visible(timeout=BOUND_MS)
    await tab_to(ada, "Discard")
    await keys.press("Enter")
    await expect(ada.messages).to_have_count(0)
    await expect(ada.text).to_be_focused()


async def test_a_notice_is_dismissed_by_keyboard(visit: Visit) -> None:
    """It is the last thing that Tab reaches; the focus goes back to where one writes."""
    ada = await visit("Ada")
    await tab_to(ada, "Talk to somebody directly")
    await ada.page.keyboard.press("Enter")
    await ada.page.keyboard.type("ada")
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.get_by_text("That is you.")).to_be_visible(timeout=BOUND_MS)
    await tab_to(ada, "Dismiss")
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.get_by_text("That is you.")).to_have_count(0)
    await expect(ada.text).to_be_focused()


async def test_an_edit_in_one_room_is_no_draft_of_another(visit: Visit) -> None:
    """What one was writing before an edit comes back in its own room, wherever one has been meanwhile."""
    ada = await visit("Ada")
    await ada.say("general words")
    await ada.make_room("Engine")
    await ada.say("engine words")
    await ada.text.fill("engine draft")
    await ada.act("engine words", "Edit")
    await ada.room("General").click()
    await ada.is_in("General")
    await expect(ada.text).to_have_value("")
    await ada.text.fill("general draft")
    await ada.act("general words", "Edit")
    await expect(ada.text).to_have_value("general words")
    await ada.room("Engine").click()
    await ada.is_in("Engine")
    await expect(ada.text).to_have_value("engine words")
    await ada.text.press("Escape")
    await expect(ada.text).to_have_value("engine draft")
    await ada.room("General").click()
    await ada.is_in("General")
    await ada.text.press("Escape")
    await expect(ada.text).to_have_value("general draft")


async def test_trying_again_keeps_the_focus_until_one_is_connected(visit: Visit, server: ServerProcess) -> None:
    """The button stays under the finger while the page connects; then the focus is where one writes."""
    async with Cable(server.port) as cable:
        ada = await visit("Ada", url=cable.url)
        ada.tolerated += CUT
        await cable.pull()
        await expect(ada.page.locator("#banner")).to_be_visible(timeout=BOUND_MS)
        await tab_to(ada, "Try now")
        for _ in range(3):
            await ada.page.keyboard.press("Enter")
            await expect(ada.page.locator("#banner")).to_contain_text("No connection", timeout=BOUND_MS)
            assert await focused(ada) == "Try now"
        cable.hold()
        await cable.plug()
        await ada.page.keyboard.press("Enter")
        await expect(ada.page.locator("#banner")).to_contain_text("Connecting", timeout=BOUND_MS)
        assert await focused(ada) == "Try now"
        cable.let_go()
        await expect(ada.page.locator("#banner")).to_be_hidden(timeout=BOUND_MS)
        await expect(ada.text).to_be_focused()
        await ada.verify()
        await ada.page.close()

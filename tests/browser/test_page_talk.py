"""Two people talk on the page: messages, history, presence, typing, unread marks, rooms."""

from __future__ import annotations

import time

import pytest
from playwright.async_api import expect
from visitor import BOUND_MS, Visit, fill

from live import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_one_says_both_see(visit: Visit) -> None:
    """A message appears once in both pages, grouped under its author, and is marked as sent."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("Good morning")
    await ada.say("Are you there?")
    await grace.sees("Are you there?")
    await grace.say("Yes")
    await ada.sees("Yes")
    assert await ada.words() == await grace.words() == ["Good morning", "Are you there?", "Yes"]
    await expect(ada.message("Good morning").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
    assert "own" in (await ada.message("Good morning").get_attribute("class") or "")
    assert "own" not in (await grace.message("Good morning").get_attribute("class") or "")
    assert await grace.page.locator("#timeline .author").all_inner_texts() == ["Ada"]
    assert await grace.page.locator("#timeline .day").count() == 1


async def test_history_is_there_after_a_reload(visit: Visit) -> None:
    """Reloading the page keeps who one is, where one is, and what was said."""
    ada = await visit("Ada")
    await ada.say("Remember this")
    await expect(ada.message("Remember this").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
    assert "user=ada" in ada.page.url
    await ada.page.reload()
    await ada.present()
    await ada.sees("Remember this")
    await expect(ada.page.locator("#me-name")).to_have_text("Ada")


async def test_two_tabs_can_be_two_people(visit: Visit) -> None:
    """A second tab of the same browser, opened by the link for it, asks for another name."""
    ada = await visit("Ada")
    async with ada.context.expect_page() as opened:
        await ada.page.get_by_role("link", name="Open another tab").click()
    second = await opened.value
    await second.locator("#start-name").fill("Grace")
    await second.locator("#start-go").click()
    await expect(second.locator("#me-name")).to_have_text("Grace", timeout=BOUND_MS)
    await second.locator("#composer-text").fill("Hello from the other tab")
    await second.locator("#composer-text").press("Enter")
    await ada.sees("Hello from the other tab")
    assert await ada.message("Hello from the other tab").get_attribute("aria-label") == "Grace"


async def test_a_name_in_the_address_is_enough(visit: Visit, server: object) -> None:
    """`?user=grace-hopper` comes in at once, under a name made of it."""
    grace = await visit()
    await grace.page.goto(f"{grace.url}/?user=grace-hopper")
    await grace.present()
    await expect(grace.page.locator("#me-name")).to_have_text("Grace Hopper")


async def test_presence_and_members_are_shown(visit: Visit) -> None:
    """Who comes is online in the list of members; who goes is not, and the count follows."""
    ada, grace = await visit("Ada"), await visit("Grace")
    about = ada.page.locator("#room-about")
    await expect(about).to_have_text("2 members, 2 online", timeout=BOUND_MS)
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    line = ada.page.locator(".member", has_text="Grace")
    await expect(line.get_by_role("img", name="online", exact=True)).to_be_visible(timeout=BOUND_MS)
    await grace.verify()
    await grace.page.close()
    await expect(line.get_by_role("img", name="offline")).to_be_visible(timeout=BOUND_MS)
    await expect(about).to_have_text("2 members, 1 online", timeout=BOUND_MS)


async def test_who_types_is_shown_until_it_is_said(visit: Visit) -> None:
    """The line says who is typing; it goes away with the message, and when the words are taken back."""
    ada, grace = await visit("Ada"), await visit("Grace")
    typing = ada.page.locator("#typing")
    await grace.text.press_sequentially("Wait")
    await expect(typing).to_have_text("Grace is typing", timeout=BOUND_MS)
    await grace.text.press("Enter")
    await ada.sees("Wait")
    await expect(typing).to_have_text("", timeout=BOUND_MS)
    await grace.text.press_sequentially("N")
    await expect(typing).to_have_text("Grace is typing", timeout=BOUND_MS)
    await grace.text.fill("")
    await expect(typing).to_have_text("", timeout=BOUND_MS)


async def test_typing_is_told_now_and_then_not_with_each_key(visit: Visit) -> None:
    """Twenty keys in a row send `typing` once; the clock stands, for a machine may be slow to type."""
    ada = await visit()
    sent: list[str] = []
    ada.page.on("websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(str(payload))))
    await ada.enter("Ada")
    await ada.page.clock.set_fixed_time(time.time())
    await ada.text.press_sequentially("abcdefghijklmnopqrst")
    await ada.text.press("Enter")
    await ada.sees("abcdefghijklmnopqrst")
    frames = [frame for frame in sent if '"typing"' in frame]
    assert [('"on":true' in frame) for frame in frames] == [True, False]


async def test_the_other_room_counts_what_is_unread(visit: Visit) -> None:
    """A message in another room is counted in the list and in the title, and reading it takes the count away."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.make_room("Engine")
    await ada.page.get_by_role("button", name="Invite somebody").click()
    await ada.page.get_by_role("dialog").get_by_label("Who?").fill("grace")
    await ada.page.get_by_role("dialog").get_by_role("button", name="Invite", exact=True).click()
    await expect(grace.room("Engine")).to_be_visible(timeout=BOUND_MS)
    await ada.say("First")
    await ada.say("Second")
    await expect(grace.room("Engine").locator(".badge")).to_have_text("2 unread", timeout=BOUND_MS)
    await expect(grace.page).to_have_title("(2) General · Hubbub", timeout=BOUND_MS)
    await grace.room("Engine").click()
    await grace.sees("Second")
    await expect(grace.page.locator(".new-line")).to_have_count(1, timeout=BOUND_MS)
    await expect(grace.page).to_have_title("Engine · Hubbub", timeout=BOUND_MS)
    await grace.room("General").click()
    await grace.is_in("General")
    await expect(grace.room("Engine").locator(".badge")).to_have_count(0, timeout=BOUND_MS)
    await grace.page.reload()
    await grace.present()
    await expect(grace.room("Engine")).to_be_visible(timeout=BOUND_MS)
    await expect(grace.room("Engine").locator(".badge")).to_have_count(0)


async def test_a_click_on_a_room_counts_though_its_line_changes_meanwhile(visit: Visit) -> None:
    """Messages arrive in this room and another between the button's going down and up: what was clicked opens."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.make_room("Engine")
    await ada.page.get_by_role("button", name="Invite somebody").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="Grace").click()
    await grace.room("Engine").locator(".room-label").hover()
    await grace.page.mouse.down()
    await ada.say("First")
    await expect(grace.room("Engine").locator(".badge")).to_have_text("1 unread", timeout=BOUND_MS)
    await ada.make_room("Workshop")
    await ada.page.get_by_role("button", name="Invite somebody").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="Grace").click()
    await expect(grace.room("Workshop")).to_be_visible(timeout=BOUND_MS)
    await grace.page.mouse.up()
    await grace.is_in("Engine")
    await grace.sees("First")


async def test_what_was_read_counts_as_read_however_soon_one_goes_on(visit: Visit, server: ServerProcess) -> None:
    """A room that one looks into for a moment, just after reading in another, is not unread afterwards."""
    ada = await visit("Ada")
    await ada.page.add_init_script("""
        const later = setTimeout; // the page tells once a second what was read; a second is over when the test says so
        globalThis.setTimeout = (call, ms, ...more) => later(call, ms === 1000 ? 1e6 : ms, ...more);
    """)
    await ada.make_room("Engine")
    engine = await ada.page.evaluate("decodeURIComponent(location.hash.slice(1))")
    await ada.room("General").click()
    await ada.is_in("General")
    await ada.page.reload()
    await ada.is_in("General")
    await fill(server, engine, 2)
    await expect(ada.room("Engine").locator(".badge")).to_have_text("2 unread", timeout=BOUND_MS)
    await fill(server, "general", 1)
    await ada.sees("line 00000")
    await ada.room("Engine").click()
    await ada.sees("line 00001")
    await ada.room("General").click()
    await ada.is_in("General")
    await expect(ada.room("Engine").locator(".badge")).to_have_count(0, timeout=BOUND_MS)


async def test_a_member_can_be_clicked_though_the_list_changes_meanwhile(visit: Visit) -> None:
    """Somebody joins between the button's going down and up, and while one is asked: what was clicked is done."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.make_room("Engine")
    await ada.page.get_by_role("button", name="Invite somebody").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="Grace").click()
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    remove = ada.page.get_by_role("button", name="Remove Grace")
    await expect(ada.page.locator("#room-about")).to_have_text("2 members, 2 online", timeout=BOUND_MS)
    await remove.hover()
    await ada.page.mouse.down()
    await grace.room("Engine").click()
    await grace.is_in("Engine")
    await grace.page.get_by_role("button", name="Invite somebody").click()
    await grace.page.get_by_role("dialog").get_by_label("Who?").fill("zoe")
    await grace.page.get_by_role("dialog").get_by_role("button", name="Invite", exact=True).click()
    await expect(ada.page.locator(".member", has_text="zoe")).to_be_visible(timeout=BOUND_MS)
    await ada.page.mouse.up()
    dialog = ada.page.get_by_role("dialog")
    await expect(dialog).to_be_visible(timeout=BOUND_MS)
    await grace.verify()
    await grace.page.close()
    await expect(ada.page.locator(".member", has_text="Grace").get_by_role("img", name="offline")).to_have_count(
        1, timeout=BOUND_MS
    )
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(remove).to_be_focused(timeout=BOUND_MS)


async def test_public_rooms_are_found_and_joined(visit: Visit) -> None:
    """A public room is in the list for all, a private one is not; joining says so in the room."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.make_room("Library")
    await ada.make_room("Cellar", private=True)
    await ada.room("Library").click()
    await ada.is_in("Library")
    await grace.page.get_by_role("button", name="Find public rooms").click()
    dialog = grace.page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Library")).to_be_visible(timeout=BOUND_MS)
    await expect(dialog.get_by_role("button", name="Cellar")).to_have_count(0)
    await dialog.get_by_role("button", name="Library").click()
    await grace.is_in("Library")
    await expect(ada.page.locator("#timeline .line", has_text="Grace joined")).to_be_visible(timeout=BOUND_MS)
    await grace.page.get_by_role("button", name="Leave the room").click()
    await grace.page.get_by_role("dialog").get_by_role("button", name="Leave").click()
    await grace.is_in("General")
    await expect(ada.page.locator("#timeline .line", has_text="Grace left")).to_be_visible(timeout=BOUND_MS)


async def test_a_direct_chat_is_called_like_the_other(visit: Visit) -> None:
    """Talking directly opens a room of two, named for each after the other, and marked unread for the one asked."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.page.get_by_role("button", name="Talk to somebody directly").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="Grace").click()
    await ada.is_in("Grace")
    await ada.say("Only for you")
    await expect(grace.room("Ada").locator(".badge")).to_have_text("1 unread", timeout=BOUND_MS)
    await grace.room("Ada").click()
    await grace.sees("Only for you")
    await expect(grace.page.locator("#room-about")).to_have_text("online", timeout=BOUND_MS)
    await expect(grace.page.get_by_role("button", name="Leave the room")).to_be_hidden()


async def test_who_is_removed_is_told(visit: Visit) -> None:
    """An owner removes somebody; that one's page says so and goes to another room."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.make_room("Engine")
    await ada.page.get_by_role("button", name="Invite somebody").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="Grace").click()
    await grace.room("Engine").click()
    await grace.is_in("Engine")
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await ada.page.get_by_role("button", name="Remove Grace").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await grace.is_in("General")
    await expect(grace.page.get_by_text("You are no longer in that room.")).to_be_visible(timeout=BOUND_MS)
    await expect(grace.room("Engine")).to_have_count(0)

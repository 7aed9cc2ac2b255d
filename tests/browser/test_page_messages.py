"""What can be done with a message: edit, delete, react, reply, and send again when it was refused."""

from __future__ import annotations

import pytest
from playwright.async_api import expect
from visitor import BOUND_MS, Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_edit_changes_the_message_for_both(visit: Visit) -> None:
    """The arrow up brings the last own message back; what is saved replaces it and says that it was edited."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("Teh engine")
    await grace.sees("Teh engine")
    await ada.arrived("Teh engine")  # Grace may see it before Ada is told
    await ada.text.press("ArrowUp")
    await expect(ada.text).to_have_value("Teh engine")
    await expect(ada.page.locator("#composer-context")).to_contain_text("Editing your message")
    await ada.say("The engine")
    await grace.sees("The engine")
    await grace.sees("Teh engine", times=0)
    await expect(grace.message("The engine").locator(".meta")).to_contain_text("edited", timeout=BOUND_MS)
    await expect(ada.text).to_have_value("")
    await ada.sees("The engine")
    await ada.text.press("ArrowUp")
    await expect(ada.text).to_have_value("The engine")
    await ada.text.press("Escape")
    await expect(ada.text).to_have_value("")
    await expect(ada.page.locator("#composer-context")).to_be_hidden()


async def test_a_deleted_message_leaves_only_its_place(visit: Visit) -> None:
    """After a question whether one is sure, the words are gone for both, also from history."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("A secret")
    await grace.sees("A secret")
    await ada.act("A secret", "Delete")
    await ada.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await ada.sees("A secret")
    await ada.act("A secret", "Delete")
    await ada.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await grace.sees("This message was deleted")
    await ada.sees("This message was deleted")
    await grace.page.reload()
    await grace.present()
    await grace.sees("This message was deleted")
    assert "A secret" not in await grace.page.content()


async def test_somebody_elses_message_can_be_neither_edited_nor_deleted(visit: Visit) -> None:
    """A member is offered to react and to reply, and no more."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("Mine")
    message = await grace.point("Mine")
    await expect(message.get_by_role("button", name="Reply", exact=True)).to_be_visible()
    await expect(message.get_by_role("button", name="Edit", exact=True)).to_be_hidden()
    await expect(message.get_by_role("button", name="Delete", exact=True)).to_be_hidden()


async def test_reactions_are_counted_and_toggle(visit: Visit) -> None:
    """Two hearts are one chip with a 2, highlighted for those whose it is; another click takes one's own back."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("It works")
    await grace.react("It works", "heart")
    chip = ada.message("It works").locator(".chip")
    await expect(chip).to_have_attribute("aria-pressed", "false", timeout=BOUND_MS)
    await expect(chip.locator(".count")).to_have_text("1")
    await chip.click()
    await expect(chip.locator(".count")).to_have_text("2", timeout=BOUND_MS)
    await expect(chip).to_have_attribute("aria-pressed", "true")
    theirs = grace.message("It works").locator(".chip")
    await expect(theirs.locator(".count")).to_have_text("2", timeout=BOUND_MS)
    await expect(theirs).to_have_attribute("aria-label", "heart, 2: you and Ada")
    await chip.click()
    await expect(theirs.locator(".count")).to_have_text("1", timeout=BOUND_MS)
    await theirs.click()
    await expect(chip).to_have_count(0, timeout=BOUND_MS)


async def test_a_choice_stays_open_though_the_message_changes_meanwhile(visit: Visit) -> None:
    """Somebody else reacts while one is choosing a reaction: the choice is still there, and the focus in it."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("It works")
    await ada.act("It works", "React")
    choices = ada.page.get_by_role("group", name="React with")
    await expect(choices).to_be_visible(timeout=BOUND_MS)
    await ada.page.keyboard.press("ArrowRight")
    await grace.react("It works", "party")
    await expect(ada.message("It works").locator(".chip")).to_be_visible(timeout=BOUND_MS)
    await expect(choices.get_by_role("button", name="heart")).to_be_focused()
    await ada.page.keyboard.press("Enter")
    await expect(ada.message("It works").locator(".chip")).to_have_count(2, timeout=BOUND_MS)


async def test_a_reply_quotes_and_leads_to_what_it_answers(visit: Visit) -> None:
    """A reply shows whom and what it answers; the quote brings that message into view and gives it the focus."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("Which one?")
    await grace.sees("Which one?")
    for number in range(30):
        await ada.say(f"filler {number}")
    await grace.sees("filler 29")
    await grace.act("Which one?", "Reply")
    await expect(grace.page.locator("#composer-context")).to_contain_text("Replying to Ada")
    await grace.say("The left one")
    await ada.sees("The left one")
    quote = ada.message("The left one").locator(".quote")
    await expect(quote).to_contain_text("Which one?")
    await expect(quote).to_contain_text("You")
    await quote.click()
    await expect(ada.message("Which one?").first).to_be_in_viewport(timeout=BOUND_MS)
    await expect(ada.message("Which one?").first).to_be_focused()


async def test_a_refused_message_can_be_sent_again_or_discarded(visit: Visit) -> None:
    """A message that the server refuses stays, says why, and offers all ways on."""
    ada = await visit("Ada")
    await ada.say("x" * 20_000)
    failed = ada.page.locator(".message.failed")
    await expect(failed).to_have_count(1, timeout=BOUND_MS)
    await expect(failed).to_contain_text("A text has at most")
    await failed.get_by_role("button", name="Try again").click()
    await expect(failed).to_contain_text("A text has at most", timeout=BOUND_MS)
    await failed.get_by_role("button", name="Change").click()
    await expect(ada.messages).to_have_count(0)
    await expect(ada.text).to_be_focused()
    await expect(ada.text).to_have_value("x" * 20_000)
    await ada.text.press("Enter")
    await expect(failed).to_contain_text("A text has at most", timeout=BOUND_MS)
    await failed.get_by_role("button", name="Discard").click()
    await expect(ada.messages).to_have_count(0)
    await ada.say("the question")
    await ada.act("the question", "Reply")
    await ada.say("y" * 20_000)
    await failed.get_by_role("button", name="Change").click()
    await expect(ada.page.locator("#composer-context")).to_contain_text("the question")
    await ada.say("short")
    await expect(ada.message("short").locator(".quote")).to_contain_text("the question", timeout=BOUND_MS)


async def test_links_code_and_lines_are_shown_as_such(visit: Visit) -> None:
    """Addresses become links that tell the other side nothing; code is code; lines stay lines."""
    ada = await visit("Ada")
    await ada.say("See (https://example.org/a_(b)), or javascript:alert(1) and `<b>`\nsecond line")
    message = ada.message("second line")
    link = message.locator("a")
    await expect(link).to_have_count(1, timeout=BOUND_MS)
    assert await link.get_attribute("href") == "https://example.org/a_(b)"
    assert set((await link.get_attribute("rel") or "").split()) >= {"noopener", "noreferrer"}
    assert await message.locator("code").inner_text() == "<b>"
    assert "\nsecond line" in await message.locator(".text").inner_text()

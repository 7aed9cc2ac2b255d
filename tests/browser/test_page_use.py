"""The page for everybody: on a phone, in the dark, by keyboard alone, and for those who hear it."""

from __future__ import annotations

import pytest
from looks import FAINT, NAMELESS
from playwright.async_api import expect
from visitor import BOUND_MS, Visit, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


async def converse(ada: Visitor, grace: Visitor) -> None:
    """A conversation with something of everything in it."""
    await ada.say("Good morning! The engine is oiled and the cards are punched.")
    await ada.say("Notes are at https://example.org/notes, start it with `make run`.")
    await grace.sees("Notes are at")
    await grace.say("Morning, Ada. I found a moth in the relay.")
    await ada.sees("I found a moth")
    await ada.react("I found a moth", "party")
    # A chip that comes moves what is above it, and what one points at: each waits until all stands still.
    await expect(grace.message("I found a moth").locator(".chip")).to_have_count(1, timeout=BOUND_MS)
    await grace.react("I found a moth", "tears of joy")
    await expect(ada.message("I found a moth").locator(".chip")).to_have_count(2, timeout=BOUND_MS)
    await ada.act("I found a moth", "Reply")
    await ada.say("Please glue it into the logbook!")
    await grace.sees("Please glue it")
    await grace.say("```\nfor card in cards:\n    punch(card)\n```")
    await grace.say("Oops, wrong window")
    await grace.act("Oops, wrong window", "Delete")
    await grace.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await ada.sees("This message was deleted")
    await grace.say("The first program runs.")
    await ada.sees("The first program runs.")
    await grace.text.press_sequentially("And the")
    await expect(ada.page.locator("#typing")).to_have_text("Grace Hopper is typing", timeout=BOUND_MS)


async def test_on_a_phone_nothing_is_wider_than_the_page(visit: Visit) -> None:
    """At 360 pixels nothing scrolls sideways, long words break, and the rooms are a drawer that opens and closes."""
    ada, grace = await visit("Ada Lovelace", **PHONE), await visit("Grace Hopper")
    await grace.say("W" * 300)
    await grace.say("`" + "x" * 300 + "`")
    await grace.say("```\n" + "y" * 300 + "\n```")
    await ada.sees("WWW")
    await ada.sees("yyy")
    await grace.react("WWW", "heart")
    await expect(ada.page.locator(".chip")).to_be_visible(timeout=BOUND_MS)
    assert await ada.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await ada.page.evaluate("document.querySelector('#scroller').scrollWidth") <= 360
    wide = "[...document.querySelectorAll('#room *')].filter((e) => e.checkVisibility() && !e.closest('pre, .unseen')"
    assert await ada.page.evaluate(f"{wide} && e.getBoundingClientRect().right > 360.5).map((e) => e.outerHTML)") == []
    await expect(ada.page.locator("#sidebar")).to_be_hidden()
    await ada.picture("phone")
    await ada.page.get_by_role("button", name="Rooms").click()
    await expect(ada.room("General")).to_be_in_viewport(timeout=BOUND_MS)
    await ada.picture("phone-drawer")
    await ada.page.keyboard.press("Escape")
    await expect(ada.page.locator("#sidebar")).to_be_hidden(timeout=BOUND_MS)
    await expect(ada.page.get_by_role("button", name="Rooms")).to_be_focused()
    await ada.page.get_by_role("button", name="Rooms").click()
    await ada.room("General").click()
    await expect(ada.page.locator("#sidebar")).to_be_hidden(timeout=BOUND_MS)
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member", has_text="Grace Hopper")).to_be_in_viewport(timeout=BOUND_MS)
    await ada.page.touchscreen.tap(20, 300)
    await expect(ada.page.locator("#members")).to_be_hidden(timeout=BOUND_MS)


async def test_a_conversation_on_a_phone(visit: Visit) -> None:
    """Everything a conversation has fits a phone: nothing is cut off at the right, and the newest is in view."""
    grace, ada = await visit("Grace Hopper", **PHONE), await visit("Ada Lovelace")
    await converse(ada, grace)
    await expect(grace.message("The first program runs.")).to_be_in_viewport(ratio=1, timeout=BOUND_MS)
    assert await grace.page.evaluate("document.querySelector('#scroller').scrollWidth") <= 360
    await grace.page.mouse.move(5, 5)
    await grace.picture("phone-conversation")


async def test_on_a_phone_a_tap_shows_what_can_be_done(visit: Visit) -> None:
    """Without a mouse a touched message offers its actions, all of them on the page."""
    ada = await visit("Ada", **PHONE)
    await ada.say("touch me")
    await ada.sees("touch me")
    await ada.message("touch me").locator(".bubble").tap()
    actions = ada.page.get_by_role("toolbar", name="Message actions")
    await expect(actions).to_be_visible(timeout=BOUND_MS)
    await actions.get_by_role("button", name="React").tap()
    heart = ada.page.get_by_role("button", name="heart")
    await expect(heart).to_be_in_viewport(ratio=1, timeout=BOUND_MS)
    await heart.tap()
    await expect(ada.page.locator(".chip")).to_be_visible(timeout=BOUND_MS)


async def test_light_and_dark_are_the_systems_until_one_chooses(visit: Visit) -> None:
    """The page follows the system's colours; the button turns them over, and the choice lasts."""
    ada = await visit("Ada", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = await ada.page.evaluate(ground)
    await ada.page.emulate_media(color_scheme="light")
    light = await ada.page.evaluate(ground)
    assert dark != light
    await ada.page.get_by_role("button", name="Use dark colours").click()
    await ada.becomes(ground, dark)
    await ada.page.reload()
    await ada.present()
    assert await ada.page.evaluate(ground) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read_and_every_control_has_a_name(visit: Visit, scheme: str) -> None:
    """In both colours each text has a contrast of at least 4.5 to 1, and each control a name."""
    ada = await visit(color_scheme=scheme)
    await ada.page.goto(ada.url)
    await expect(ada.page.locator("#start-name")).to_be_visible(timeout=BOUND_MS)
    await ada.picture(f"start-{scheme}")
    assert await ada.page.evaluate(NAMELESS) == []
    assert await ada.page.evaluate(FAINT) == []
    await ada.enter("Ada Lovelace")
    grace = await visit("Grace Hopper")
    await converse(ada, grace)
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member")).to_have_count(2, timeout=BOUND_MS)
    await ada.point("I found a moth")
    await ada.picture(f"desktop-{scheme}")
    assert await ada.page.evaluate(NAMELESS) == []
    assert await ada.page.evaluate(FAINT) == []
    for button in ("Make a room", "Find public rooms", "Talk to somebody directly"):
        await ada.page.get_by_role("button", name=button).click()
        await expect(ada.page.get_by_role("dialog")).to_be_visible(timeout=BOUND_MS)
        assert await ada.page.evaluate(NAMELESS) == []
        assert await ada.page.evaluate(FAINT) == []
        await ada.picture(f"dialog-{button.split()[0].lower()}-{scheme}")
        await ada.page.keyboard.press("Escape")
        await expect(ada.page.get_by_role("dialog")).to_have_count(0, timeout=BOUND_MS)
        await expect(ada.page.get_by_role("button", name=button)).to_be_focused()


async def test_the_page_says_what_its_parts_are(visit: Visit) -> None:
    """There are landmarks with names, one main heading, and the messages are a log that is read out politely."""
    ada = await visit("Ada")
    for role, name in (("navigation", "Rooms"), ("main", "General"), ("log", "General")):
        await expect(ada.page.get_by_role(role, name=name, exact=True)).to_be_visible()  # type: ignore[arg-type]
    await expect(ada.page.get_by_role("main")).to_have_count(1)
    await expect(ada.page.get_by_role("heading", level=1)).to_have_count(1)
    await expect(ada.page.get_by_role("textbox", name="Message General")).to_be_visible()
    log = ada.page.get_by_role("log")
    await ada.say("read this out")
    await ada.sees("read this out")
    assert await log.get_attribute("aria-live") == "polite"
    await expect(log.get_by_role("article", name="You")).to_be_visible()
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.get_by_role("complementary", name="1 member")).to_be_visible(timeout=BOUND_MS)
    assert await ada.page.evaluate("document.documentElement.lang") == "en"
    await expect(ada.page.get_by_role("link", name="General")).to_have_attribute("aria-current", "page")


async def focused(person: Visitor) -> str:
    """The name of what has the focus."""
    script = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"
    name: str = await person.page.evaluate(script)
    return name


async def test_a_whole_conversation_by_keyboard(visit: Visit) -> None:
    """Coming in, writing, reacting, replying, editing, deleting and changing the room need no mouse."""
    grace = await visit("Grace")
    await grace.say("Can you do this?")
    ada = await visit()
    keys = ada.page.keyboard
    await ada.page.goto(ada.url)
    await expect(ada.page.locator("#start-name")).to_be_focused(timeout=BOUND_MS)
    await keys.type("Ada")
    await keys.press("Enter")
    await ada.present()
    await expect(ada.text).to_be_focused(timeout=BOUND_MS)
    await keys.type("Yes, ")
    await keys.press("Shift+Enter")
    await keys.type("all of it")
    await keys.press("Enter")
    await grace.sees("Yes, \nall of it")
    await ada.arrived("Yes, \nall of it")
    # Back with Shift and Tab into the messages; the arrows go from one to the other.
    await keys.press("Shift+Tab")
    assert await focused(ada) == "You"
    await keys.press("ArrowUp")
    assert await focused(ada) == "Grace"
    await keys.press("Tab")
    assert await focused(ada) == "React"
    await keys.press("Enter")
    assert await focused(ada) == "thumbs up"
    await keys.press("ArrowRight")
    assert await focused(ada) == "heart"
    await keys.press("Enter")
    await expect(grace.message("Can you do this?").locator(".chip")).to_be_visible(timeout=BOUND_MS)
    await keys.press("r")
    await expect(ada.text).to_be_focused()
    await keys.type("See?")
    await keys.press("Enter")
    await expect(grace.message("See?").locator(".quote")).to_contain_text("Can you do this?", timeout=BOUND_MS)
    await ada.arrived("See?")  # Grace may see it before Ada is told
    await keys.press("ArrowUp")
    await keys.type(" Done.")
    await keys.press("Enter")
    await grace.sees("See? Done.")
    await keys.press("Shift+Tab")
    await keys.press("Delete")
    await expect(ada.page.get_by_role("dialog")).to_be_visible(timeout=BOUND_MS)
    await keys.press("Enter")
    await grace.sees("This message was deleted")
    await expect(ada.text).to_be_focused(timeout=BOUND_MS)
    # The skip link is the first stop, the rooms follow.
    await ada.page.evaluate("document.activeElement.blur()")
    await ada.page.locator("#app").evaluate(
        "(app) => { app.tabIndex = -1; app.focus(); app.removeAttribute('tabindex'); }"
    )
    await keys.press("Tab")
    await expect(ada.page.locator(".skip")).to_be_focused()
    await expect(ada.page.locator(".skip")).to_be_in_viewport()
    await keys.press("Enter")
    await expect(ada.text).to_be_focused()


async def test_the_focus_can_be_seen(visit: Visit) -> None:
    """Every control that Tab reaches shows a ring."""
    ada = await visit("Ada")
    await ada.say("hello")
    await ada.sees("hello")
    ring = """
        () => {
          const node = document.activeElement;
          const ring = (one) => {
            const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(one);
            return (outlineStyle !== "none" && parseFloat(outlineWidth) >= 2) || boxShadow !== "none";
          };
          return [node.outerHTML.slice(0, 100), ring(node) || ring(node.closest(".composer") ?? node)];
        }
    """
    seen: list[str] = []
    for _ in range(20):
        await ada.page.keyboard.press("Tab")
        words, visible = await ada.page.evaluate(ring)
        if not words.startswith("<body"):
            assert visible, words
            seen.append(words)
    assert len(set(seen)) > 10


async def test_who_wants_less_motion_gets_none(visit: Visit) -> None:
    """With `prefers-reduced-motion` nothing on the page is animated."""
    ada, grace = await visit("Ada", reduced_motion="reduce"), await visit("Grace")
    await grace.text.press_sequentially("Hm")
    await expect(ada.page.locator("#typing .dots")).to_be_visible(timeout=BOUND_MS)
    assert await ada.page.evaluate("document.getAnimations().length") == 0

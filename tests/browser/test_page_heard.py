"""The page for those who hear it: what each control is and is called, and what is read out without being asked for."""

from __future__ import annotations

import pytest
from cable import CUT, Cable
from playwright.async_api import expect
from visitor import BOUND_MS, Visit, Visitor, fill

from live import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What a screen reader would read out by itself: what is added to a live region, or changes in one (WAI-ARIA 1.2, 6.6).
LISTEN = """
window.heard = [];
const roles = { log: "polite", status: "polite", alert: "assertive" };
function region(node) {
  for (let at = node instanceof Element ? node : node.parentElement; at !== null; at = at.parentElement) {
    const live = at.getAttribute("aria-live") ?? roles[at.getAttribute("role")];
    if (live !== undefined) return live === "off" ? null : at;
  }
  return null;
}
new MutationObserver((changes) => {
  for (const { type, target, addedNodes } of changes) {
    for (const node of type === "characterData" ? [target] : addedNodes) {
      const box = node instanceof Element ? node : node.parentElement;
      if (!box?.checkVisibility() || box.closest("[aria-hidden=true]") || region(node) === null) continue;
      if (type === "characterData" && region(node).getAttribute("role") === "log") continue;
      const words = (node.innerText ?? node.textContent).replace(/\\s+/gu, " ").trim();
      if (words !== "") window.heard.push(words);
    }
  }
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


async def listener(visit: Visit, name: str, **options: str) -> Visitor:
    """Somebody whose screen reader writes down what it reads out."""
    person = await visit(**options)
    await person.context.add_init_script(LISTEN)
    await person.enter(name)
    return person


async def heard(person: Visitor) -> list[str]:
    """What has been read out since this was asked last."""
    await person.page.evaluate("new Promise((go) => requestAnimationFrame(() => setTimeout(go)))")
    words: list[str] = await person.page.evaluate("window.heard.splice(0)")
    return words


async def test_each_message_of_others_is_read_out_once(visit: Visit) -> None:
    """Not when the next one joins its group, nor when it is edited, reacted to, pointed at or focused."""
    ada, grace = await listener(visit, "Ada"), await visit("Grace")
    await expect(ada.page.locator("#room-about")).to_have_text("2 members, 2 online", timeout=BOUND_MS)
    await heard(ada)
    for number in (1, 2, 3):
        await grace.say(f"message {number}")
        await ada.sees(f"message {number}")
    spoken = await heard(ada)
    assert [words.rsplit(" ", 1)[0].removeprefix("G ").removeprefix("Grace ") for words in spoken] == [
        "message 1",
        "message 2",
        "message 3",
    ]
    await grace.react("message 2", "heart")
    await expect(ada.page.locator(".chip")).to_be_visible(timeout=BOUND_MS)
    await grace.arrived("message 3")
    await grace.text.press("ArrowUp")
    await grace.say("message 3, mended")
    await ada.sees("message 3, mended")
    for number in (1, 2, 3):
        await ada.point(f"message {number}")
    await ada.page.mouse.move(5, 5)
    await ada.message("message 1").focus()
    await ada.page.keyboard.press("ArrowDown")
    await ada.text.focus()
    assert await heard(ada) == []


async def test_what_one_says_oneself_is_not_read_out(visit: Visit) -> None:
    """Neither when it is sent, nor when it has arrived, nor what others do with it; nor who is typing."""
    ada, grace = await listener(visit, "Ada"), await visit("Grace")
    await expect(ada.page.locator("#room-about")).to_have_text("2 members, 2 online", timeout=BOUND_MS)
    await heard(ada)
    await ada.say("my words")
    await expect(ada.message("my words").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
    await grace.react("my words", "heart")
    await expect(ada.page.locator(".chip")).to_be_visible(timeout=BOUND_MS)
    await grace.text.press_sequentially("hm")
    await expect(ada.page.locator("#typing")).to_have_text("Grace is typing", timeout=BOUND_MS)
    assert await heard(ada) == []


async def test_history_is_not_read_out(visit: Visit, server: ServerProcess) -> None:
    """Neither a room that is opened, nor what scrolling brings."""
    await fill(server, "general", 200)
    ada = await listener(visit, "Ada")
    await ada.sees("line 00199")
    scroller = ada.page.locator("#scroller")
    for _ in range(2):
        count = await ada.messages.count()
        await scroller.evaluate("(s) => { s.scrollTop = 0; }")
        await expect(ada.messages).not_to_have_count(count, timeout=BOUND_MS)
    assert [words for words in await heard(ada) if "line" in words] == []


async def test_the_loss_of_the_connection_is_read_out_once(visit: Visit, server: ServerProcess) -> None:
    """However often the page tries again, and without the seconds that are counted."""
    async with Cable(server.port) as cable:
        ada = await listener(visit, "Ada", url=cable.url)
        ada.tolerated += CUT
        await heard(ada)
        await ada.page.evaluate("""
            const later = setTimeout; // of a try that takes long the page has words as well, and a machine may be slow
            globalThis.setTimeout = (call, ms, ...more) => later(call, ms === 700 ? 1e6 : ms, ...more);
            window.tries = 0;
            new MutationObserver(() => { window.tries += 1; })
              .observe(document.querySelector("#me-state"), { childList: true });
        """)
        await cable.pull()
        await ada.becomes("window.tries >= 8")
        spoken = await heard(ada)
        assert [words for words in spoken if "No connection" in words] == [
            "No connection. What you write is sent when it is back."
        ]
        assert set(spoken) == {"No connection. What you write is sent when it is back.", "Try now"}
        assert len(spoken) == 2
        await cable.plug()
        await expect(ada.page.locator("#banner")).to_be_hidden(timeout=BOUND_MS)
        await ada.verify()
        await ada.page.close()


async def test_the_same_notice_is_read_out_once(visit: Visit) -> None:
    """What goes wrong again and again is said once, while it can still be read."""
    ada = await listener(visit, "Ada")
    await heard(ada)
    for _ in range(4):
        await ada.page.get_by_role("button", name="Talk to somebody directly").click()
        await ada.page.get_by_role("dialog").get_by_label("Who?").fill("ada")
        await ada.page.get_by_role("dialog").get_by_role("button", name="Talk").click()
    await expect(ada.page.get_by_text("That is you.")).to_have_count(1)
    assert [words for words in await heard(ada) if "That is you" in words] == ["That is you."]


async def test_every_part_of_the_page_says_what_it_is(visit: Visit) -> None:
    """The accessibility tree has each region, list and control, with its role, its name and its state."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await ada.say("hello")
    await grace.sees("hello")
    await grace.react("hello", "heart")
    await grace.act("hello", "Reply")
    await grace.say("hello back")
    await ada.sees("hello back")
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member")).to_have_count(2, timeout=BOUND_MS)
    await ada.point("hello back")
    await expect(ada.page.locator("#app")).to_match_aria_snapshot("""
        - link "Skip to writing"
        - navigation "Rooms":
          - button "Use dark colours"
          - region "Rooms":
            - heading "Rooms" [level=2]
            - button "Find public rooms"
            - button "Make a room"
            - list:
              - listitem:
                - link "General"
          - region "Direct chats":
            - heading "Direct chats" [level=2]
            - button "Talk to somebody directly"
            - list:
              - listitem: Nobody yet.
          - link "Open another tab and be somebody else"
          - button "Sign out"
        - main "General":
          - heading "General" [level=1]
          - button "Invite somebody"
          - button "Members" [expanded]
          - button "Leave the room"
          - log "General":
            - article "You":
              - img "Sent"
              - list "Reactions":
                - listitem:
                  - 'button "heart, 1: Grace"'
            - article "Grace":
              - button "In reply to You hello"
              - toolbar "Message actions":
                - button "React"
                - button "Reply"
          - textbox "Message General"
          - button "Send"
        - complementary "2 members":
          - heading "2 members" [level=2]
          - button "Close the list of members"
          - list:
            - listitem:
              - img "online"
            - listitem:
              - img "online"
              - button "Talk to Grace directly"
    """)


async def test_every_control_has_a_role_and_a_name(visit: Visit) -> None:
    """In the browser's own tree nothing that takes the focus is nameless or of no kind, in any part of the page."""
    ada, grace = await visit("Ada"), await visit("Grace")
    await grace.say("see https://example.org/ and `code`")
    await ada.sees("see https")
    await ada.act("see https", "React")
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    for opener in (None, "Make a room", "Find public rooms", "Invite somebody", "Leave the room"):
        if opener is not None:
            await ada.page.get_by_role("button", name=opener).click()
            await expect(ada.page.get_by_role("dialog")).to_be_visible(timeout=BOUND_MS)
        tree = await (await ada.context.new_cdp_session(ada.page)).send("Accessibility.getFullAXTree")
        controls = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in tree["nodes"]
            if not node.get("ignored")
            and any(prop["name"] == "focusable" and prop["value"]["value"] for prop in node.get("properties", []))
        ]
        assert len(controls) > 3
        plain = {"RootWebArea", "generic"}  # the document, and the box that scrolls
        assert [control for control in controls if control[0] not in plain and not control[1].strip()] == []
        allowed = {"button", "link", "textbox", "searchbox", "radio", "article", "toolbar", "dialog", "log", "main"}
        assert {role for role, _ in controls} <= allowed | plain
        if opener is not None:
            await ada.page.keyboard.press("Escape")
            await expect(ada.page.get_by_role("dialog")).to_have_count(0)

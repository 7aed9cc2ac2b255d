"""What people write stays text: no markup, no script, no trick with the direction of text, nothing the policy stops."""

from __future__ import annotations

import pytest
from playwright.async_api import expect
from visitor import BOUND_MS, Visit

from live import ServerProcess, Wire, token

pytestmark = pytest.mark.asyncio(loop_scope="session")

ATTACKS = (
    "<script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    '"><svg onload="window.attacked = 1">',
    "<a href=\"javascript:window.attacked = 1\">click</a>",
    "javascript:window.attacked=1",
    "https://example.org/\"onmouseover=\"window.attacked=1",
    "`<iframe srcdoc='<script>parent.attacked = 1</script>'>`",
    "```\n<style>body { display: none }</style>\n```",
    "{{constructor.constructor('window.attacked = 1')()}}",
    "\u202egnirts desrever\u202c and \u2066isolated",
    "&lt;b&gt;&amp;",
    "</div></main><h1>outside</h1>",
)  # fmt: skip
NAME = "<img src=x onerror='window.attacked = 1'>\u202eevE"


async def test_what_people_write_stays_text(visit: Visit) -> None:
    """Names, texts, replies, edits, reactions, room names and typing lines show what was written, as it was written."""
    eve, ada = await visit(NAME), await visit("Ada")
    await expect(eve.page.locator("#me-name")).to_have_text(NAME)
    for text in ATTACKS:
        await eve.say(text)
    await ada.sees("</div></main><h1>outside</h1>")
    shown = [text.strip() for text in await ada.words()]
    assert shown == [text.strip("`\n") for text in ATTACKS]
    await eve.act("outside", "Reply")
    await eve.say("<b>reply</b>")
    await expect(ada.message("<b>reply</b>").locator(".quote-text")).to_have_text(ATTACKS[-1], timeout=BOUND_MS)
    await expect(ada.message("<b>reply</b>").locator(".quote-author")).to_have_text(NAME)
    await eve.text.press("ArrowUp")
    await eve.say("<i onclick='window.attacked = 1'>edited</i>")
    await ada.sees("<i onclick='window.attacked = 1'>edited</i>")
    await eve.text.press_sequentially("<b>")
    await expect(ada.page.locator("#typing")).to_have_text(f"{NAME} is typing", timeout=BOUND_MS)
    await eve.text.fill("")
    await eve.make_room("<script>window.attacked = 1</script>")
    await ada.page.get_by_role("button", name="Find public rooms").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="<script>").click()
    await ada.is_in("<script>window.attacked = 1</script>")
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member-name", has_text=NAME)).to_have_count(1, timeout=BOUND_MS)
    for person in (eve, ada):
        assert await person.page.evaluate("window.attacked") is None
        elements = "#app :is(script, iframe, style, object, embed), #app .text :not(a, code, pre)"
        assert await person.page.locator(elements).count() == 0
        attributes = "[...document.querySelectorAll('*')].flatMap((element) => element.getAttributeNames())"
        assert [name for name in await person.page.evaluate(attributes) if name.startswith("on")] == []
        addresses = await person.page.locator("#timeline a").evaluate_all("(all) => all.map((a) => a.protocol)")
        assert set(addresses) <= {"https:", "http:"}


async def test_data_reactions_and_pictures_from_elsewhere_stay_harmless(visit: Visit, server: ServerProcess) -> None:
    """Another client may send any JSON, any reaction and a picture's address that the policy forbids: it shows text."""
    ada = await visit("Ada")
    claims = {"name": "Mallory", "avatar": "http://elsewhere.example/track.png", "rooms": {"general": "member"}}
    async with await Wire.open(server.ws_url, token("mallory", **claims)) as mallory:
        await mallory.ok("sync")
        await mallory.ok("join", room="general")
        await mallory.ok("send", room="general", data={"html": "<script>window.attacked = 1</script>", "n": [1, None]})
        sent = await mallory.ok("send", room="general", text="look")
        await mallory.ok("react", room="general", target=sent["seq"], reaction="<img src=x onerror=alert(1)>")
        await mallory.ok("send", room="general", text="nothing", reply_to=sent["seq"] - 1)
    await expect(ada.page.locator(".data")).to_contain_text("<script>window.attacked = 1</script>", timeout=BOUND_MS)
    await expect(ada.message("look").locator(".chip .emoji")).to_have_text(
        "<img src=x onerror=alert(1)>", timeout=BOUND_MS
    )
    await ada.sees("nothing")
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member", has_text="Mallory")).to_be_visible(timeout=BOUND_MS)
    assert await ada.page.locator("img.avatar").count() == 0
    assert await ada.page.evaluate("window.attacked") is None


async def test_the_page_loads_nothing_from_elsewhere(visit: Visit, server: ServerProcess) -> None:
    """Every request of a visit goes to the server that gave the page."""
    ada = await visit()
    asked: list[str] = []
    ada.page.on("request", lambda request: asked.append(request.url))
    await ada.enter("Ada")
    await ada.say("hello")
    await ada.sees("hello")
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith(server.url)] == []

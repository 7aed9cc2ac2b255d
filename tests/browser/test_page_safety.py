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
    await eve.arrived("<b>reply</b>")
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


AVATARS = ("//elsewhere.example/track.png", "/\\elsewhere.example/track.png", "http://elsewhere.example/track.png")
"""What a server takes for a picture's address, and the page must not load."""


async def test_ids_and_pictures_stay_harmless(visit: Visit, server: ServerProcess) -> None:
    """A user id may be markup, and a picture's address anything: the id is shown as it is, the picture is left out."""
    ada = await visit("Ada")
    asked: list[str] = []
    ada.page.on("request", lambda request: asked.append(request.url))
    markup = "<img src=x onerror=window.attacked=1>"
    for number, avatar in enumerate(AVATARS):
        user = f"{markup}{number}"
        claims = {"avatar": avatar, "rooms": {"general": "member"}}
        async with await Wire.open(server.ws_url, token(user, **claims)) as mallory:
            await mallory.ok("sync")
            await mallory.ok("join", room="general")
            await mallory.ok("typing", room="general", on=True)
            await mallory.ok("send", room="general", text=f"I am {number}")
            if number == 0:
                direct = await mallory.ok("create", kind="direct", members=["ada"])
                await mallory.ok("send", room=direct["room"], text="psst")
        await ada.sees(f"I am {number}")
    await expect(ada.message("I am 0").locator(".author")).to_have_text(f"{markup}0")
    await expect(ada.page.locator("#directs .room-label")).to_have_text(f"{markup}0", timeout=BOUND_MS)
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member")).to_have_count(1 + len(AVATARS), timeout=BOUND_MS)
    await ada.page.get_by_role("button", name="Talk to somebody directly").click()
    await expect(ada.page.locator(".pick")).to_have_count(len(AVATARS), timeout=BOUND_MS)
    assert await ada.page.locator("img.avatar").count() == 0
    assert await ada.page.locator("#app img").count() == 1  # Hubbub's own
    assert await ada.page.evaluate("window.attacked") is None
    assert [url for url in asked if not url.startswith(server.url)] == []


async def test_a_picture_from_where_the_policy_allows_is_shown(visit: Visit, server: ServerProcess) -> None:
    """One's own server's picture is; one that cannot be loaded gives way to the initials."""
    ada = await visit("Ada")
    ada.tolerated.append("404 (Not Found)")
    for user, avatar in (("grace", "/web/icon.svg"), ("eve", "/web/nothing.png")):
        claims = {"name": user.title(), "avatar": avatar, "rooms": {"general": "member"}}
        async with await Wire.open(server.ws_url, token(user, **claims)) as other:
            await other.ok("sync")
            await other.ok("join", room="general")
            await other.ok("send", room="general", text=f"{user} says hello")
        await ada.sees(f"{user} says hello")
    await ada.page.get_by_role("button", name="Members", exact=True).click()
    await expect(ada.page.locator(".member")).to_have_count(3, timeout=BOUND_MS)
    grace, eve = (ada.page.locator(".member", has_text=name) for name in ("Grace", "Eve"))
    await expect(grace.locator("img.avatar")).to_have_attribute("src", "/web/icon.svg", timeout=BOUND_MS)
    await expect(eve.locator("span.avatar")).to_have_text("E", timeout=BOUND_MS)
    await expect(eve.locator("img")).to_have_count(0, timeout=BOUND_MS)
    await expect(ada.message("eve says").locator("span.avatar")).to_have_text("E", timeout=BOUND_MS)
    await expect(ada.message("eve says").locator("img")).to_have_count(0, timeout=BOUND_MS)


async def test_a_name_turns_nothing_but_itself_around(visit: Visit) -> None:
    """Marks that reverse the direction of text stay inside the name: in sentences, in the title, in notices."""
    turned = "\u202egnik\u2069\u202e"
    eve, ada = await visit(f"Eve{turned}"), await visit("Ada")
    line = ada.page.locator("#timeline .line", has_text="joined")
    await expect(line).to_be_visible(timeout=BOUND_MS)
    names = await line.locator("bdi").all_inner_texts()
    assert [name for name in names if "\u202e" in name] == [f"Eve{turned}"]
    outside = "(line) => [...line.querySelector('span').childNodes].filter((n) => n.nodeType === 3).map((n) => n.data)"
    assert [text for text in await line.evaluate(outside) if "\u202e" in text] == []
    await eve.make_room(f"Room{turned}")
    await expect(eve.page).to_have_title("Roomgnik \u00b7 Hubbub", timeout=BOUND_MS)
    await eve.page.get_by_role("button", name="Leave the room").click()
    words = await eve.page.get_by_role("dialog").locator("p").inner_text()
    assert words == "You will no longer get what is said in \u2068Roomgnik\u2069."


LINKS = {
    "https://example.org": "https://example.org/",
    "HTTPS://EXAMPLE.ORG/Path": "https://example.org/Path",
    "http://127.0.0.1:1/x?y=z&a=1#b": "http://127.0.0.1:1/x?y=z&a=1#b",
    "https://user:secret@example.org/": "https://user:secret@example.org/",
}
NO_LINKS = (
    "javascript:window.attacked=1", "data:text/html,<script>window.attacked=1</script>", "vbscript:x", "file:///etc/passwd",
    "ftp://example.org", "https://", "http://[", "//example.org/x", "java\nscript:x", "https:/\\example.org",
)  # fmt: skip


async def test_only_addresses_of_the_web_become_links(visit: Visit) -> None:
    """A link shows the whole address it leads to; everything else stays text, and marks of direction end a link."""
    ada = await visit("Ada")
    for shown, href in LINKS.items():
        await ada.say(f"see {shown} there")
        link = ada.message(f"see {shown} there").locator("a")
        await expect(link).to_have_text(shown, timeout=BOUND_MS)
        assert await link.get_attribute("href") == href
    for text in NO_LINKS:
        await ada.say(f"see {text} there")
    await ada.say("https://example.org/\u202egpj.exe")
    await expect(ada.messages).to_have_count(len(LINKS) + len(NO_LINKS) + 1, timeout=BOUND_MS)
    links = await ada.page.locator("#timeline a").evaluate_all("(all) => all.map((a) => a.getAttribute('href'))")
    assert links == [*LINKS.values(), "https://example.org/"]


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

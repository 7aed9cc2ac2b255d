"""The page is cut off and comes back: nothing is lost, nothing is there twice, and one is told what happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from cable import CUT, Cable
from playwright.async_api import expect
from visitor import BOUND_MS, Visit

from live import ServerProcess, Wire, backend, token

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_who_is_cut_off_comes_back_without_loss_or_doubles(visit: Visit, server: ServerProcess) -> None:
    """What others wrote meanwhile, and what one wrote oneself, is there once and in order in both pages."""
    async with Cable(server.port) as cable:
        ada, grace = await visit("Ada", url=cable.url), await visit("Grace")
        ada.tolerated += CUT
        await ada.say("before")
        await grace.sees("before")
        pending = ada.page.locator(".message.pending")
        await expect(pending).to_have_count(0, timeout=BOUND_MS)  # Grace may see it before Ada is told
        await cable.pull()
        banner = ada.page.locator("#banner")
        await expect(banner).to_contain_text("No connection", timeout=BOUND_MS)
        await expect(banner).to_contain_text("Trying again", timeout=BOUND_MS)
        await expect(ada.page.locator("#me-state")).to_have_text("not connected")
        for number in range(20):
            await grace.say(f"meanwhile {number:02}")
        await ada.say("from the dark")
        await expect(pending).to_have_count(1, timeout=BOUND_MS)
        await ada.picture("cut-off")
        await grace.sees("meanwhile 19")
        cable.hold()  # else the page may be back by itself before the button is found
        await cable.plug()
        await banner.get_by_role("button", name="Try now").click()
        cable.let_go()
        await grace.sees("from the dark")
        await expect(banner).to_be_hidden(timeout=BOUND_MS)
        await ada.sees("meanwhile 19")
        await expect(pending).to_have_count(0, timeout=BOUND_MS)
        expected = ["before", *(f"meanwhile {number:02}" for number in range(20)), "from the dark"]
        assert await ada.words() == expected
        assert await grace.words() == expected
        await ada.verify()
        await ada.page.close()


async def test_many_short_cuts_lose_nothing(visit: Visit, server: ServerProcess) -> None:
    """Cut again and again while both write: both end with the same messages, each once."""
    async with Cable(server.port) as cable:
        ada, grace = await visit("Ada", url=cable.url), await visit("Grace")
        ada.tolerated += CUT
        for number in range(6):
            await ada.say(f"ada {number}")
            await grace.say(f"grace {number}")
            await cable.pull()
            await ada.say(f"ada {number}, cut off")
            await grace.say(f"grace {number}, alone")
            await cable.plug()
        for number in range(6):
            await grace.sees(f"ada {number}, cut off")
        await ada.sees("grace 5, alone")
        await expect(ada.page.locator(".message.pending")).to_have_count(0, timeout=BOUND_MS)
        words = await grace.words()
        assert sorted(words) == sorted(
            [f"{who} {number}{more}" for number in range(6) for who, more in
             (("ada", ""), ("grace", ""), ("ada", ", cut off"), ("grace", ", alone"))]
        )  # fmt: skip
        assert await ada.words() == words
        await ada.verify()
        await ada.page.close()


async def test_a_restarted_server_is_found_again(visit: Visit, server: ServerProcess) -> None:
    """After a crash of the server the page goes on where it was, on the same log."""
    async with Cable(server.port) as cable:
        ada = await visit("Ada", url=cable.url)
        ada.tolerated += CUT
        await ada.say("before the crash")
        await expect(ada.message("before the crash").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
        await cable.pull()
        await server.stop()
        await ada.say("while it was down")
        await server.start()
        cable.redirect(server.port)
        await cable.plug()
        await expect(ada.message("while it was down").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
        assert await ada.words() == ["before the crash", "while it was down"]
        await ada.verify()
        await ada.page.close()


async def test_who_may_not_come_back_is_told_why(visit: Visit, server: ServerProcess) -> None:
    """A banned user's page says that he has been removed, and does not try for ever."""
    ada = await visit("Ada")
    async with backend(server.url) as http:
        answer = await http.put("/v1/users/ada/ban", json={})
        assert answer.status_code < 300, answer.text
    await expect(ada.page.locator("#banner")).to_contain_text("You have been removed", timeout=BOUND_MS)
    await expect(ada.page.locator("#banner").get_by_role("button", name="Start again")).to_be_visible()


async def test_without_development_tokens_the_page_asks_for_one(visit: Visit, tmp_path: Path) -> None:
    """A server that gives no tokens away says so at the door, and the page opens the field for one."""
    folder = tmp_path / "strict"
    folder.mkdir()
    strict = ServerProcess(folder, "--path", "/talk")  # and the page finds the WebSocket wherever it is
    try:
        await strict.start()
        ada = await visit(url=strict.url)
        ada.tolerated.append("404 (Not Found)")
        await ada.page.goto(ada.url)
        await ada.page.locator("#start-go").click()
        await expect(ada.page.locator("#start-problem")).to_contain_text("gives no tokens away", timeout=BOUND_MS)
        await expect(ada.page.locator("#start-token")).to_be_focused()
        await ada.page.locator("#start-token").fill(token("ada", rooms={"notes": "reader"}))
        await ada.page.locator("#start-go").click()
        await expect(ada.page.locator("#room-name")).to_have_text("notes", timeout=BOUND_MS)
        await expect(ada.text).to_be_disabled()
        await expect(ada.text).to_have_attribute("placeholder", "You can read here, but not write")
        await ada.verify()
        await ada.page.close()
    finally:
        await strict.stop()


async def test_a_token_of_the_backend_opens_the_page(visit: Visit, server: ServerProcess) -> None:
    """A pasted token is enough, stays in the tab, and decides who one is; an expired one is refused with words."""
    ada = await visit()
    await ada.page.goto(ada.url)
    await ada.page.get_by_text("I have a token").click()
    await ada.page.locator("#start-token").fill(token("ada", ttl_s=-100))
    await ada.page.locator("#start-go").click()
    await expect(ada.page.locator("#start-problem")).to_have_text("This token has expired.", timeout=BOUND_MS)
    await ada.page.locator("#start-token").fill(token("ada", name="Ada L.", rooms={"notes": "owner"}))
    await ada.page.locator("#start-go").click()
    await ada.is_in("notes")
    await expect(ada.page.locator("#me-name")).to_have_text("Ada L.")
    assert await ada.page.evaluate("localStorage.length") == 0
    async with await Wire.open(server.ws_url, token("bob", rooms={"notes": "member"})) as bob:
        await bob.ok("sync")
        await bob.ok("send", room="notes", text="hello")
    await ada.sees("hello")

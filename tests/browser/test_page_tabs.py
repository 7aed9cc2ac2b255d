"""Several tabs of one browser, and a tab that lives long: names, reloads, sleep, tokens that run out, restarts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cable import CUT, Cable
from playwright.async_api import Page, Route, expect
from visitor import BOUND_MS, Visit, Visitor

from live import ServerProcess, token, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def another_tab(person: Visitor, url: str) -> Page:
    """Another tab of the same browser at this address."""
    tab = await person.context.new_page()
    await tab.goto(url)
    return tab


async def come_in(tab: Page) -> str:
    """Come in under the name that is suggested; returns what one is called then."""
    await tab.locator("#start-go").click()
    await expect(tab.locator("#me-state")).to_have_text("online", timeout=BOUND_MS)
    await expect(tab.locator("#me-name")).not_to_be_empty(timeout=BOUND_MS)
    return await tab.locator("#me-name").inner_text()


async def test_the_same_address_twice_is_two_people(visit: Visit) -> None:
    """Who opens the address twice and takes what is suggested is two people, who talk."""
    ada = await visit()
    await ada.page.goto(ada.url)
    first = await come_in(ada.page)
    for address in (ada.url, ada.page.url):  # as it was printed, and as the browser has remembered it
        tab = await another_tab(ada, address)
        assert await come_in(tab) != first
        await tab.locator("#composer-text").fill(f"hello from {address}")
        await tab.locator("#composer-text").press("Enter")
        await ada.sees(f"hello from {address}")
        assert "own" not in (await ada.message(f"hello from {address}").get_attribute("class") or "").split()


async def test_who_is_in_another_tab_is_told_and_may_be_the_same(visit: Visit) -> None:
    """The second tab says so, offers to be the same person there too, and stays so when it is reloaded."""
    ada = await visit("Ada")
    tab = await another_tab(ada, ada.page.url)
    notice = tab.locator("#start-notice")
    await expect(notice).to_contain_text("Ada\u2069 is here already, in another tab", timeout=BOUND_MS)
    await notice.get_by_role("button").click()
    await expect(tab.locator("#me-name")).to_have_text("Ada", timeout=BOUND_MS)
    await tab.reload()
    await expect(tab.locator("#me-state")).to_have_text("online", timeout=BOUND_MS)
    await expect(tab.locator("#me-name")).to_have_text("Ada")
    await ada.say("to myself")
    await expect(tab.locator(".message.own .text")).to_have_text("to myself", timeout=BOUND_MS)


async def test_a_reloaded_tab_stays_who_it_is(visit: Visit) -> None:
    """However often, and whatever other tabs there are: a tab does not mistake itself for another."""
    ada = await visit("Ada")
    await another_tab(ada, ada.url)
    for _ in range(5):
        await ada.page.reload()
        await ada.present()
        await expect(ada.page.locator("#me-name")).to_have_text("Ada")


async def test_going_back_and_forth_leads_through_the_rooms(visit: Visit) -> None:
    """The browser's buttons go from room to room, and back into the chat from elsewhere."""
    ada = await visit("Ada")
    await ada.make_room("Engine")
    await ada.say("in the engine")
    await ada.page.go_back()
    await ada.is_in("General")
    await ada.page.go_forward()
    await ada.is_in("Engine")
    await ada.page.goto("about:blank")
    await ada.page.go_back()
    await ada.is_in("Engine")
    await ada.sees("in the engine")
    await expect(ada.page.locator("#me-name")).to_have_text("Ada")


async def test_an_address_that_names_nothing_leads_to_general(visit: Visit) -> None:
    """A room that is not there, and an address that is broken, lead to a room that is."""
    ada = await visit("Ada")
    for odd in ("#nowhere", "#%", "#%E0%A4%A"):
        await ada.page.goto(f"{ada.url}/?user=ada{odd}")
        await ada.page.reload()
        await ada.present()
        await ada.is_in("General")


async def test_where_the_browser_keeps_nothing_the_page_works(visit: Visit) -> None:
    """With storage forbidden one can come in, talk, and change the colours."""
    ada = await visit()
    await ada.page.add_init_script("""
        for (const name of ["localStorage", "sessionStorage"]) {
          Object.defineProperty(globalThis, name, { get() { throw new DOMException("denied", "SecurityError"); } });
        }
    """)
    await ada.enter("Ada")
    await ada.say("no memory")
    await ada.sees("no memory")
    await ada.page.get_by_role("button", name="Use dark colours").click()
    await expect(ada.page.get_by_role("button", name="Use light colours")).to_be_visible()


@asynccontextmanager
async def short_tokens(person: Visitor, ttl_s: int) -> AsyncIterator[list[str]]:
    """Let development tokens last only so long; gives the list of those that were got."""
    given: list[str] = []

    async def give(route: Route) -> None:
        asked: dict[str, Any] = route.request.post_data_json
        one = token(asked["user"], name=asked["name"], ttl_s=ttl_s, rooms={"general": "member"})
        given.append(one)
        await route.fulfill(json={"token": one, "expires_at": 0})

    await person.page.route("**/dev/token", give)
    yield given
    await person.page.unroute("**/dev/token")


async def test_the_page_outlives_its_tokens(visit: Visit) -> None:
    """Open for longer than a token lasts, it goes on with new ones, on the same connection."""
    ada = await visit()
    sockets: list[str] = []
    ada.page.on("websocket", lambda socket: sockets.append(socket.url))
    async with short_tokens(ada, ttl_s=5) as given:
        await ada.enter("Ada")
        ended = time.time() + 5
        while len(given) < 4 or time.time() < ended:
            async with ada.page.expect_request("**/dev/token", timeout=BOUND_MS):
                pass
        await ada.say("still here")
        await expect(ada.message("still here").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
    assert len(sockets) == 1


async def test_a_token_that_is_none_is_refused_at_the_door(visit: Visit) -> None:
    """What cannot be a token, and what the server does not accept, is said where it can be mended."""
    ada = await visit()
    ada.tolerated.append("WebSocket connection to")
    await ada.page.goto(ada.url)
    await ada.page.get_by_text("I have a token").click()
    for wrong, words in (("two words", "This is no token."), ("a.b.c", "does not accept this token")):
        await ada.page.locator("#start-token").fill(wrong)
        await ada.page.locator("#start-go").click()
        await expect(ada.page.locator("#start-problem")).to_contain_text(words, timeout=BOUND_MS)
        await expect(ada.page.locator("#start-token")).to_be_focused()
        await expect(ada.page.locator("#app")).to_be_hidden()


async def test_a_pasted_token_that_runs_out_is_told(visit: Visit, server: ServerProcess) -> None:
    """The page stops, says why, and leads back to the door."""
    ada = await visit()
    await ada.page.goto(ada.url)
    await ada.page.get_by_text("I have a token").click()
    await ada.page.locator("#start-token").fill(token("ada", name="Ada", ttl_s=5, rooms={"notes": "owner"}))
    await ada.page.locator("#start-go").click()
    banner = ada.page.locator("#banner")
    await expect(banner).to_contain_text("Your token is not accepted any more", timeout=BOUND_MS)
    await banner.get_by_role("button", name="Start again").click()
    await expect(ada.page.locator("#start-go")).to_be_visible(timeout=BOUND_MS)


async def test_a_token_that_runs_out_while_one_is_cut_off_is_told(visit: Visit, server: ServerProcess) -> None:
    """The browser sees only that it cannot connect; the page looks at the token itself."""
    async with Cable(server.port) as cable:
        ada = await visit(url=cable.url)
        ada.tolerated += CUT
        await ada.page.clock.install()
        await ada.page.goto(ada.url)
        await ada.page.get_by_text("I have a token").click()
        await ada.page.locator("#start-token").fill(token("ada", name="Ada", rooms={"notes": "owner"}))
        await ada.page.locator("#start-go").click()
        await ada.is_in("notes")
        await cable.pull()
        banner = ada.page.locator("#banner")
        await expect(banner).to_contain_text("No connection", timeout=BOUND_MS)
        await ada.page.clock.fast_forward("02:00:00")
        await expect(banner).to_contain_text("Your token has expired", timeout=BOUND_MS)
        await expect(banner.get_by_role("button", name="Use another token")).to_be_visible()
        await ada.verify()
        await ada.page.close()


async def test_who_slept_is_back_at_once(visit: Visit, server: ServerProcess) -> None:
    """A machine wakes up with a connection that is dead without a word: the page notices, and nothing was missed."""
    async with Cable(server.port) as cable:
        ada, grace = await visit(url=cable.url), await visit("Grace")
        ada.tolerated += CUT
        await ada.page.clock.install()
        await ada.enter("Ada")
        cable.hold()
        await grace.say("while you slept")
        await ada.page.clock.fast_forward("01:00:00")  # every timer that is due rings once
        await ada.page.clock.fast_forward(11_000)  # and nobody has answered
        await expect(ada.page.locator("#me-state")).not_to_have_text("online", timeout=BOUND_MS)
        await cable.pull()
        await cable.plug()
        await ada.page.evaluate("window.dispatchEvent(new Event('online'))")
        await ada.sees("while you slept")
        await ada.verify()
        await ada.page.close()


async def test_a_page_that_is_seen_again_looks_at_its_connection(visit: Visit) -> None:
    """A tab comes to the front: it asks the server whether it is still there, and does not wait for the heartbeat."""
    ada = await visit()
    sent: list[str] = []
    ada.page.on("websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(str(payload))))
    await ada.enter("Ada")
    assert not any('"ping"' in frame for frame in sent)
    await ada.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await until(lambda: any('"ping"' in frame for frame in sent), "a ping")
    await ada.becomes("document.querySelector('#me-state').textContent", "online")


async def test_offline_and_online_are_told(visit: Visit, server: ServerProcess) -> None:
    """Without a network the banner says so; when it is back the page connects without being asked."""
    async with Cable(server.port) as cable:
        ada = await visit("Ada", url=cable.url)
        ada.tolerated += CUT
        await ada.context.set_offline(True)
        await cable.pull()
        banner = ada.page.locator("#banner")
        await expect(banner).to_contain_text("You are offline", timeout=BOUND_MS)
        await ada.say("written offline")
        await cable.plug()
        await ada.context.set_offline(False)
        await expect(banner).to_be_hidden(timeout=BOUND_MS)
        await expect(ada.message("written offline").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
        await ada.verify()
        await ada.page.close()


async def test_what_one_is_writing_survives_a_restart_of_the_server(visit: Visit, server: ServerProcess) -> None:
    """Words half written, the message one replies to, and the focus stay where they were."""
    async with Cable(server.port) as cable:
        ada = await visit("Ada", url=cable.url)
        ada.tolerated += CUT
        await ada.say("the question")
        await ada.act("the question", "Reply")
        await ada.text.press_sequentially("half an ")
        await cable.pull()
        await server.stop()
        await ada.text.press_sequentially("answer")
        await server.start()
        cable.redirect(server.port)
        await cable.plug()
        await expect(ada.page.locator("#me-state")).to_have_text("online", timeout=BOUND_MS)
        await expect(ada.text).to_have_value("half an answer")
        await expect(ada.text).to_be_focused()
        await ada.text.press("Enter")
        await expect(ada.message("half an answer").locator(".quote")).to_contain_text("the question", timeout=BOUND_MS)
        await expect(ada.message("half an answer").get_by_role("img", name="Sent")).to_be_visible(timeout=BOUND_MS)
        await ada.verify()
        await ada.page.close()

"""What a node may go by that was true a moment ago, and what it may not: another node has changed it meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chatlab import Lab, lab
from hubbub.model import RoomId, UserId


class Lagging:
    """A store that remembers members and users for ever, where it may tell what was a moment ago."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._kept: dict[tuple[str, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def member(self, room: RoomId, user: UserId, *, recent: bool = False) -> Any:
        if (room, user) not in self._kept or not recent:
            self._kept[room, user] = await self._store.member(room, user)
        return self._kept[room, user]

    async def user(self, user: UserId, *, recent: bool = False) -> Any:
        if (user,) not in self._kept or not recent:
            self._kept[user,] = await self._store.user(user)
        return self._kept[user,]


@pytest.fixture
async def at() -> AsyncIterator[Lab]:
    """A chat whose node is late to hear of what others write."""
    async with lab() as running:
        running.chat.store = Lagging(running.chat.store)  # type: ignore[assignment]
        running.chat.access._store = running.chat.store
        yield running


@contextmanager
def elsewhere(at: Lab) -> Iterator[None]:
    """On another node: what is written there this one's memory does not hear of."""
    ours = at.chat.store
    at.chat.store = at.chat.access._store = ours._store  # type: ignore[attr-defined]
    try:
        yield
    finally:
        at.chat.store = at.chat.access._store = ours


async def test_who_was_banned_on_another_node_is_not_let_in(at: Lab):
    """A handshake asks for what is so now, whatever is remembered of the user here."""
    await at.tab("mallory")
    with elsewhere(at):
        await at.chat.store.change_user(UserId("mallory"), banned_until=at.clock.now_ms() // 1_000 + 60)
    status, body, _, _ = await at.handshake(at.token("mallory"))
    assert (status, body["code"]) == (403, "forbidden")


@pytest.mark.parametrize("action", ["sync", "subscribe"])
async def test_who_was_banned_while_he_came_in_does_not_begin_to_listen(at: Lab, action: str):
    """The ban closed the connections that there were; this one was not yet there, so it is looked at again."""
    host = await at.tab("alice")
    await host.ok("create", room="general", kind="public", name="General")
    mallory = await at.tab("mallory", sync=False)
    await mallory.ok("ping")  # he is remembered as welcome
    with elsewhere(at):
        await at.chat.store.change_user(UserId("mallory"), banned_until=at.clock.now_ms() // 1_000 + 60)
    fields = {"room": "general"} if action == "subscribe" else {}
    assert await mallory.refused(action, **fields) == "forbidden"
    assert at.sink.closed[mallory.connection][0] == 4403
    await host.ok("send", room="general", text="he is gone")
    assert mallory.entries == []


async def test_who_was_removed_on_another_node_does_not_begin_to_listen(at: Lab):
    """What is remembered of a membership is enough for one message, and not for all that he would hear."""
    host, mallory = await at.tab("alice"), await at.tab("mallory")
    await host.ok("create", room="secret", kind="private", name="Secret", members=["mallory"])
    await mallory.ok("send", room="secret", text="I am remembered")
    await mallory.ok("unsubscribe", room="secret")
    with elsewhere(at):
        await host.ok("kick", room="secret", user="mallory")
    assert await mallory.refused("subscribe", room="secret") == "not_found"
    await host.ok("send", room="secret", text="he is gone")
    assert "he is gone" not in [entry.get("text") for entry in mallory.entries]

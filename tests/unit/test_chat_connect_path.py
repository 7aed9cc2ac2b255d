"""What a handshake costs the store: what the token answers is not asked, as thousands may come back at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatlab import Lab, lab


class Watched:
    """A store whose calls are written down by name."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        async def ask(*args: Any, **options: Any) -> Any:
            self.asked.append(name)
            return await found(*args, **options)

        return ask


@pytest.fixture
async def watched() -> AsyncIterator[tuple[Lab, list[str]]]:
    """A chat, and what it asks its store."""
    async with lab() as running:
        store = Watched(running.chat.store)
        running.chat.store = store  # type: ignore[assignment]
        yield running, store.asked


async def test_a_handshake_asks_once_whether_the_user_is_banned_and_nothing_else(watched: tuple[Lab, list[str]]):
    """Name, avatar, rooms and roles are the token's; they are written only when they differ from what is known."""
    running, asked = watched
    token = running.token("alice", name="Alice", avatar="https://example.com/a.png", rooms={"team": "member"})
    assert (await running.handshake(token))[0] == 200
    assert asked == ["user", "change_user"]
    asked.clear()
    for _ in range(3):
        assert (await running.handshake(token))[0] == 200
    assert asked == ["user"] * 3
    asked.clear()
    assert (await running.handshake(running.token("alice", name="Alicia")))[0] == 200
    assert asked == ["user", "change_user"]


async def test_a_user_without_a_name_costs_no_write(watched: tuple[Lab, list[str]]):
    """A token with the id alone leaves nothing to remember; so does one of the backend's."""
    running, asked = watched
    assert (await running.handshake(running.token("bob")))[0] == 200
    assert (await running.handshake(running.token("backend", name="Backend", scopes=["server"])))[0] == 200
    assert asked == ["user", "user"]


async def test_a_handshake_that_the_token_refuses_asks_nothing(watched: tuple[Lab, list[str]]):
    """No token, a bad one, and one that has run out are refused before the store hears of them."""
    running, asked = watched
    for token in (None, "no token", running.token("alice", ttl_s=-1)):
        assert (await running.handshake(token))[0] == 401
    assert asked == []

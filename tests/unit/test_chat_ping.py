"""A client that asks whether anybody is there is answered, also while the store is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chatlab import lab
from hubbub.chat import core
from hubbub.errors import Unavailable


class Away:
    """A store of which nothing can be had: it says so, or says nothing."""

    def __init__(self, store: Any, *, silent: bool) -> None:
        self._store = store
        self._silent = silent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def user(self, *_: object, **__: object) -> None:
        if self._silent:
            await asyncio.Event().wait()
        raise Unavailable


@pytest.mark.parametrize("silent", [False, True])
async def test_a_ping_is_answered_while_the_store_is_away(silent: bool, monkeypatch: pytest.MonkeyPatch):
    """So clients keep their connections through an outage of the store, and need not all come back after it."""
    monkeypatch.setattr(core, "PING_WAITS_S", 0.05)
    async with lab() as running:
        tab = await running.tab("alice")
        running.chat.store = Away(running.chat.store, silent=silent)  # type: ignore[assignment]
        await tab.ok("ping")


async def test_the_ping_of_one_who_is_not_welcome_is_refused():
    """Where gateways cannot close connections, it is how a client learns that his token does no more."""
    async with lab() as running:
        tab = await running.tab("alice")
        await running.chat.store.change_user(tab.user, revoked_before=running.clock.now_ms())
        assert await tab.refused("ping") == "unauthorized"

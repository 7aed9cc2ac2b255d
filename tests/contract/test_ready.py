"""What a store that offers a short way promises beside its port; over those that do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hubbub.errors import NotFound
from hubbub.model import Entry, MessageCreated
from hubbub.ports import ReadyFanout, ReadyStore
from hubbub.protocol import encode
from hubbub.store import SqliteStore
from storelab import ROOM, join, leave, log, make_room, say


@pytest.fixture(params=["memory", "file"])
async def ready(request, tmp_path: Path):
    path = ":memory:" if request.param == "memory" else str(tmp_path / "chat.db")
    async with SqliteStore(path) as store:
        assert isinstance(store, ReadyStore)
        await make_room(store)
        yield store


class Told:
    """What became of appends, in the order in which it was told."""

    def __init__(self) -> None:
        self.outcomes: list[object] = []
        self.frames: list[bytes | None] = []

    def __call__(self, written: tuple[Entry, bytes | None] | None, error: Exception | None) -> None:
        self.outcomes.append(error if written is None else written[0])
        self.frames.append(None if written is None else written[1])

    async def all(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.outcomes) < count:
                await asyncio.sleep(0.002)


def message(text: str, **fields: object) -> MessageCreated:
    return MessageCreated(room=ROOM, id=text, at=1, by="alice", text=text, **fields)


async def test_what_was_remembered_for_a_short_way_is_what_the_store_would_say(ready):
    """After every change, and nothing where it has to be asked for."""
    assert ready.may_know("nowhere", "alice") is None
    for change in (join(ready, "alice"), say(ready, by="alice"), leave(ready, "alice"), ready.delete_room(ROOM)):
        await change
        asked = (await ready.member(ROOM, "alice"), await ready.user("alice"))
        assert ready.may_know(ROOM, "alice") == (None if await ready.room(ROOM) is None else asked)
    assert ready.may_know(ROOM, "stranger") is None


async def test_appends_by_the_short_way_and_by_the_long_one_get_their_seq_in_the_order_in_which_they_were_started(
    ready,
):
    """And are told of in that order."""
    told, order = Told(), []

    async def long(text: str) -> None:
        entry = await ready.append(message(text))
        order.append(entry.seq)

    tasks = []
    for n in range(60):
        if n % 3:
            assert ready.append_ready(message(str(n)), lambda written, error: order.append(written[0].seq))
        else:
            tasks.append(asyncio.create_task(long(str(n))))
            await asyncio.sleep(0)
        if n % 10 == 9:
            await asyncio.sleep(0.003)
    await asyncio.gather(*tasks)
    assert ready.append_ready(message("last"), told)
    await told.all(1)
    assert [entry.text for entry in (await log(ready))[-61:]] == [*(str(n) for n in range(60)), "last"]
    assert order == sorted(order)
    assert len(order) == 60


async def test_an_append_by_the_short_way_is_told_with_its_frame(ready):
    """The same bytes as are stored; none where it was there already, or is refused."""
    told = Told()
    for each in (message("one", client_id="c"), message("again", client_id="c"), message("no", reply_to=99)):
        assert ready.append_ready(each, told)
    await told.all(3)
    one, again, refused = told.outcomes
    assert (one.text, again.text, one.seq) == ("one", "one", again.seq)
    assert told.frames == [encode(one), None, None]
    assert isinstance(refused, NotFound)
    assert await ready.entry(ROOM, one.seq) == one


async def test_a_store_that_is_closing_begins_nothing(tmp_path):
    """And what was begun before is done, and told."""
    told = Told()
    async with SqliteStore(str(tmp_path / "chat.db")) as store:
        await make_room(store)
        assert store.append_ready(message("last"), told)
    assert not store.append_ready(message("late"), told)
    await told.all(1)
    async with SqliteStore(str(tmp_path / "chat.db")) as store:
        assert [entry.text for entry in (await log(store))[1:]] == ["last"]


async def test_a_local_fanout_offers_the_short_way_and_the_others_do_not():
    """It can do at once what others must ask for."""
    from hubbub.fanout import LocalFanout, NatsFanout

    assert issubclass(LocalFanout, ReadyFanout)
    assert not issubclass(NatsFanout, ReadyFanout)

"""Rooms that are too large for one broadcaster: shards, parts, successors, and how many there are to be."""

from __future__ import annotations

import asyncio
import zlib

import pytest

from broadcastlab import ROOM, Lab, virtually
from hubbub.fanout.apigateway.jobs import Announce, Part, Signal
from hubbub.fanout.apigateway.keys import MAX_SHARDS, delivery_key, shard_of
from hubbub.fanout.apigateway.lease import LEASE_S


def fill(lab: Lab, count: int, shards: int, *, after: int = 0) -> list[str]:
    """Let connections listen, spread over shards as the directory spreads them, in a room that knows."""
    connections = [f"c{n:06}" for n in range(count)]
    for connection in connections:
        lab.listen(connection, shard=shard_of(f"u-{connection}", shards), after=after)
    pk, sk = delivery_key(ROOM)
    counted = {"shards": shards, "listeners": count, "counted": lab.clock.now_ms()}
    lab.table.place({"pk": pk, "sk": sk, **counted})
    return connections


@pytest.mark.parametrize(
    ("shards", "split", "branch"),
    [
        (2, 1_000, 10),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [(16, 100, 3), (64, 50, 2), (32, 1, 10)]),
    ],
)
def test_every_listener_of_a_spread_room_gets_every_entry_once(shards: int, split: int, branch: int):
    """However the tree is shaped, each shard is served by one broadcaster."""

    async def story(lab: Lab) -> None:
        connections = fill(lab, 1_000, shards)
        lab.broadcaster = lab.transport.broadcaster = lab.make(split=split, branch=branch)
        for job in lab.write(1, 2):
            await lab.run(job)
        assert all(lab.seqs(each) == [1, 2] for each in connections)
        parts = [job for job in lab.transport.jobs if isinstance(job, Part)]
        served = sorted(
            shard
            for part in parts
            for shard in range(part.first_shard, min(part.last_shard + 1, part.first_shard + part.each))
        )
        assert served == sorted([*range(1, shards), *range(1, shards)])
        assert max(tally.parts for tally in lab.tallies) <= branch
        assert lab.reads == []

    virtually(story)


def test_a_tree_that_comes_twice_posts_once():
    """A job and all of its parts are done again, as Lambda may."""

    async def story(lab: Lab) -> None:
        connections = fill(lab, 300, 8)
        lab.broadcaster = lab.transport.broadcaster = lab.make(split=50, branch=2)
        [job] = lab.write(1)
        await asyncio.gather(lab.run(job), lab.run(job))
        for part in list(lab.transport.jobs):
            await lab.run(part)
        assert all(lab.seqs(each) == [1] for each in connections)

    virtually(story)


def test_a_part_that_was_lost_is_made_up_for_by_the_next_entry():
    """Its shard goes on where it was; the others notice nothing."""

    async def story(lab: Lab) -> None:
        connections = fill(lab, 300, 4)
        lab.transport.broadcaster = None
        first, second = lab.write(1, 2)
        lab.log = [1]
        await lab.broadcaster.run(first, remaining_s=900)
        lost, *others = lab.transport.jobs
        lab.transport.broadcaster = lab.broadcaster
        await lab.run(*others)
        lab.log = [1, 2]
        await lab.run(second)
        assert all(lab.seqs(each) == [1, 2] for each in connections)
        await lab.run(lost)
        assert all(lab.seqs(each) == [1, 2] for each in connections)

    virtually(story)


def test_a_head_that_is_announced_in_a_spread_room_finds_what_one_shard_lacks():
    """Those who lack nothing are told; once."""

    async def story(lab: Lab) -> None:
        connections = fill(lab, 300, 4)
        await lab.run(*lab.write(1))
        lacking = {each for each in connections if shard_of(f"u-{each}", 4) == 2}
        lab.table.items[delivery_key(ROOM, 2)]["delivered"] = 0
        head = Announce(id="h", room=ROOM, head=1, frame="head 1")
        await lab.run(head, head)
        for each in connections:
            assert lab.api.frames(each) == ([b"1", b"1"] if each in lacking else [b"1", b"head 1"])

    virtually(story)


def test_a_signal_reaches_all_shards():
    """But not the one it comes from."""

    async def story(lab: Lab) -> None:
        connections = fill(lab, 300, 8)
        await lab.run(Signal(id="s", room=ROOM, frame="s", exclude=connections[7]))
        assert [each for each in connections if lab.api.frames(each) != [b"s"]] == [connections[7]]

    virtually(story)


# Growing


@pytest.mark.slow
def test_a_room_that_has_grown_is_spread_over_more_shards():
    """Those who come from then on are; those who were there stay, and are served as before."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:04}" for n in range(2_500)]
        lab.listen(*connections)
        await lab.run(*lab.write(1))
        assert (lab.state()["shards"], lab.state()["listeners"]) == (4, 2_500)
        late = [f"late{n}" for n in range(100)]
        for each in late:
            lab.listen(each, after=1, shard=zlib.crc32(f"u-{each}".encode()) % 4)
        await asyncio.sleep(120)
        await lab.run(*lab.write(2))
        assert all(lab.seqs(each) == [1, 2] for each in connections)
        assert all(lab.seqs(each) == [2] for each in late)
        assert (lab.state()["shards"], lab.state()["listeners"]) == (4, 2_600)

    virtually(story)


def test_shards_never_get_fewer_nor_more_than_there_may_be():
    """A room that empties keeps them; one of a million has as many as there are."""

    async def story(lab: Lab) -> None:
        fill(lab, 10, 8)
        lab.state()["counted"] = 0
        await lab.run(*lab.write(1))
        assert (lab.state()["shards"], lab.state()["listeners"]) == (8, 10)
        assert MAX_SHARDS == 128

    virtually(story)


def test_small_shards_are_served_several_by_one():
    """A room of many shards and few listeners does not need a broadcaster for each."""

    async def story(lab: Lab) -> None:
        fill(lab, 640, 64)
        await lab.run(*lab.write(1))
        assert len(lab.transport.jobs) == 1

    virtually(story)


# Successors


@pytest.mark.slow
def test_what_takes_too_long_is_left_to_a_successor_who_goes_on_where_it_was():
    """Nobody is posted to twice, nobody left out, and each has less time than he gets."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:04}" for n in range(3_000)]
        lab.listen(*connections)
        slow = lab.make(at_once=2)
        lab.transport.broadcaster, lab.transport.remaining_s = slow, 2.0
        await slow.run(lab.write(1)[0], remaining_s=2.0)
        await lab.transport.settled()
        assert all(lab.seqs(each) == [1] for each in connections)
        assert len(lab.transport.jobs) > 5
        assert sum(tally.is_handed_over for tally in lab.tallies) == len(lab.transport.jobs)
        assert max(tally.duration_s for tally in lab.tallies) < 2.0
        assert lab.state()["delivered"] == 1

    virtually(story)


def test_a_successor_serves_what_was_wanted_meanwhile():
    """Also by those who had left it to his predecessor."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:04}" for n in range(1_000)]
        lab.listen(*connections)
        slow = lab.make(at_once=2)
        lab.transport.broadcaster, lab.transport.remaining_s = slow, 3.0
        first, second, third = lab.write(1, 2, 3)
        lab.log = [1]
        running = asyncio.create_task(slow.run(first, remaining_s=3.0))
        await asyncio.sleep(1)
        lab.log = [1, 2, 3]
        await lab.make().run(third, remaining_s=3.0)
        await lab.make().run(second, remaining_s=3.0)
        await running
        await lab.transport.settled()
        assert all(lab.seqs(each) == [1, 2, 3] for each in connections)

    virtually(story)


def test_a_successor_who_never_comes_is_made_up_for_by_the_next_entry():
    """The lease was given up before, so nobody waits for it."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:04}" for n in range(1_000)]
        lab.listen(*connections)
        lab.transport.broadcaster = None
        first, second = lab.write(1, 2)
        lab.log = [1]
        await lab.make(at_once=2).run(first, remaining_s=2.0)
        assert lab.state()["passing"] == 1
        assert "owner" not in lab.state()
        lab.log = [1, 2]
        lab.transport.broadcaster = lab.broadcaster
        began = lab.clock.monotonic()
        await lab.run(second)
        assert lab.clock.monotonic() - began < LEASE_S
        assert all(lab.seqs(each) == [1, 2] for each in connections)

    virtually(story)


def test_a_successor_of_the_first_shard_hands_what_is_wanted_to_the_others():
    """Jobs that come meanwhile leave their entries to him, for all shards."""

    async def story(lab: Lab) -> None:
        connections = fill(lab, 1_200, 2)
        lab.transport.broadcaster, lab.transport.remaining_s = lab.make(at_once=2), 3.0
        first, second = lab.write(1, 2)
        lab.log = [1]
        running = asyncio.create_task(lab.make(at_once=2).run(first, remaining_s=2.0))
        await asyncio.sleep(3.0)
        assert running.done()
        assert "owner" in lab.state()
        lab.log = [1, 2]
        await lab.make().run(second, remaining_s=900)
        await lab.transport.settled()
        assert all(lab.seqs(each) == [1, 2] for each in connections)

    virtually(story)


def test_recipients_for_whom_no_requests_are_left_in_time_are_a_successors():
    """Those alone: nobody is left out, and nobody gets it twice."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:03}" for n in range(900)]
        lab.listen(*connections)
        slow = lab.make(pace={"per_s": 100, "burst": 10, "share": 1.0, "chunk": 20})
        lab.transport.broadcaster, lab.transport.remaining_s = slow, 4.0
        await slow.run(lab.write(1)[0], remaining_s=4.0)
        await lab.transport.settled()
        assert all(lab.seqs(each) == [1] for each in connections)
        assert 2 <= len(lab.transport.jobs) <= 12
        assert max(tally.duration_s for tally in lab.tallies) < 4.0

    virtually(story)

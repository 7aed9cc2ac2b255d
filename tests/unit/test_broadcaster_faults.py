"""A broadcaster's faults, one by one: afterwards every listener has every entry, in order once repeats are dropped."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from broadcastlab import ROOM, Lab, virtually
from hubbub.aws.service import AwsError
from hubbub.errors import NotFound, Unavailable
from hubbub.fanout.apigateway.jobs import Announce, Deliver, Signal
from hubbub.fanout.apigateway.lease import LEASE_S, Contended
from hubbub.model import RoomId
from memorytable import Key
from virtual import VirtualClock

STEP_S = 0.000_4
"""How far apart the moments are at which somebody is killed: every call takes many times as long."""


async def killed_after(lab: Lab, job: Deliver, steps: int) -> bool:
    """Run a job in a process of its own, and kill that at a moment; False when it was done before."""
    task = asyncio.create_task(lab.make().run(job, remaining_s=900))
    await asyncio.sleep(steps * STEP_S)
    was_killed = task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return was_killed


@pytest.mark.slow
def test_whoever_is_killed_at_any_moment_is_made_up_for_by_the_same_job_coming_again():
    """At every moment of a broadcast of two entries to five listeners, of whom one is gone."""
    steps, was_killed = 0, True
    while was_killed:

        async def story(lab: Lab, steps: int = steps) -> bool:
            lab.listen("a", "b", "c", "d", "gone")
            lab.api.gone.add("gone")
            lab.log = [1, 2]
            [job] = lab.write(2)
            job.frame = None
            was_killed = await killed_after(lab, job, steps)
            await asyncio.sleep(LEASE_S + 1)
            await lab.run(job)
            for each in "abcd":
                assert lab.seen(each) == [1, 2], f"killed after {steps}"
                assert len(lab.seqs(each)) <= 4
            assert lab.state()["delivered"] == 2
            assert "owner" not in lab.state()
            return was_killed

        was_killed = virtually(story)
        steps += 1
    assert steps > 80


def test_whoever_is_killed_is_made_up_for_by_the_next_entry():
    """Also when the queue never brings the first one again; once the lease has run out."""
    steps, was_killed = 0, True
    while was_killed:

        async def story(lab: Lab, steps: int = steps) -> bool:
            lab.listen("a", "b")
            first, second = lab.write(1, 2)
            was_killed = await killed_after(lab, first, steps)
            await asyncio.sleep(LEASE_S + 1)
            await lab.run(second)
            assert lab.seen("a") == lab.seen("b") == [1, 2]
            return was_killed

        was_killed = virtually(story)
        steps += 3


def test_what_was_wanted_of_one_who_was_killed_is_found_by_the_next_announcement():
    """Jobs that left their entries to him have been done, as far as the queue knows."""
    for ms in range(5, 60, 5):

        async def story(lab: Lab, ms: int = ms) -> None:
            lab.listen("a")
            first, second, third = lab.write(1, 2, 3)
            holder = asyncio.create_task(lab.make().run(first, remaining_s=900))
            await asyncio.sleep(ms / 1_000)
            others = [asyncio.create_task(lab.make().run(job, remaining_s=900)) for job in (second, third)]
            await asyncio.sleep(0.004)
            holder.cancel()
            await asyncio.gather(holder, *others, return_exceptions=True)
            await asyncio.sleep(LEASE_S + 1)
            await lab.run(Announce(id="h", room=ROOM, head=3, frame="head 3"))
            assert lab.seen("a") == [1, 2, 3]

        virtually(story)


@pytest.mark.slow
def test_a_pass_that_was_broken_off_goes_on_where_it_was():
    """Whoever is killed after some pages repeats at most one of them."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:04}" for n in range(5_000)]
        lab.listen(*connections)
        [job] = lab.write(1)
        task = asyncio.create_task(lab.make().run(job, remaining_s=900))
        while lab.state().get("page") is None:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        before = sum(lab.api.requests.values())
        assert before < 5_000
        await asyncio.sleep(LEASE_S + 1)
        await lab.run(job)
        assert all(lab.seen(each) == [1] for each in connections)
        assert sum(lab.api.requests.values()) <= 6_000

    virtually(story)


@pytest.mark.slow
def test_a_random_world_converges():
    """Jobs twice and late, broadcasters killed, a table that fails: every listener has every entry, in order."""
    for seed in range(30):

        async def story(lab: Lab, seed: int = seed) -> None:
            dice = random.Random(seed)
            lab.listen("a", "b", "c")
            lab.table.fault = lambda operation, key: (
                dice.choice(["throttle", "before", "after"]) if dice.random() < 0.05 else None
            )

            async def deliver(job: Deliver) -> None:
                await asyncio.sleep(dice.random() * 2)
                for _ in range(3):
                    task = asyncio.create_task(lab.make().run(job, remaining_s=900))
                    if dice.random() < 0.2:
                        await asyncio.sleep(dice.random() * 0.05)
                        task.cancel()
                    [result] = await asyncio.gather(task, return_exceptions=True)
                    assert result is None or isinstance(result, AwsError | Contended | asyncio.CancelledError)
                    if result is None and dice.random() < 0.9:
                        return
                    await asyncio.sleep(dice.random() * 20)

            async with asyncio.TaskGroup() as group:
                for seq in range(1, 41):
                    [job] = lab.write(seq)
                    group.create_task(deliver(job))
                    await asyncio.sleep(dice.random() * 0.1)
            lab.table.fault = None
            await asyncio.sleep(LEASE_S + 1)
            await lab.run(Announce(id="h", room=ROOM, head=40, frame="head 40"))
            for each in "abc":
                assert lab.seen(each) == list(range(1, 41)), f"seed {seed}"

        virtually(story)


def test_listeners_who_come_while_a_room_is_served_miss_nothing():
    """They write their item, then read the log: what it does not have yet is delivered."""
    for ms in range(0, 60, 3):

        async def story(lab: Lab, ms: int = ms) -> None:
            lab.listen("a")
            known: list[int] = []

            async def come() -> None:
                await asyncio.sleep(ms / 1_000)
                lab.listen("b")  # as if he knew nothing: what he then reads he may get again
                known.extend(lab.log)

            async def entries() -> None:
                for seq in (1, 2, 3):
                    [job] = lab.write(seq)
                    asyncio.get_running_loop().create_task(lab.make().run(job, remaining_s=900)).add_done_callback(
                        lambda task: task.result()
                    )
                    await asyncio.sleep(0.015)

            await asyncio.gather(come(), entries())
            await asyncio.sleep(1)
            assert sorted({*known, *lab.seqs("b")}) == [1, 2, 3]
            assert lab.seqs("a") == [1, 2, 3]

        virtually(story)


def test_a_listener_who_comes_between_two_passes_is_in_the_second():
    """Listeners are read anew for what was written since."""

    async def story(lab: Lab) -> None:
        lab.api._latency_s = (0.2, 0.2)
        lab.listen("a")
        first, second = lab.write(1, 2)
        lab.log = [1]
        running = asyncio.create_task(lab.make().run(first, remaining_s=900))
        await asyncio.sleep(0.1)
        lab.listen("b", after=1)
        lab.log = [1, 2]
        await lab.make().run(second, remaining_s=900)
        assert not running.done()
        await running
        assert (lab.seqs("a"), lab.seqs("b")) == ([1, 2], [2])

    virtually(story)


def test_whoever_is_gone_is_asked_once_however_much_he_would_get():
    """And taken out of the directory once."""

    async def story(lab: Lab) -> None:
        lab.listen("gone", "a")
        lab.api.gone.add("gone")
        await lab.run(lab.write(1, 2, 3)[2])
        assert (lab.api.requests["gone"], lab.forgotten, lab.seqs("a")) == (1, ["gone"], [1, 2, 3])

    virtually(story)


def test_listeners_who_go_while_a_room_is_served_are_forgotten_and_delay_nobody():
    """410 is an answer like any other."""

    async def story(lab: Lab) -> None:
        lab.listen(*(f"c{n}" for n in range(200)))
        lab.api.gone = {f"c{n}" for n in range(0, 200, 2)}
        await lab.run(*lab.write(1))
        assert sorted(lab.forgotten) == sorted(lab.api.gone)
        assert all(lab.seqs(f"c{n}") == [1] for n in range(1, 200, 2))
        assert lab.tallies[0].duration_s < 0.5

    virtually(story)


def test_one_slow_client_delays_nobody_and_gets_his_entries_in_order_when_he_reads_again():
    """Others have the next entry long before; he has all that came within his patience."""

    async def story(lab: Lab) -> None:
        lab.listen("slow", *(f"c{n}" for n in range(20)))
        began = lab.clock.monotonic()
        lab.api.slow["slow"] = began + 2
        await asyncio.gather(*(lab.broadcaster.run(job, remaining_s=60) for job in lab.write(1, 2, 3)))
        assert all(lab.seqs(f"c{n}") == [1, 2, 3] for n in range(20))
        assert max(at for n in range(20) for at, _ in lab.api.got[f"c{n}"]) - began < 0.5
        assert lab.seqs("slow") == [1, 2, 3]

    virtually(story)


def test_a_room_that_was_deleted_meanwhile_has_nothing_to_deliver():
    """The job is done, and no lease is kept."""

    async def story(lab: Lab) -> None:
        async def read(room: RoomId, after: int) -> list[tuple[int, bytes]]:
            raise NotFound

        lab.listen("a")
        lab.read = read  # type: ignore[method-assign]  # as of now
        await lab.make().run(Announce(id="h", room=ROOM, head=2, frame="head 2"), remaining_s=900.0)
        assert lab.api.frames("a") == []
        assert "owner" not in lab.state()

    virtually(story)


def test_a_client_who_reads_nothing_is_given_up_and_the_next_entry_is_tried_anew():
    """What he lacks he reads from the log himself."""

    async def story(lab: Lab) -> None:
        lab.listen("slow", "a")
        lab.api.slow["slow"] = lab.clock.monotonic() + 30
        await lab.run(*lab.write(1))
        assert (lab.tallies[0].failed, lab.seqs("slow"), lab.seqs("a")) == (1, [], [1])
        assert lab.tallies[0].duration_s < 8
        await asyncio.sleep(30)
        await lab.run(*lab.write(2))
        assert lab.seqs("slow") == [2]

    virtually(story)


def test_whoever_lacks_much_is_not_overtaken_by_the_next_entry():
    """As long as his posts are answered he is no straggler, however long it takes; others were done long before."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b")
        lab.listen("knows", after=99)
        lab.log = list(range(1, 100))
        running = asyncio.create_task(lab.make().run(lab.write(100)[0], remaining_s=900))
        await asyncio.sleep(0.6)
        await lab.make().run(lab.write(101)[0], remaining_s=900)
        await running
        assert lab.seqs("a") == lab.seqs("b") == list(range(1, 102))
        assert lab.seqs("knows") == [100, 101]

    virtually(story)


def test_a_post_that_fails_once_keeps_its_place_in_the_order():
    """The next entry, by another broadcaster and at whatever moment, comes after it."""
    for ms in range(20, 120, 5):

        async def story(lab: Lab, apart_s: float = ms / 1_000) -> None:
            random.seed(apart_s)
            lab.listen("a", "b")
            lab.api.failing["a"] = ["500"]
            first, second = lab.write(1, 2)
            lab.log = [1]

            async def later() -> None:
                await asyncio.sleep(apart_s)
                lab.log = [1, 2]
                await lab.make().run(second, remaining_s=900)

            await asyncio.gather(lab.make().run(first, remaining_s=900), later())
            assert lab.seqs("a") == lab.seqs("b") == [1, 2]

        virtually(story)


def test_a_client_who_was_given_up_is_waited_for_no_more_for_a_while():
    """A function is paid for while it waits; he is tried once with each entry, and again at length a minute later."""

    async def story(lab: Lab) -> None:
        lab.listen("slow", "a")
        lab.api.slow["slow"] = 2**40
        first, second, third = lab.write(1, 2, 3)
        await lab.run(first, second)
        assert [tally.failed for tally in lab.tallies] == [1, 1]
        assert lab.tallies[0].duration_s > 2
        assert lab.tallies[1].duration_s < 0.5
        lab.api.slow.clear()
        await lab.run(third)
        assert (lab.seqs("slow"), lab.seqs("a")) == ([3], [1, 2, 3])

    virtually(story)


def test_a_post_that_is_never_answered_delays_nobody():
    """It is one straggler, with one socket."""

    async def story(lab: Lab) -> None:
        lab.listen("hangs", *(f"c{n}" for n in range(300)))
        lab.api.hanging.add("hangs")
        began = lab.clock.monotonic()
        await asyncio.gather(*(lab.broadcaster.run(job, remaining_s=60) for job in lab.write(1, 2)))
        assert all(lab.seqs(f"c{n}") == [1, 2] for n in range(300))
        assert max(at for n in range(300) for at, _ in lab.api.got[f"c{n}"]) - began < 1
        assert max(tally.duration_s for tally in lab.tallies) < 20

    virtually(story)


@pytest.mark.parametrize("fault", ["500", "unreached", "before", "after"])
def test_a_post_that_fails_is_tried_again(fault: str):
    """Where nobody knows whether it was done, the client may get it twice, and drops it by its seq."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b")
        lab.api.failing["a"] = [fault, fault]
        await lab.run(*lab.write(1, 2))
        assert (lab.seen("a"), lab.seqs("b")) == ([1, 2], [1, 2])
        assert lab.seqs("a") == ([1, 1, 1, 2] if fault == "after" else [1, 2])

    virtually(story)


def test_a_recipient_who_is_refused_is_logged_with_his_ids_and_skipped(caplog: pytest.LogCaptureFixture):
    """403 would come again; others notice nothing."""

    async def story(lab: Lab) -> None:
        lab.listen("no", "a")
        lab.api.forbidden.add("no")
        await lab.run(*lab.write(1))
        assert (lab.seqs("a"), lab.api.requests["no"], lab.tallies[0].refused) == ([1], 1, 1)

    virtually(story)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.connection_id, record.request_id, record.status) == ("no", "R1", 403)
    assert record.message == "a post was refused: status 403, ForbiddenException"


def test_an_item_that_tells_of_no_listener_is_passed_over(caplog: pytest.LogCaptureFixture):
    """Whatever wrote it; the others have their entry."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "z")
        lab.table.place({"pk": "listen#room#0", "sk": "no user", "after": 0, "expires_at": 2**40, "ttl": 2**40})
        lab.table.place({"pk": "listen#room#0", "sk": "u-b#b"})
        await lab.run(*lab.write(1))
        assert lab.seqs("a") == lab.seqs("z") == [1]

    virtually(story)
    assert sum("is no listener" in record.message for record in caplog.records) == 2


@pytest.mark.parametrize("ahead_s", [-1_000, -400, 400, 5_000])
def test_a_clock_that_is_off_is_set_by_the_gateways(ahead_s: int):
    """The first posts are refused and come again; afterwards none is."""

    async def story(lab: Lab) -> None:
        lab.listen(*(f"c{n}" for n in range(10)))
        broadcaster = lab.make(clock=VirtualClock(lab.loop, ahead_s))
        first, second = lab.write(1, 2)
        await broadcaster.run(first, remaining_s=60)
        refused = lab.api.answers[403]
        await broadcaster.run(second, remaining_s=60)
        assert all(lab.seqs(f"c{n}") == [1, 2] for n in range(10))
        assert 1 <= refused <= 10
        assert lab.api.answers[403] == refused

    virtually(story, checks=True)


@pytest.mark.parametrize("ahead_s", [-3_600, 3_600])
def test_a_killed_holder_whose_clock_was_off_keeps_nobody_waiting(ahead_s: int):
    """A lease that seems to last for an hour is void like one that has run out."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        lab.api.hanging.add("a")
        first, second = lab.write(1, 2)
        holding = asyncio.create_task(lab.make(clock=VirtualClock(lab.loop, ahead_s)).run(first, remaining_s=60))
        await asyncio.sleep(0.5)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        lab.api.hanging.clear()
        assert "owner" in lab.state()
        await lab.broadcaster.run(second, remaining_s=60)
        assert lab.seqs("a") == [1, 2]

    virtually(story)


@pytest.mark.parametrize("fault", ["throttle", "before", "after"])
@pytest.mark.parametrize("nth", range(5))
def test_a_table_that_fails_lets_the_job_come_again(fault: str, nth: int):
    """At whichever of its calls; the lease does not stand in the way of the next try."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b")
        [job] = lab.write(1)
        count = 0

        def fails(operation: str, key: Key) -> str | None:
            nonlocal count
            count += 1
            return fault if count == nth + 1 else None

        lab.table.fault = fails
        try:
            await lab.run(job)
        except AwsError:
            await lab.run(job)
            if lab.seqs("a") == []:  # the lease may have been taken without our knowing
                await asyncio.sleep(LEASE_S + 1)
                await lab.run(job)
        assert lab.seen("a") == lab.seen("b") == [1]
        assert lab.state()["delivered"] == 1

    virtually(story)


def test_a_log_that_cannot_be_read_lets_the_job_come_again_at_once():
    """The lease is given up before."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        [_, job] = lab.write(1, 2)
        lab.unreadable = True
        with pytest.raises(Unavailable):
            await lab.run(job)
        lab.unreadable = False
        await lab.run(job)
        assert lab.seqs("a") == [1, 2]

    virtually(story)


def test_a_signal_that_cannot_be_delivered_is_lost_without_a_fuss():
    """No job comes again for it."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        lab.table.fault = lambda operation, key: "throttle"
        await lab.run(Signal(id="s", room=ROOM, frame="s"))
        assert lab.api.requests == {}

    virtually(story)


def test_a_holder_who_was_taken_for_dead_stops_when_he_notices():
    """His lease ran out while he was frozen; somebody else serves the room to its end."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:03}" for n in range(400)]
        lab.listen(*connections)
        first, second = lab.write(1, 2)
        lab.log = [1]
        slow = asyncio.create_task(lab.make(at_once=1).run(first, remaining_s=900))
        await asyncio.sleep(0.1)
        lab.state()["until"] = lab.clock.now_ms() - 1
        lab.log = [1, 2]
        await lab.make().run(second, remaining_s=900)
        await slow
        assert lab.tallies[-1].posted < 400, "he stopped when he wrote his next sign of life"
        assert all(lab.seen(each)[-1] == 2 for each in connections)
        assert lab.state()["delivered"] == 2

    virtually(story)

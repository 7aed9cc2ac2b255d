"""What a broadcaster delivers when nothing is wrong: entries in order and once, heads, signals, to whom and when."""

from __future__ import annotations

import asyncio

import pytest

from broadcastlab import ROOM, Lab, virtually
from hubbub.fanout.apigateway.jobs import Announce, Deliver, Signal
from hubbub.fanout.apigateway.posts import MAX_POST_BYTES


def announce(head: int) -> Announce:
    return Announce(id=f"head {head}", room=ROOM, head=head, frame=f"head {head}")


def test_every_listener_gets_every_entry_once_and_in_order():
    """With two writes of the table for each entry, and no reading of the log."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b", "c")
        lab.table.forget_usage()
        await lab.run(*lab.write(1, 2, 3))
        assert [lab.seqs(each) for each in "abc"] == [[1, 2, 3]] * 3
        assert lab.reads == []
        assert dict(lab.table.used.requests) == {"UpdateItem": 6, "Query": 3}
        assert lab.table.used.write_units == 6

    virtually(story)


def test_entries_are_delivered_in_order_whatever_the_order_of_the_jobs():
    """A job for a later entry takes those before with it, from the log."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        jobs = lab.write(1, 2, 3, 4)
        await lab.run(jobs[2], jobs[0], jobs[3], jobs[1])
        assert lab.seqs("a") == [1, 2, 3, 4]
        assert lab.reads == [0]

    virtually(story)


def test_a_job_that_comes_twice_is_done_once():
    """One after the other: the second costs one write."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b")
        [job] = lab.write(1)
        await lab.run(job)
        lab.table.forget_usage()
        await lab.run(job, job)
        assert lab.seqs("a") == lab.seqs("b") == [1]
        assert lab.table.used.requests["UpdateItem"] == 2

    virtually(story)


def test_a_job_that_is_done_twice_at_the_same_time_is_done_once():
    """By two broadcasters, at every distance of time."""
    for ms in range(0, 40, 2):

        async def story(lab: Lab, apart_s: float = ms / 1_000) -> None:
            lab.listen("a", "b")
            [job] = lab.write(1)
            one, other = lab.make(), lab.make()

            async def later() -> None:
                await asyncio.sleep(apart_s)
                await other.run(job, remaining_s=60)

            await asyncio.gather(one.run(job, remaining_s=60), later())
            assert lab.seqs("a") == lab.seqs("b") == [1]
            assert lab.state() | {"wanted": 0} == lab.state() | {"delivered": 1, "wanted": 0}

        virtually(story)


def test_a_listener_gets_nothing_that_he_knows():
    """Only what comes after his `after`, however far the room was served before."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        await lab.run(*lab.write(1, 2))
        lab.listen("b", after=2)
        lab.listen("c", after=3)
        await lab.run(*lab.write(3, 4))
        assert (lab.seqs("a"), lab.seqs("b"), lab.seqs("c")) == ([1, 2, 3, 4], [3, 4], [4])

    virtually(story)


def test_a_room_that_was_never_served_begins_where_its_listeners_are():
    """Not at the beginning of its log."""

    async def story(lab: Lab) -> None:
        lab.log = list(range(1, 501))
        lab.listen("a", after=500)
        lab.listen("b", after=498)
        await lab.run(*lab.write(501))
        assert (lab.seqs("a"), lab.seqs("b"), lab.reads) == ([501], [499, 500, 501], [498])

    virtually(story)


def test_whoever_has_left_or_whose_token_has_run_out_gets_nothing():
    """His item may still be there, for the end of his presence is yet to be told."""

    async def story(lab: Lab) -> None:
        now_s = lab.clock.now_ms() // 1_000
        lab.listen("a")
        lab.listen("left", left=lab.clock.now_ms())
        lab.listen("expired", expires_at=now_s)
        lab.listen("void", ttl=now_s)
        await lab.run(*lab.write(1))
        assert lab.api.requests == {"a": 1}

    virtually(story)


def test_a_room_without_listeners_costs_two_writes_and_a_read():
    """And no entry of it is read, however many there were."""

    async def story(lab: Lab) -> None:
        lab.log = list(range(1, 100))
        await lab.run(*lab.write(100))
        assert (lab.reads, lab.api.requests) == ([], {})
        assert dict(lab.table.used.requests) == {"UpdateItem": 2, "Query": 1}

    virtually(story)


@pytest.mark.slow
def test_entries_of_a_hot_room_are_delivered_together():
    """A hundred publishes within a moment take a few passes, and no recipient misses one or gets one twice."""

    async def story(lab: Lab) -> None:
        lab.listen(*(f"c{n}" for n in range(50)))
        jobs = lab.write(*range(1, 101))

        async def one(job: Deliver, n: int) -> None:
            await asyncio.sleep(n * 0.002)
            await lab.make().run(job, remaining_s=60)

        await asyncio.gather(*(one(job, n) for n, job in enumerate(jobs)))
        assert all(lab.seqs(f"c{n}") == list(range(1, 101)) for n in range(50))
        assert sum(tally.passes for tally in lab.tallies) <= 20

    virtually(story)


def test_what_is_wanted_while_a_holder_gives_the_lease_up_is_not_lost():
    """The next entry comes at every moment of the first one's broadcast."""
    for ms in range(60):

        async def story(lab: Lab, apart_s: float = ms / 1_000) -> None:
            lab.listen("a")
            first, second = lab.write(1, 2)
            lab.log = [1]

            async def later() -> None:
                await asyncio.sleep(apart_s)
                lab.log = [1, 2]
                await lab.make().run(second, remaining_s=60)

            await asyncio.gather(lab.make().run(first, remaining_s=60), later())
            assert lab.seqs("a") == [1, 2]
            assert lab.state()["delivered"] == 2
            assert "owner" not in lab.state()

        virtually(story)


def test_an_entry_that_was_too_long_to_travel_is_read_from_the_log():
    """A job without a frame."""

    async def story(lab: Lab) -> None:
        lab.texts[1] = "1 " + "x" * 100_000
        lab.listen("a")
        [job] = lab.write(1)
        job.frame = None
        await lab.run(job)
        assert (lab.seqs("a"), lab.reads) == ([1], [0])
        assert len(lab.api.frames("a")[0]) == 100_002

    virtually(story)


def test_an_entry_longer_than_a_frame_is_posted_whole():
    """API Gateway takes 128 KB, in frames of 32 KB that are its own business."""

    async def story(lab: Lab) -> None:
        lab.texts[1] = "1 " + "x" * 40_000
        lab.listen("a")
        await lab.run(*lab.write(1))
        assert [len(frame) for frame in lab.api.frames("a")] == [40_002]

    virtually(story)


def test_an_entry_longer_than_any_post_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture):
    """Its readers find the hole; the room goes on."""

    async def story(lab: Lab) -> None:
        lab.texts[2] = "2 " + "x" * MAX_POST_BYTES
        lab.listen("a", "b")
        await lab.run(*lab.write(1, 2, 3))
        assert lab.seqs("a") == lab.seqs("b") == [1, 3]
        assert lab.api.answers[413] == 0

    virtually(story)
    assert [record.message for record in caplog.records] == ["entry 2 has 131074 bytes, a post at most 131072"]


def test_an_entry_that_the_log_has_no_more_is_passed_over():
    """What retention has removed is no hole."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        await lab.run(*lab.write(1))
        lab.log = [7, 8, 9]
        await lab.run(*lab.write(9))
        assert lab.seqs("a") == [1, 7, 8, 9]

    virtually(story)


def test_a_gap_longer_than_a_page_of_the_log_is_delivered_whole():
    """Page after page."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        lab.log = list(range(1, 700))
        await lab.run(*lab.write(700))
        assert lab.seqs("a") == list(range(1, 701))

    virtually(story)


# Heads


def test_a_head_that_is_announced_finds_what_was_lost_and_else_is_told_once():
    """Listeners get what they lack, or else the head's frame, each head once."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b")
        await lab.run(*lab.write(1))
        lab.write(2, 3)
        await lab.run(announce(3), announce(3), announce(3), announce(2))
        assert lab.api.frames("a") == lab.api.frames("b") == [b"1", b"2", b"3", b"head 3"]

    virtually(story)


def test_a_head_is_told_to_those_who_are_busy_just_then():
    """Whoever was left out of the last entry has nothing else to learn of it by: he is tried as for an entry."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b")
        lab.api.slow["b"] = lab.clock.monotonic() + 8.0
        await lab.run(*lab.write(1))
        assert lab.seqs("b") == []
        await asyncio.sleep(60)
        lab.api.failing["a"] = ["500"]
        lab.api.slow["b"] = lab.clock.monotonic() + 2.0
        await lab.run(announce(1))
        assert (lab.api.frames("a"), lab.api.frames("b")) == ([b"1", b"head 1"], [b"head 1"])

    virtually(story)


def test_a_head_that_was_not_told_to_the_end_is_told_again():
    """Who dies in the middle has not told it."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b")
        await lab.run(*lab.write(1))
        lab.api.hanging.add("b")
        telling = asyncio.create_task(lab.run(announce(1)))
        await asyncio.sleep(0.5)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        lab.api.hanging.clear()
        await lab.make().run(announce(1), remaining_s=900.0)
        assert lab.api.frames("b") == [b"1", b"head 1"]

    virtually(story)


def test_a_head_of_a_room_that_was_never_served_is_told_to_those_who_lack_nothing():
    """They came when everything had been written."""

    async def story(lab: Lab) -> None:
        lab.log = [1, 2, 3]
        lab.listen("a", after=3)
        await lab.run(announce(3))
        assert (lab.api.frames("a"), lab.reads) == ([b"head 3"], [])

    virtually(story)


def test_a_head_that_the_log_does_not_have_is_looked_for_once():
    """It moves nothing: the next entry is delivered."""

    async def story(lab: Lab) -> None:
        lab.listen("a")
        await lab.run(announce(5))
        assert (lab.reads, lab.api.requests) == ([0], {})
        await lab.run(*lab.write(1))
        assert lab.seqs("a") == [1]

    virtually(story)


# Signals


def test_a_signal_reaches_all_listeners_but_one_and_is_never_tried_again():
    """No lease, one read; who does not read goes without."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b", "slow", "gone")
        lab.api.slow["slow"] = 2**40
        lab.api.gone.add("gone")
        lab.table.forget_usage()
        await lab.run(Signal(id="s", room=ROOM, frame="s", exclude="b"))
        assert lab.api.frames("a") == [b"s"]
        assert lab.api.requests == {"a": 1, "slow": 1, "gone": 1}
        assert lab.forgotten == ["gone"]
        assert dict(lab.table.used.requests) == {"Query": 1, "GetItem": 1}

    virtually(story)


def test_what_came_of_a_job_is_reported_in_numbers():
    """Once for each job."""

    async def story(lab: Lab) -> None:
        lab.listen("a", "b", "gone", "no")
        lab.api.gone.add("gone")
        lab.api.forbidden.add("no")
        await lab.run(*lab.write(1))
        [tally] = lab.tallies
        assert (tally.kind, tally.room, tally.recipients, tally.passes) == ("deliver", ROOM, 4, 1)
        assert (tally.posted, tally.gone, tally.refused, tally.bytes) == (2, 1, 1, 2)
        assert 0.01 < tally.duration_s < 0.1

    virtually(story)

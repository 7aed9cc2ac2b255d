"""The ledger of the account's requests: who may post when, how it keeps to its share, and what is no slow client."""

from __future__ import annotations

import asyncio
import logging

import pytest

from broadcastlab import Lab, virtually
from hubbub.fanout.apigateway.keys import PACE_KEY
from hubbub.fanout.apigateway.pace import HORIZON_S, Pace, TooLate
from memorytable import MemoryTable
from virtual import VirtualClock


async def spend(pace: Pace, lab: Lab, count: int, at: list[float], until_s: float = 900.0) -> None:
    """Take requests as a volley does, and note when each may be made."""
    async with pace.allotment(count, until=lab.clock.monotonic() + until_s) as allotment:
        for _ in range(count):
            await allotment.one()
            at.append(lab.clock.monotonic())


def test_requests_are_given_out_at_the_shares_rate_after_a_burst():
    """However many broadcasters there are: 5 of them take 30,000 requests at 70 % of 10,000 a second."""

    async def story(lab: Lab) -> None:
        began = lab.clock.monotonic()
        at: list[float] = []
        paces = [Pace(lab.table, clock=lab.clock) for _ in range(5)]
        await asyncio.gather(*(spend(pace, lab, 6_000, at) for pace in paces))
        took = max(at) - began
        assert (30_000 - 3_500) / 7_000 - 0.05 < took < (30_000 - 3_500) / 7_000 + 0.3
        at.sort()
        for first in range(0, len(at), 1_000):
            ends = at[first] + 1
            in_a_second = sum(1 for time in at[first : first + 12_000] if time < ends)
            assert in_a_second <= 7_000 + 3_500 + 5 * 250
        assert lab.table.used.requests["UpdateItem"] < 30_000 / 250 + 20

    virtually(story)


def test_few_recipients_take_no_requests_from_the_ledger():
    """Small rooms live off what the share leaves; the table is not asked."""

    async def story(lab: Lab) -> None:
        await spend(Pace(lab.table, clock=lab.clock), lab, 50, [])
        assert lab.table.calls == 0
        await spend(Pace(lab.table, clock=lab.clock), lab, 51, [])
        assert lab.table.calls > 0

    virtually(story)


def test_a_quota_that_is_met_lowers_the_pace_for_everybody_and_it_rises_again():
    """Many connections at once are throttled; another broadcaster learns of it with his next requests."""

    async def story(lab: Lab) -> None:
        one, other = Pace(lab.table, clock=lab.clock), Pace(lab.table, clock=lab.clock)
        await spend(other, lab, 100, [])
        for n in range(10):
            await one.throttled(f"c{n}")
        assert one.rate() == pytest.approx(3_500, rel=0.01)
        await spend(other, lab, 100, [])
        assert other.rate() == pytest.approx(3_500, rel=0.02)
        for n in range(10):
            await one.throttled(f"c{n}")
        assert one.rate() > 3_400, "it is lowered once a second at most"
        await asyncio.sleep(3)
        assert one.rate() == pytest.approx(3_500 + 3 * 350, rel=0.02)
        await asyncio.sleep(8)
        assert one.rate() == other.rate() == 7_000

    virtually(story)


def test_a_quota_that_is_met_makes_small_rooms_keep_to_the_pace_too():
    """Until it has risen again."""

    async def story(lab: Lab) -> None:
        pace = Pace(lab.table, clock=lab.clock)
        for n in range(10):
            await pace.throttled(f"c{n}")
        calls = lab.table.calls
        await spend(pace, lab, 10, [])
        assert lab.table.calls > calls
        await asyncio.sleep(11)
        calls = lab.table.calls
        await spend(pace, lab, 10, [])
        assert lab.table.calls == calls

    virtually(story)


def test_the_pace_is_never_lowered_to_nothing():
    """However often the quota is met."""

    async def story(lab: Lab) -> None:
        pace = Pace(lab.table, clock=lab.clock)
        for _ in range(40):
            for n in range(10):
                await pace.throttled(f"c{n}")
            await asyncio.sleep(1.1)
        assert pace.rate() >= 350

    virtually(story)


def test_slow_clients_do_not_lower_the_pace():
    """A few, or some among many that read."""

    async def story(lab: Lab) -> None:
        pace = Pace(lab.table, clock=lab.clock)
        for _ in range(100):
            for n in range(4):
                await pace.throttled(f"slow{n}")
        for _ in range(1_000):
            pace.accepted()
        for n in range(50):
            await pace.throttled(f"slow{n}")
        assert pace.rate() == 7_000
        assert PACE_KEY not in lab.table.items

    virtually(story)


@pytest.mark.slow
def test_a_broadcast_above_the_quota_lowers_its_pace_until_it_fits_and_delivers_everything():
    """The account has less than the settings say: 429 comes, the pace follows, every listener has the entry."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:05}" for n in range(6_000)]
        lab.listen(*connections)
        await lab.run(*lab.write(1))
        missed = [each for each in connections if lab.seqs(each) != [1]]
        assert missed == []
        assert 0 < lab.api.answers[429] < 4_000
        assert lab.table.items[PACE_KEY]["low"] < 7_000

    virtually(story, rate=2_000, burst=1_000)


def test_recipients_who_wait_for_their_requests_are_no_stragglers():
    """However slow the pace: all of them are posted to before anybody gets the room's next entry."""

    async def story(lab: Lab) -> None:
        connections = [f"c{n:03}" for n in range(120)]
        lab.listen(*connections)
        slow = {"per_s": 10, "burst": 1, "share": 1.0, "chunk": 5}
        first, second = lab.write(1, 2)
        lab.log = [1]
        running = asyncio.create_task(lab.make(pace=slow).run(first, remaining_s=900))
        await asyncio.sleep(5)
        assert "delivered" not in lab.state()
        lab.log = [1, 2]
        await lab.make(pace=slow).run(second, remaining_s=900)
        await running
        assert all(lab.seqs(each) == [1, 2] for each in connections)
        assert lab.clock.monotonic() - 1_000 > 23

    virtually(story)


def test_a_ledger_that_cannot_be_reached_lets_each_go_on_slowly():
    """At a tenth of the pace, by his own count."""

    async def story(lab: Lab) -> None:
        lab.table.fault = lambda operation, key: "throttle" if key == PACE_KEY else None
        began = lab.clock.monotonic()
        at: list[float] = []
        await spend(Pace(lab.table, clock=lab.clock), lab, 1_000, at)
        assert len(at) == 1_000
        assert 1.0 < max(at) - began < 1.6

    virtually(story)


def test_nobody_waits_for_requests_beyond_his_time():
    """He is told that it is too late, so that his successor takes them."""

    async def story(lab: Lab) -> None:
        now_us = lab.clock.now_ms() * 1_000
        lab.table.place({"pk": PACE_KEY[0], "sk": PACE_KEY[1], "given": now_us + 20_000_000})
        began = lab.clock.monotonic()
        with pytest.raises(TooLate):
            await spend(Pace(lab.table, clock=lab.clock), lab, 1_000, [], until_s=10)
        assert lab.clock.monotonic() - began < 10
        at: list[float] = []
        await spend(Pace(lab.table, clock=lab.clock), lab, 1_000, at, until_s=60)
        assert at[0] - began == pytest.approx(20, abs=0.1)

    virtually(story)


def test_whoever_finds_all_requests_given_away_for_long_waits_and_asks_again():
    """So that a queue of broadcasts does not grow without bound in the ledger."""

    async def story(lab: Lab) -> None:
        now_us = lab.clock.now_ms() * 1_000
        lab.table.place({"pk": PACE_KEY[0], "sk": PACE_KEY[1], "given": now_us + int((HORIZON_S + 4) * 1e6)})
        began = lab.clock.monotonic()
        at: list[float] = []
        await spend(Pace(lab.table, clock=lab.clock), lab, 100, at)
        assert at[0] - began == pytest.approx(HORIZON_S + 4, abs=0.2)

    virtually(story)


def test_a_ledger_that_was_written_by_a_clock_that_is_off_is_set_right(caplog: pytest.LogCaptureFixture):
    """An hour ahead: nobody waits an hour for it."""

    async def story(lab: Lab) -> None:
        await spend(Pace(lab.table, clock=VirtualClock(lab.loop, 3_600)), lab, 100, [])
        began = lab.clock.monotonic()
        at: list[float] = []
        await spend(Pace(lab.table, clock=lab.clock), lab, 100, at)
        assert at[-1] - began < 1

    virtually(story)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_requests_that_are_taken_ahead_are_no_more_than_are_needed():
    """A broadcast to 600 takes 600, in three writes."""

    async def story(lab: Lab) -> None:
        await spend(Pace(lab.table, clock=lab.clock), lab, 600, [])
        now_us = lab.clock.now_ms() * 1_000
        given = lab.table.items[PACE_KEY]["given"]
        assert given == pytest.approx(now_us - 500_000 + 600 / 7_000 * 1e6, abs=50_000)
        assert lab.table.used.requests["UpdateItem"] <= 4

    virtually(story)


def test_a_share_that_cannot_be_is_refused():
    """The error says what was expected and what came."""
    with pytest.raises(ValueError, match=r"expected a share of \(0, 1\]"):
        Pace(MemoryTable(), clock=None, share=1.5)  # type: ignore[arg-type]  # refused before it is used

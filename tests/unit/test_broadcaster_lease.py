"""The lease of a shard: who holds it, what others want of him, and what is left when he is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from broadcastlab import ROOM, Lab, virtually
from hubbub.aws.service import AwsError
from hubbub.aws.table import ConditionFailed
from hubbub.fanout.apigateway.keys import delivery_key
from hubbub.fanout.apigateway.lease import LEASE_S, Contended, Lease, Lost
from memorytable import Key


def lease(lab: Lab) -> Lease:
    """The shard's lease, as one more process sees it."""
    return Lease(lab.table, clock=lab.clock, room=ROOM, shard=0)


def loses(operation: str, kind: str) -> Callable[[str, Key], str | None]:
    """A fault of the first call of an operation."""
    left = [kind]
    return lambda called, key: left.pop() if called == operation and left else None


def test_one_holds_it_and_the_others_say_what_they_want():
    """The highest of what they want is what he does before he gives it up."""

    async def story(lab: Lab) -> None:
        async with lease(lab) as mine:
            assert await mine.acquire(1)
            assert not await lease(lab).acquire(5)
            assert not await lease(lab).acquire(3)
            assert not await mine.release(1, 1, listeners=7)
            assert (mine.is_held, mine.state.wanted) == (True, 5)
            await mine.turn(1)
            assert await mine.release(5, 5, listeners=7)
        assert lab.state() == {"pk": "delivery#room", "sk": "delivery", "delivered": 5, "listeners": 7}

    virtually(story)


def test_what_was_served_is_not_to_be_had_again():
    """A repeated job is told so by one write."""

    async def story(lab: Lab) -> None:
        async with lease(lab) as mine:
            assert await mine.acquire(3)
            assert await mine.release(3, 3, listeners=0)
        calls = lab.table.calls
        assert not await lease(lab).acquire(3)
        assert lab.table.calls == calls + 1

    virtually(story)


def test_it_is_kept_while_its_holder_lives_and_had_by_another_when_he_does_not():
    """However long he takes; some seconds after he is gone."""

    async def story(lab: Lab) -> None:
        holder = lease(lab)
        async with holder:
            assert await holder.acquire(1)
            await asyncio.sleep(10 * LEASE_S)
            assert not await lease(lab).acquire(1)
            task = holder._keeping
            assert task is not None
            task.cancel()
            await asyncio.sleep(LEASE_S + 1)
            async with lease(lab) as other:
                assert await other.acquire(1)
                with pytest.raises(Lost):
                    await holder.save(1, "page")
                assert not holder.is_held

    virtually(story)


def test_a_failure_gives_it_up_at_once():
    """So that the next try of the queue finds it free."""

    async def story(lab: Lab) -> None:
        with pytest.raises(ZeroDivisionError):
            async with lease(lab) as mine:
                assert await mine.acquire(1)
                raise ZeroDivisionError
        async with lease(lab) as other:
            assert await other.acquire(1)

    virtually(story)


def test_what_is_wanted_of_one_who_leaves_is_found_by_whoever_comes():
    """Also by one who asks for something that was served already."""

    async def story(lab: Lab) -> None:
        async with lease(lab) as mine:
            assert await mine.acquire(1)
            assert not await lease(lab).acquire(2)
            await mine.leave(1)
        async with lease(lab) as other:
            assert await other.acquire(1)
            assert (other.state.delivered, other.state.wanted) == (1, 2)

    virtually(story)


def test_a_pass_that_was_broken_off_is_found_by_whoever_comes():
    """Also by one who asks for something that was served already."""

    async def story(lab: Lab) -> None:
        async with lease(lab) as mine:
            assert await mine.acquire(3)
            await mine.leave(2, 3, "somebody")
        async with lease(lab) as other:
            assert await other.acquire(2)
            assert (other.state.delivered, other.state.passing, other.state.page) == (2, 3, "somebody")

    virtually(story)


def test_an_answer_that_was_lost_is_no_lost_lease():
    """Tried again, it is seen whose it is."""

    async def story(lab: Lab) -> None:
        mine = lease(lab)
        lab.table.fault = loses("UpdateItem", "after")
        with pytest.raises(AwsError):
            await mine.acquire(1)
        async with mine:
            assert await mine.acquire(1)
            assert mine.is_held

    virtually(story)


def test_a_lease_that_was_given_up_by_a_try_whose_answer_was_lost_is_given_up():
    """The table's second try finds that it is nobody's, which is what was to be."""

    async def story(lab: Lab) -> None:
        update = lab.table.update

        async def twice(*args: Any, **options: Any) -> dict[str, Any]:
            await update(*args, **options)
            try:
                return await update(*args, **options)
            except ConditionFailed as failed:
                failed.is_in_doubt = True
                raise

        async with lease(lab) as mine:
            assert await mine.acquire(1)
            lab.table.update = twice  # type: ignore[method-assign]  # as a table that lost an answer
            assert await mine.release(1, 1, listeners=3)
            assert not mine.is_held
        assert (lab.state()["delivered"], "owner" in lab.state()) == (1, False)

    virtually(story)


def test_a_head_is_told_once():
    """The highest counts."""

    async def story(lab: Lab) -> None:
        assert await lease(lab).tell(5)
        assert not await lease(lab).tell(5)
        assert not await lease(lab).tell(4)
        assert await lease(lab).tell(6)

    virtually(story)


def test_a_lease_that_changes_hands_all_the_time_is_left_to_the_queue():
    """After some tries."""

    async def story(lab: Lab) -> None:
        pk, sk = delivery_key(ROOM)

        def flickers(operation: str, key: Key) -> None:
            held = {"owner": "x", "until": lab.clock.now_ms() + 10_000}
            item = {"pk": pk, "sk": sk, **(held if "owner" not in lab.state() else {})}
            lab.table.place(item)

        lab.table.fault = flickers
        with pytest.raises(Contended):
            await lease(lab).acquire(1)

    virtually(story)

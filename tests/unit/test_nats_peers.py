"""Other nodes: leases, and orders that are carried out once and in order whatever gets lost on the way."""

from __future__ import annotations

import random

import pytest

from hubbub.fanout.nats import wire
from hubbub.fanout.nats.peers import MAX_GONE, MAX_HELD, MAX_KEPT, PATIENCE_S, Orders, Peers


class World:
    """Peers as one node sees them, and what it did."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.asked: list[tuple[str, int, int]] = []
        self.news: list[tuple[str, str]] = []
        self.peers = Peers(
            lease_s=8,
            carry_out=lambda what: self.done.append(what.after),
            ask=lambda node, first, last: self.asked.append((node, first, last)),
            began=lambda node: self.news.append((node, "began")),
            ended=lambda node, in_order: self.news.append((node, "ended" if in_order else "died")),
        )

    def hear(self, number: int, now: float = 0.0) -> None:
        is_known = "n" in self.peers.alive or "n" in self.peers._gone
        self.peers.heard("n", now)
        if not is_known:
            self.peers.stands_at("n", number - 1, now)
        self.peers.ordered("n", order(number), now)


def order(number: int) -> wire.Order:
    return wire.Order(number, wire.Follow("u", "r", number))


@pytest.fixture
def world() -> World:
    return World()


def test_a_node_lives_as_long_as_it_is_heard(world):
    """It ends with its lease, or when it says so; each is told once."""
    for now in (0, 5, 10):
        world.peers.heard("n", now)
        world.peers.sweep(now)
    assert (world.peers.alive, world.news) == ({"n"}, [("n", "began")])
    world.peers.sweep(18)
    world.peers.heard("n", 20)
    world.peers.left("n")
    world.peers.left("n")
    assert world.news == [("n", "began"), ("n", "died"), ("n", "began"), ("n", "ended")]


def test_nobody_is_dead_because_we_slept(world):
    """`forgive` begins all leases anew."""
    world.peers.heard("n", 0)
    world.peers.forgive(100)
    world.peers.sweep(100)
    assert world.peers.alive == {"n"}


def test_orders_are_carried_out_once_and_in_order(world):
    """One that is missing is asked for, and those after it wait."""
    for number in (1, 2, 2, 4, 5):
        world.hear(number)
    assert (world.done, world.asked) == ([1, 2], [("n", 3, 3)])
    world.hear(3)
    world.hear(3)
    assert world.done == [1, 2, 3, 4, 5]


def test_a_missing_last_order_is_noticed_by_where_the_node_stands(world):
    """It is asked for, and again when the answer got lost, but not all the time."""
    world.hear(1)
    for now in (1.0, 1.1, 1.2, 2.5):
        world.peers.stands_at("n", 3, now)
    assert world.asked == [("n", 2, 3)] * 2


def test_orders_from_before_we_knew_a_node_are_not_ours(world):
    """They are in the store by then."""
    world.peers.heard("n", 0)
    world.peers.stands_at("n", 40, 0)
    world.hear(41)
    assert (world.done, world.asked) == ([41], [])


def test_all_orders_of_a_node_that_began_after_us_are_ours(world):
    """We had our connections when it gave them, wherever it was that we did not hear of it."""
    world.peers.heard("n", 0)
    world.peers.stands_at("n", 3, 0, is_younger=True)
    assert world.asked == [("n", 1, 3)]
    for number in (1, 2, 3):
        world.peers.ordered("n", order(number), 0)
    assert world.done == [1, 2, 3]


@pytest.mark.parametrize(("is_younger", "asked", "done"), [(True, [("n", 1, 6)], [7, 8]), (False, [], [7, 8])])
def test_an_order_waits_until_its_node_has_told_where_it_stands(world, is_younger, asked, done):
    """For that says whether those before it are ours."""
    world.peers.heard("n", 0)
    for number in (7, 8):
        world.peers.ordered("n", order(number), 0)
    assert (world.done, world.asked) == ([], [])
    world.peers.stands_at("n", 8, 0, is_younger=is_younger)
    assert world.asked == asked
    for number in range(1, 7):
        world.peers.ordered("n", order(number), 0)
    assert world.done[-2:] == done


def test_giving_up_very_much_takes_no_time(world):
    """However many orders it were, and whoever says so."""
    world.hear(1)
    world.hear(2**60 + 1)
    world.peers.forgotten("n", 2**60)
    assert (world.done, world.peers.missed) == ([1, 2**60 + 1], 2**60 - 1)


def test_a_node_that_comes_back_goes_on_where_it_was(world):
    """What it ordered while it was not heard is asked for."""
    world.hear(1)
    world.peers.sweep(100)
    world.peers.heard("n", 101)
    world.peers.stands_at("n", 5, 101)
    assert world.asked == [("n", 2, 5)]


def test_what_cannot_be_had_is_given_up(world):
    """After a while, or when the node says that it does not keep it; the rest is carried out."""
    world.hear(1)
    world.hear(3)
    later = PATIENCE_S + 1
    world.peers.heard("n", later)
    world.peers.sweep(later)
    assert (world.done, world.peers.missed) == ([1, 3], 1)
    world.hear(6, later)
    world.peers.forgotten("n", 5)
    assert (world.done, world.peers.missed) == ([1, 3, 6], 3)
    world.peers.stands_at("n", 8, later)
    world.peers.heard("n", 2 * later)
    world.peers.sweep(2 * later)
    world.hear(9, 2 * later)
    assert (world.done, world.peers.missed) == ([1, 3, 6, 9], 5)


def test_what_is_remembered_is_bounded(world):
    """Of gone nodes, of held orders and of one's own."""
    for n in range(2 * MAX_GONE):
        world.peers.heard(f"n{n}", 0)
    world.peers.sweep(100)
    assert len(world.peers._gone) == MAX_GONE
    world.hear(1, 200)
    for number in range(3, 3 + 2 * MAX_HELD):
        world.hear(number, 200)
    assert len(world.peers._alive["n"].held) == MAX_HELD
    orders = Orders()
    for _ in range(2 * MAX_KEPT):
        orders.number(wire.Unfollow("u", "r"))
    again = orders.again(1, 2 * MAX_KEPT)
    assert again[0] == wire.Forgotten(MAX_KEPT) and len(again) == MAX_KEPT + 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_and_doubled_all_orders_are_carried_out_in_order(world, seed):
    """As long as questions are answered at last."""
    chance = random.Random(seed)
    orders = Orders()
    world.peers.heard("n", 0)
    world.peers.stands_at("n", 0, 0)
    now, answered = 0.0, 0
    for _ in range(200):
        sent = orders.number(wire.Follow("u", "r", orders.last + 1))
        for _ in range(chance.choice((0, 1, 1, 2))):
            world.peers.ordered("n", sent, now)
        if chance.random() < 0.5:
            world.peers.stands_at("n", orders.last, now)
        while answered < len(world.asked):
            for again in orders.again(*world.asked[answered][1:]):
                world.peers.ordered("n", again, now)
            answered += 1
    while world.done[-1:] != [200]:
        now += 1
        world.peers.stands_at("n", orders.last, now)
        for again in orders.again(*world.asked[-1][1:]):
            world.peers.ordered("n", again, now)
    assert world.done == list(range(1, 201))

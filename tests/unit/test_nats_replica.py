"""The replica of presence: whatever gets lost between nodes, all agree in the end, and each change is told once."""

from __future__ import annotations

import random

import pytest

from hubbub.fanout.nats import wire
from hubbub.fanout.nats.presence import Presence
from hubbub.fanout.nats.subjects import GROUPS

ROOMS = ("a", "b.c")
USERS = ("u1", "u2", "u3")


class Node:
    """A node's presence, and what it told its boards."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.alive = True
        self.told: dict[tuple[str, str], bool] = {}
        self.here: dict[str, set[str]] = {room: set() for room in ROOMS}
        self.presence = Presence(
            notify=self.notify,
            ask=lambda node, room: cluster.put(self, node, ("ask", room)),
            tell=lambda room, change: [cluster.put(self, each, (room, change)) for each in cluster.nodes],
            settled=lambda room: None,
        )

    def notify(self, room: str, user: str, online: bool) -> None:
        assert self.told.get((room, user)) is not online, "told twice"
        self.told[room, user] = online

    def take(self, sender: str, what: object) -> None:
        kind, thing = what
        if kind == "ask":
            parts = list(self.presence.share(thing, 1, self.cluster.part_bytes))
            for part in parts:
                self.cluster.put(self, sender, ("part", part))
            self.cluster.put(self, sender, ("all", (thing, len(parts))))
        elif kind == "all":
            self.presence.nobody(sender, [thing[0]], thing[1])
        elif kind == "part":
            self.presence.answered(sender, thing)
        elif kind == "digest":
            self.presence.compare(sender, thing)
        else:
            self.presence.told(sender, thing, kind)

    def turn(self, room: str, user: str) -> None:
        """The user comes or goes here."""
        online = user not in self.here[room]
        (self.here[room].add if online else self.here[room].discard)(user)
        self.presence.changed(room, user, online, len(self.here[room]))


class Cluster:
    """Nodes, and a network between them that may lose and reorder what it carries."""

    def __init__(self, chance: random.Random, names: str = "xyz") -> None:
        self.chance = chance
        self.loses = 0.0
        self.part_bytes = 1  # so each user is a part of an answer, and may get lost alone
        self.under_way: dict[tuple[str, str], list[object]] = {}
        self.nodes: dict[str, Node] = {}
        for name in names:
            self.nodes[name] = Node(self, name)
        for node in self.nodes.values():
            node.presence.open(ROOMS, set(self.nodes) - {node.name})
        self.run()

    def put(self, sender: Node, node: str, what: object) -> None:
        if node != sender.name and self.chance.random() >= self.loses:
            self.under_way.setdefault((sender.name, node), []).append(what)

    def run(self) -> None:
        """Deliver all that is under way, the pairs of nodes in any order."""
        while pairs := [pair for pair, waiting in self.under_way.items() if waiting]:
            pair = self.chance.choice(pairs)
            self.nodes[pair[1]].take(pair[0], self.under_way[pair].pop(0))

    def agree(self) -> None:
        """A round of digests over a network that loses nothing, after unanswered questions were given up."""
        self.loses = 0.0
        for _ in range(2):
            for node in self.nodes.values():
                for other in self.nodes:
                    node.presence.unanswered(other, ROOMS)
            for node in self.nodes.values():
                for group in range(GROUPS):
                    for other in self.nodes:
                        self.put(node, other, ("digest", node.presence.digest(group)))
            self.run()


@pytest.mark.parametrize("seed", range(30))
def test_all_nodes_agree_after_digests_whatever_was_lost(seed):
    """And what they told of each user is what is so."""
    chance = random.Random(seed)
    cluster = Cluster(chance)
    cluster.loses = chance.choice((0.0, 0.3, 0.9))
    for _ in range(200):
        chance.choice(list(cluster.nodes.values())).turn(chance.choice(ROOMS), chance.choice(USERS))
        if chance.random() < 0.7:
            cluster.run()
    cluster.agree()
    for room in ROOMS:
        there = sorted({user for node in cluster.nodes.values() for user in node.here[room]})
        for node in cluster.nodes.values():
            assert node.presence.online(room, 9) == (there, len(there))
            assert sorted(user for user in USERS if node.told.get((room, user))) == there


def test_without_loss_nothing_has_to_be_asked():
    """Changes follow each other."""
    cluster = Cluster(random.Random(1))
    asked: list[str] = []
    for node in cluster.nodes.values():
        node.presence._ask = lambda node, room: asked.append(room)
    for _ in range(100):
        node = cluster.chance.choice(list(cluster.nodes.values()))
        node.turn(cluster.chance.choice(ROOMS), cluster.chance.choice(USERS))
        cluster.run()
    for node in cluster.nodes.values():
        for group in range(GROUPS):
            for other in cluster.nodes:
                cluster.put(node, other, ("digest", node.presence.digest(group)))
    cluster.run()
    assert asked == []


def test_a_lost_node_takes_its_users_along_but_not_those_who_are_elsewhere():
    """Who is at two nodes stays online."""
    cluster = Cluster(random.Random(1))
    x, y = cluster.nodes["x"], cluster.nodes["y"]
    y.turn("a", "u1")
    y.turn("a", "u2")
    x.turn("a", "u2")
    cluster.run()
    x.presence.lose("y")
    assert x.presence.online("a", 9) == (["u2"], 1)
    assert (x.told["a", "u1"], x.told["a", "u2"]) == (False, True)


def test_a_digest_of_no_group_is_refused():
    """Whoever sent it."""
    with pytest.raises(ValueError, match="group"):
        Cluster(random.Random(1)).nodes["x"].presence.compare("y", wire.Digest(GROUPS, 0, {}))


def test_who_comes_before_the_others_have_answered_is_told_when_they_have():
    """Unless he was there already, at another node."""
    cluster = Cluster(random.Random(1), "x")
    node = cluster.nodes["x"]
    node.presence.close("a")
    node.presence.open(["a"], ["y"])
    node.turn("a", "u1")
    node.turn("a", "u2")
    node.turn("a", "u3")
    node.turn("a", "u3")
    assert node.told == {}
    node.presence.answered("y", wire.Told("a", 5, 1, ["u1"], is_first=True, is_last=True))
    assert node.told == {("a", "u2"): True}


def reopened() -> Node:
    """A node that has just begun to look at room a, and awaits the answers of y and z."""
    node = Cluster(random.Random(1), "x").nodes["x"]
    node.presence.close("a")
    node.presence.open(["a"], ["y", "z"])
    return node


@pytest.mark.parametrize("before", [0, 4])
@pytest.mark.parametrize("is_overtaken", [False, True])
def test_who_comes_elsewhere_before_the_others_have_answered_is_told_when_they_have(before, is_overtaken):
    """Whether he is the first there, and whether the answer with him comes before his coming or after it."""
    node = reopened()
    others = ["u2"] if before else []
    change = wire.Presence("u1", True, before, 5, 1)
    answer = wire.Told("a", 5, 1, ["u1", *others], is_first=True, is_last=True)
    if is_overtaken:
        node.presence.answered("y", answer)
        node.presence.told("y", change, "a")
    else:
        node.presence.told("y", change, "a")
        node.presence.answered("y", answer)
    assert node.told == {}
    node.presence.nobody("z", ["a"], 0)
    assert node.told == {("a", "u1"): True}
    assert node.presence.online("a", 9)[0] == ["u1", *others]


def test_who_comes_elsewhere_and_was_there_already_or_goes_again_is_not_told():
    """While answers are awaited: u1 is at another node, u2 comes and goes."""
    node = reopened()
    node.presence.told("y", wire.Presence("u1", True, 0, 5, 1), "a")
    node.presence.told("y", wire.Presence("u2", True, 5, 6, 2), "a")
    node.presence.told("y", wire.Presence("u2", False, 6, 7, 1), "a")
    node.presence.answered("y", wire.Told("a", 7, 1, ["u1"], is_first=True, is_last=True))
    node.presence.answered("z", wire.Told("a", 3, 1, ["u1"], is_first=True, is_last=True))
    assert node.told == {}


def test_who_was_told_before_a_room_is_held_and_goes_meanwhile_is_told_to_be_gone_unless_he_is_elsewhere():
    """Our own users, who came before anybody could be asked, are told once to come and once to go."""
    node = Cluster(random.Random(1), "x").nodes["x"]
    node.presence.close("a")
    for user in USERS:
        node.turn("a", user)
    node.presence.open(["a"], ["y"])
    for user in ("u1", "u2", "u3", "u3"):
        node.turn("a", user)
    node.presence.told("y", wire.Presence("u2", True, 0, 5, 1), "a")
    node.presence.answered("y", wire.Told("a", 5, 1, ["u2"], is_first=True, is_last=True))
    assert node.told == {("a", "u1"): False, ("a", "u2"): True, ("a", "u3"): True}


@pytest.mark.parametrize("is_held", [False, True])
def test_who_is_learned_after_somebody_was_told_who_is_online_is_told(is_held):
    """Else he who asked while an answer was missing, or NATS was away, would have a wrong list for good."""
    node = Cluster(random.Random(1), "x").nodes["x"]
    node.presence.close("a")
    node.turn("a", "u1")
    if not is_held:
        node.presence.given("a")
    node.presence.open(["a"], ["y"])
    if is_held:
        node.presence.given("a")
    assert not node.presence.is_settled("a")
    node.presence.answered("y", wire.Told("a", 5, 1, ["u1", "u2"], is_first=True, is_last=True))
    assert node.told == {("a", "u1"): True, ("a", "u2"): True}


def test_an_answer_of_which_a_part_was_lost_is_none():
    """The next digest lets the node ask again: else those in that part were offline for ever."""
    cluster = Cluster(random.Random(1), "xy")
    x, y = cluster.nodes["x"], cluster.nodes["y"]
    for user in USERS:
        y.turn("a", user)
    cluster.run()
    x.presence.close("a")
    x.told.clear()
    x.presence.open(["a"], ["y"])
    cluster.under_way.clear()
    for lost in range(len(USERS)):
        parts = list(y.presence.share("a", 3, 1))
        for part in parts[:lost] + parts[lost + 1 :]:
            x.presence.answered("y", part)
    cluster.agree()
    assert x.presence.online("a", 9) == (list(USERS), len(USERS))

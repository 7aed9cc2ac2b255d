"""Who is in a room, over all nodes: each node tells its changes, numbered, and holds a replica of what others told.

Only rooms that a node hears of are replicated there. A change that does not follow the last one, or a digest that says
otherwise, lets the node ask for the room anew. Who was there before is learned silently; who came after that is told,
also when his coming was heard while answers were awaited. Pure: messages and time come in, what is to be told goes out
by calls.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

from hubbub.fanout.nats import wire
from hubbub.fanout.nats.subjects import GROUPS, group_of
from hubbub.few import Few, added, removed
from hubbub.model import RoomId, UserId

MAX_USERS_TOLD_BYTES = 64 * 1024
"""How long a part of a room's users is."""

MAX_PARTS_USERS = 1_000_000
"""Users of one room at one node that are taken in; further ones are no room's real life."""

OURS = ""
"""This node, where nodes are named; no node's id is empty."""

_NOBODY: frozenset[UserId] = frozenset()


class _Share:
    """What one other node has in a room."""

    __slots__ = ("count", "last", "parts", "seen", "users")

    def __init__(self) -> None:
        self.users = 0  # how many of those online are at the node
        self.count = 0  # connections
        self.last = 0  # the number of the last change that is in here
        self.seen = 0  # the highest number that was heard of
        self.parts: set[UserId] | None = None  # users of an answer that is not yet complete


class _Room:
    """A room as all nodes together have it; each has one for nearly all rooms, so it is small."""

    __slots__ = ("asked", "came", "online", "settled", "shares", "tells", "told")

    def __init__(self) -> None:
        self.online: dict[UserId, tuple[str, ...]] = {}  # at which nodes each user is
        self.shares: dict[str, _Share] = {}  # what other nodes have
        self.settled = False  # whether all nodes have said whom they have
        self.tells = False  # whether comings and goings are told: since then, or since somebody got a list without it
        self.told: Set[UserId] = _NOBODY  # until then: our own users who were told to be online before it was held
        self.came: dict[UserId, set[str]] | None = None  # until then: who was heard to come, and at which nodes
        self.asked: Few[str] = ()  # nodes whose answer is awaited


@dataclass(slots=True)
class _Own:
    """Whom we have in a room, as we told it: also in a room whose replica is gone."""

    users: Few[UserId] = ()
    last: int = 0
    given: bool = False  # whether somebody was told that these are all


def room_group(room: RoomId) -> int:
    """The group of a room, as in its subject."""
    return group_of(room.replace(".", "/"))


class Presence:
    """The replica, and what this node tells.

    Args:
        notify: told of a user who began or ceased to be online in a room; not of what was so before anybody looked.
        ask: asks a node for rooms anew.
        tell: tells all who hear of a room of a change.
        settled: told of a room once all have said whom they have.

    """

    def __init__(
        self,
        *,
        notify: Callable[[RoomId, UserId, bool], None],
        ask: Callable[[str, RoomId], None],
        tell: Callable[[RoomId, wire.Presence], None],
        settled: Callable[[RoomId], None],
    ) -> None:
        self._notify = notify
        self._ask = ask
        self._tell = tell
        self._settled = settled
        self._rooms: dict[RoomId, _Room] = {}
        self._groups: list[dict[RoomId, None]] = [{} for _ in range(GROUPS)]  # rooms of the replica, by group
        self._own: dict[RoomId, _Own] = {}
        self._own_groups: list[dict[RoomId, None]] = [{} for _ in range(GROUPS)]  # rooms in which we have somebody
        self._number = 0
        self._alone: dict[str, tuple[str]] = {}  # the nodes of a user who is at one, which most share

    # This node's users

    def changed(self, room: RoomId, user: UserId, online: bool, count: int) -> None:
        """A user of this node began or ceased to listen to the room, with any connection; `count` of all listen now."""
        own = self._own.get(room)
        if own is None:
            own = self._own[room] = _Own()
            self._own_groups[room_group(room)][room] = None
        before = own.last
        self._number += 1
        own.last = self._number
        own.users = (added if online else removed)(own.users, user)
        if not own.users:
            del self._own[room]
            del self._own_groups[room_group(room)][room]
        self._tell(room, wire.Presence(user, online, before, own.last, count))
        known = self._rooms.get(room)
        if known is None:
            self._notify(room, user, online)  # nobody told us yet of others
            return
        self._note(known, OURS, user, online)
        (self._come if online else self._go)(room, known, OURS, user)

    def share(self, room: RoomId, count: int, most_bytes: int = MAX_USERS_TOLD_BYTES) -> Iterable[wire.Told]:
        """Whom this node has in the room, for somebody who asked, in parts of about that length; none for nobody."""
        own = self._own.get(room)
        if own is None:
            return []
        return wire.told(room, own.last, count, list(own.users), min(most_bytes, MAX_USERS_TOLD_BYTES))

    def digest(self, group: int) -> wire.Digest:
        """In which rooms of the group this node has anybody."""
        return wire.Digest(group, self._number, {room: self._own[room].last for room in self._own_groups[group]})

    # The replica

    def open(self, rooms: Iterable[RoomId], nodes: Iterable[str]) -> None:
        """Hold these rooms, and ask these nodes for them, now or again."""
        for room in rooms:
            known = self._rooms.get(room)
            if known is None:
                known = self._rooms[room] = _Room()
                self._groups[room_group(room)][room] = None
                if own := self._own.get(room):
                    known.online = dict.fromkeys(own.users, self._only(OURS))
                    known.told = set(own.users)
                    if own.given:
                        self._tell_on(room, known)
            for node in nodes:
                known.asked = added(known.asked, node)
                self._ask(node, room)
            self._settle(room, known)

    def close(self, room: RoomId) -> None:
        """Forget what others told of it."""
        if self._rooms.pop(room, None) is not None:
            del self._groups[room_group(room)][room]

    def given(self, room: RoomId) -> None:
        """Somebody is told who is online, as far as it is known: what is learned later is news to him, and is told."""
        known = self._rooms.get(room)
        if known is not None:
            self._tell_on(room, known)
        elif own := self._own.get(room):
            own.given = True

    def is_settled(self, room: RoomId) -> bool:
        """Whether it is held, and all have said whom they have."""
        known = self._rooms.get(room)
        return known is not None and known.settled

    def nobody(self, node: str, rooms: Sequence[RoomId], told: int) -> None:
        """The node was asked for these rooms and has told of so many: in the others it has nobody.

        If some of what it told was lost, nothing is known of the others.
        """
        others = [room for room in rooms if (known := self._rooms.get(room)) is not None and node in known.asked]
        if len(rooms) - len(others) < told:
            self.unanswered(node, others)
            return
        for room in others:
            self.answered(node, wire.Told(room, 0, 0, [], is_first=True, is_last=True))

    def unanswered(self, node: str, rooms: Iterable[RoomId]) -> None:
        """The node has not answered: it is not waited for any more."""
        for room in rooms:
            if (known := self._rooms.get(room)) is not None:
                known.asked = removed(known.asked, node)
                self._settle(room, known)

    def told(self, node: str, change: wire.Presence, room: RoomId) -> None:
        """Another node tells a change."""
        known = self._rooms.get(room)
        if known is None:
            return
        self._note(known, node, change.user, change.online)  # also when the node's answer has overtaken it
        share = known.shares.get(node)
        if share is None:
            share = known.shares[node] = _Share()
        if change.number <= share.last:
            return
        share.seen = max(share.seen, change.number)
        if change.before == 0:
            self._replace(room, known, node, {change.user} if change.online else set())
        elif change.before != share.last:
            self._ask_for(node, room, known)
            return
        elif change.online:
            share.users += self._come(room, known, node, change.user)
        else:
            share.users -= self._go(room, known, node, change.user)
        share.last, share.count = change.number, change.count
        if not share.users:
            del known.shares[node]

    def answered(self, node: str, told: wire.Told) -> None:
        """Another node tells whom it has in a room, or a part of that."""
        known = self._rooms.get(told.room)
        if known is None:
            return
        share = known.shares.get(node)
        if share is None:
            share = known.shares[node] = _Share()
        if told.is_first:
            share.parts = set()
        if share.parts is None or len(share.parts) != min(told.begin, MAX_PARTS_USERS):
            share.parts = None  # a part was lost, and with it the answer: a digest lets us ask again
            return
        share.parts.update(told.users[: MAX_PARTS_USERS - len(share.parts)])
        if not told.is_last:
            return
        users, share.parts = share.parts, None
        known.asked = removed(known.asked, node)
        if told.number >= share.last or told.number == 0:
            self._replace(told.room, known, node, users)
            share.last, share.count = told.number, told.count
            if told.number < share.seen:  # it overtook a change, which was not taken in
                self._ask_for(node, told.room, known)
                share.seen = told.number
            elif not users:
                del known.shares[node]
        self._settle(told.room, known)

    def compare(self, node: str, digest: wire.Digest) -> None:
        """Another node says in which rooms of a group it has anybody: ask for those that differ."""
        if digest.group >= GROUPS:
            raise ValueError(f"expected a group below {GROUPS}, got {digest.group}")
        for room in list(self._groups[digest.group]):
            known = self._rooms[room]
            share = known.shares.get(node)
            number = digest.rooms.get(room)
            if number is None:
                if share is not None and share.last <= digest.at:
                    self._replace(room, known, node, set())
                    del known.shares[node]
            elif share is None or share.last < number:
                self._ask_for(node, room, known)

    def lose(self, node: str) -> None:
        """The node is gone, and all its users."""
        for room, known in self._rooms.items():
            known.asked = removed(known.asked, node)
            if node in known.shares:
                self._replace(room, known, node, set())
                del known.shares[node]
            self._settle(room, known)
        self._alone.pop(node, None)

    # Questions

    def online(self, room: RoomId, limit: int) -> tuple[list[UserId], int]:
        """The first users by id, and how many there are; of this node alone where the room is not held."""
        known = self._rooms.get(room)
        users = known.online if known else self._own[room].users if room in self._own else ()
        return heapq.nsmallest(limit, users), len(users)

    def is_online(self, room: RoomId, user: UserId) -> bool:
        """Whether the user is."""
        known = self._rooms.get(room)
        return user in (known.online if known else self._own[room].users if room in self._own else ())

    def elsewhere(self, room: RoomId) -> int:
        """How many connections of other nodes listen."""
        known = self._rooms.get(room)
        return sum(share.count for share in known.shares.values()) if known else 0

    # Counting

    def _replace(self, room: RoomId, known: _Room, node: str, users: set[UserId]) -> None:
        """These users, and nobody else, are at a node that has a share."""
        share = known.shares[node]
        there = [user for user, nodes in known.online.items() if node in nodes] if share.users else []
        share.users = len(users)
        for user in users:
            self._come(room, known, node, user)
        for user in there:
            if user not in users:
                self._go(room, known, node, user)

    def _ask_for(self, node: str, room: RoomId, known: _Room) -> None:
        """Ask the node whom it has there, if it was not."""
        if node not in known.asked:
            known.asked = added(known.asked, node)
            self._ask(node, room)

    def _note(self, known: _Room, node: str, user: UserId, online: bool) -> None:
        """Remember who comes while answers are awaited: with them alone he could not be told from who was there."""
        if known.tells:
            return
        if known.came is None:
            known.came = {}
        nodes = known.came.setdefault(user, set())
        (nodes.add if online else nodes.discard)(node)
        if not nodes:
            del known.came[user]

    def _come(self, room: RoomId, known: _Room, node: str, user: UserId) -> bool:
        """The user is at the node; whether he was not before."""
        nodes = known.online.get(user)
        if nodes is None:
            known.online[user] = self._only(node)
            if known.tells:
                self._notify(room, user, True)
        elif node in nodes:
            return False
        else:
            known.online[user] = (*nodes, node)
        return True

    def _go(self, room: RoomId, known: _Room, node: str, user: UserId) -> bool:
        """The user is not at the node; whether he was before."""
        nodes = known.online.get(user, ())
        if node not in nodes:
            return False
        left = tuple(each for each in nodes if each != node)
        if left:
            known.online[user] = left if len(left) > 1 else self._only(left[0])
        else:
            del known.online[user]
            if known.tells:
                self._notify(room, user, False)
        return True

    def _only(self, node: str) -> tuple[str]:
        """The node alone, the same for all users."""
        only = self._alone.get(node)
        if only is None:
            only = self._alone[node] = (node,)
        return only

    def _settle(self, room: RoomId, known: _Room) -> None:
        """Tell what had to wait, when nobody's answer is missing."""
        if known.settled or known.asked:
            return
        known.settled = True
        self._tell_on(room, known)
        self._settled(room)

    def _tell_on(self, room: RoomId, known: _Room) -> None:
        """Tell who came and went so far, and whatever is learned from now on."""
        if known.tells:
            return
        known.tells = True
        told, known.told = known.told, _NOBODY
        came, known.came = known.came or {}, None
        for user in told - known.online.keys():
            self._notify(room, user, False)
        for user, nodes in came.items():
            if user in known.online and user not in told and nodes.issuperset(known.online[user]):
                self._notify(room, user, True)

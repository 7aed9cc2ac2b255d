"""A store and a plain Python model of the log, given the same things to do, say the same."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import examples
from hubbub.errors import Conflict, HubbubError, NotFound
from hubbub.model import (
    AnyEntry,
    Entry,
    Member,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    ReactionRemoved,
    Role,
    RoomKind,
    RoomUpdated,
)
from hubbub.ports import Store
from storelab import AT, log

ROOMS = ("tea", "milk")
USERS = ("alice", "bob", "carol")
MAX_MEMBERS = 2


class ModelRoom:
    """A room as lists and dicts."""

    def __init__(self) -> None:
        self.exists = False
        self.log: list[Any] = []
        self.head = 0
        self.first = 1
        self.name = ""
        self.kind = RoomKind.PUBLIC
        self.members: dict[str, Role] = {}
        self.marks: dict[str, int] = {}
        self.reactions: set[tuple[int, str, str]] = set()

    def living(self) -> None:
        if not self.exists:
            raise NotFound

    def message(self, seq: int) -> MessageCreated:
        for entry in self.log:
            if entry.seq == seq and isinstance(entry, MessageCreated):
                return entry
        raise NotFound

    def standing(self, seq: int) -> MessageCreated:
        message = self.message(seq)
        if message.deleted:
            raise Conflict
        return message

    def add(self, entry: Any) -> Any:
        self.head += 1
        added = msgspec.structs.replace(entry, seq=self.head)
        self.log.append(added)
        if isinstance(added, MessageCreated):
            self.marks[added.by] = added.seq
        return added

    def create(self, members: list[Member]) -> int:
        if self.exists:
            raise Conflict
        if len({member.user for member in members}) > MAX_MEMBERS:
            raise Conflict
        head = self.head
        self.__init__()  # type: ignore[misc]  # nothing of what was is in it
        self.exists, self.head, self.first = True, head, head + 1
        self.add(RoomUpdated(room="", by="maker", at=AT, room_name="", kind=RoomKind.PUBLIC))
        for member in members:
            if member.user not in self.members:
                self.members[member.user] = member.role
                self.add(MemberJoined(room="", by="maker", at=AT, user=member.user, role=member.role))
        return self.head

    def delete(self) -> bool:
        existed, self.exists = self.exists, False
        return existed

    def mark(self, user: str, seq: int) -> int:
        self.living()
        self.marks[user] = max(self.marks.get(user, 0), min(seq, self.head))
        return self.marks[user]

    def append(self, entry: Any) -> int:
        self.living()
        match entry:
            case MessageCreated():
                for other in self.log:
                    same = isinstance(other, MessageCreated) and (other.by, other.client_id) == (
                        entry.by,
                        entry.client_id,
                    )
                    if same and entry.client_id is not None:
                        return other.seq
                for seq in (entry.reply_to, entry.thread):
                    if seq is not None:
                        self.message(seq)
            case MessageEdited():
                self.standing(entry.target)
            case MessageDeleted():
                self.standing(entry.target)
                for n, other in enumerate(self.log):
                    if other.seq == entry.target or (isinstance(other, MessageEdited) and other.target == entry.target):
                        self.log[n] = msgspec.structs.replace(other, text=None, deleted=True)
            case ReactionAdded() | ReactionRemoved():
                self.standing(entry.target)
                key, adds = (entry.target, entry.by, entry.reaction), isinstance(entry, ReactionAdded)
                if (key in self.reactions) == adds:
                    return 0
                self.reactions ^= {key}
            case MemberLeft():
                if self.members.pop(entry.user, None) is None:
                    return 0
            case MemberJoined() | MemberUpdated():
                role = self.members.get(entry.user)
                if role is entry.role:
                    return 0
                if role is None and isinstance(entry, MemberUpdated):
                    raise NotFound
                if role is None and len(self.members) >= MAX_MEMBERS:
                    raise Conflict
                self.members[entry.user] = entry.role
            case RoomUpdated():
                self.name = self.name if entry.room_name is None else entry.room_name
                self.kind = entry.kind or self.kind
        return self.add(entry).seq

    def unread(self, user: str) -> int:
        mark = self.marks.get(user, 0)
        return sum(isinstance(entry, MessageCreated) and entry.seq > mark for entry in self.log)


Deed = tuple[Callable[[dict[str, ModelRoom]], Any], Callable[[Store], Awaitable[Any]]]
"""The same thing done to the model and to a store."""

rooms = st.sampled_from(ROOMS)
users = st.sampled_from(USERS)
targets = st.integers(0, 12)
roles = st.sampled_from([Role.MEMBER, Role.OWNER])
members = st.lists(st.builds(Member, user=users, role=st.just(Role.MEMBER)), max_size=3)
ids = itertools.count()


def appended(entry: Entry) -> Deed:
    async def do(store: Store) -> int:
        return (await store.append(msgspec.structs.replace(entry, id=f"{next(ids)}"))).seq

    return lambda model: model[entry.room].append(entry), do


def created(room: Any, members: list[Member]) -> Deed:
    async def do(store: Store) -> int:
        return (await store.create_room(room, RoomKind.PUBLIC, name="", by="maker", at=AT, members=members)).head  # type: ignore[arg-type]

    return lambda model: model[room].create(members), do


def entries(of: type[Entry], /, **fields: Any) -> st.SearchStrategy[Deed]:
    return st.builds(of, room=rooms, by=users, at=st.just(AT), **fields).map(appended)


deeds = st.one_of(
    entries(
        MessageCreated,
        text=st.sampled_from(["a", "b"]),
        client_id=st.sampled_from([None, None, "c1", "c2"]),
        reply_to=st.none() | targets,
    ),
    entries(MessageCreated, text=st.just("answer"), thread=targets),
    entries(MessageEdited, text=st.just("edited"), target=targets),
    entries(MessageDeleted, target=targets),
    entries(ReactionAdded, target=targets, reaction=st.sampled_from("+-")),
    entries(ReactionRemoved, target=targets, reaction=st.sampled_from("+-")),
    entries(MemberJoined, user=users, role=roles),
    entries(MemberLeft, user=users),
    entries(MemberUpdated, user=users, role=roles),
    entries(RoomUpdated, room_name=st.sampled_from([None, "new"]), kind=st.sampled_from([None, RoomKind.PRIVATE])),
    st.builds(created, rooms, members),
    rooms.map(lambda room: (lambda model: model[room].delete(), lambda store: store.delete_room(room))),
    st.builds(
        lambda room, user, seq: (
            lambda model: model[room].mark(user, seq),
            lambda store: store.mark_read(room, user, seq),
        ),
        rooms,
        users,
        targets,
    ),
)


def by_the_model(deed: Deed, model: dict[str, ModelRoom]) -> Any:
    try:
        return deed[0](model)
    except HubbubError as error:
        return type(error)


def bare(found: list[AnyEntry]) -> list[Any]:
    """Entries without what the model does not know."""
    return [msgspec.structs.replace(entry, id="", room="") for entry in found]


async def compare(store: Store, model: dict[str, ModelRoom], window: tuple[int, int, int]) -> None:
    """Everything a store can be asked, asked."""
    for name, room in model.items():
        known = await store.room(name)  # type: ignore[arg-type]
        assert (known is not None) is room.exists
        if known is None:
            continue
        assert (known.head, known.first, known.name) == (room.head, room.first, room.name)
        assert (known.kind, known.members) == (room.kind, len(room.members))
        whole = bare(room.log)
        assert bare(await log(store, name)) == whole
        listed, count, _ = await store.members(name)  # type: ignore[arg-type]
        assert {member.user: member.role for member in listed} == room.members
        assert count == len(room.members)
        seq, limit, root = window
        page = await store.page(name, before=seq, limit=limit)  # type: ignore[arg-type]
        assert bare(page.entries) == [entry for entry in whole if entry.seq < seq][-limit:]
        assert bare(page.changes) == changes(whole, page.entries)
        page = await store.page(name, after=seq, limit=limit)  # type: ignore[arg-type]
        assert bare(page.entries) == [entry for entry in whole if entry.seq > seq][:limit]
        assert bare(page.changes) == changes(whole, page.entries)
        page = await store.page(name, thread=root, limit=50)  # type: ignore[arg-type]
        assert bare(page.entries) == [
            entry for entry in whole if entry.seq == root or getattr(entry, "thread", None) == root
        ]
        assert bare(page.changes) == changes(whole, page.entries)
        assert bare([e for e in [await store.entry(name, seq)] if e]) == [e for e in whole if e.seq == seq]  # type: ignore
    for user in USERS:
        for name, room in model.items():
            member = await store.member(name, user)  # type: ignore[arg-type]
            assert (member and member.role) == (room.members.get(user) if room.exists else None)
        found = await store.rooms_of(user, also=ROOMS)  # type: ignore[arg-type]
        assert [(each.room, each.role, each.head, each.read, each.unread) for each in found] == [
            (name, room.members.get(user, Role.READER), room.head, room.marks.get(user, 0), room.unread(user))
            for name, room in sorted(model.items())
            if room.exists
        ]


def changes(whole: list[Any], page: list[Any]) -> list[Any]:
    """What a page's changes must be."""
    here = {entry.seq for entry in page}
    messages = {entry.seq for entry in page if isinstance(entry, MessageCreated)}
    later = [e for e in whole if getattr(e, "target", None) in messages and e.seq not in here]
    last_words = {e.target: e.seq for e in later if isinstance(e, MessageEdited | MessageDeleted)}
    return [e for e in later if isinstance(e, ReactionAdded | ReactionRemoved) or last_words[e.target] == e.seq]


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(deeds, min_size=1, max_size=12), max_size=8),
    st.tuples(targets, st.integers(1, 5), targets),
)
def test_a_store_says_what_a_plain_model_of_the_log_says(store_adapter, groups, window):
    """Whatever is done, a few things at once and committed together, and after the data was opened again."""

    async def run() -> None:
        model = {room: ModelRoom() for room in ROOMS}
        with tempfile.TemporaryDirectory() as folder:
            async with store_adapter.make(Path(folder), max_members=MAX_MEMBERS) as store:
                for group in groups:
                    expected = [by_the_model(deed, model) for deed in group]
                    results = await asyncio.gather(*(deed[1](store) for deed in group), return_exceptions=True)
                    assert [type(r) if isinstance(r, BaseException) else r for r in results] == expected
                    await compare(store, model, window)
            if store_adapter.keeps:
                async with store_adapter.make(Path(folder), max_members=MAX_MEMBERS) as store:
                    await compare(store, model, window)

    asyncio.run(run())

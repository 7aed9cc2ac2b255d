"""Stretches of a room's log, read by key: a page costs what is on it, however long the log or the thread is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from hubbub.aws.marshalling import Item
from hubbub.aws.table import Table
from hubbub.model import AnyEntry, Entry, MessageCreated, Page, RoomId
from hubbub.parallel import both, each
from hubbub.protocol import entry_decoder
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.effects import is_seq
from hubbub.store.dynamodb.items import LIVE, RoomItem, Tail, is_end, read_entry, read_room
from hubbub.store.dynamodb.keys import TOP
from hubbub.store.dynamodb.tails import read_tail

MAX_CHANGES = 1_000

GAP = 8
"""Changes of messages that are at most so far apart are asked for together."""

Stretch = Callable[[int, int, int, bool], Awaitable[list[Item]]]
"""The first or last `count` items with low <= seq <= high, ascending: called with (low, high, count, last)."""


class Reader:
    """One page, as `hubbub.ports.Store.page` describes it.

    Args:
        table: the store's.
        room: whose log.
        before, after, around, limit, thread, changes: as there.

    """

    def __init__(
        self,
        table: Table,
        room: RoomId,
        *,
        before: int | None,
        after: int | None,
        around: int | None,
        limit: int,
        thread: int | None,
        changes: bool,
    ) -> None:
        self._table = table
        self._room = room
        self._before = before
        self._after = after
        self._around = around
        self._limit = limit
        self._thread = thread
        self._changes = changes

    async def page(self) -> Page:
        """Read it.

        Raises:
            NotFound: no such room.

        """
        tail, items, has_more = await self._read()
        redacted = tail.room.redacted()
        entries = [entry for item in items if (entry := read_entry(item, redacted)) is not None]
        head = max([tail.place.seq, *(entry.seq for entry in entries)])
        later: list[AnyEntry] = []
        if self._changes and entries:
            # A log's page has every change up to its last entry itself; a thread's page has none.
            later = await self._later(entries, head, redacted)
        return Page(entries, head, has_more, later)

    async def _read(self) -> tuple[Tail, list[Item], bool]:
        if self._thread is not None:
            tail = await read_tail(self._table, self._room)
            stretch = partial(thread_stretch, self._table, tail.room, self._thread)
            return tail, *await self._stretched(stretch)
        # Most logs begin where they are read from, so the room need not be known first.
        log = partial(log_stretch, self._table, self._room)
        seen: list[Item] = []  # with what only says whether there is more

        async def whole_log(low: int, high: int, count: int, last: bool) -> list[Item]:
            found = await log(0, low, high, count, last)
            seen.extend(found)
            return found

        tail, (items, has_more) = await both(read_tail(self._table, self._room), self._stretched(whole_log))
        if any(not _is_of(item, tail.room) for item in seen):
            items, has_more = await self._stretched(partial(log, tail.room.first))
        return tail, [item for item in items if _is_of(item, tail.room)], has_more

    async def _stretched(self, stretch: Stretch) -> tuple[list[Item], bool]:
        """The items that are asked for, and whether there are more in that direction."""
        limit = self._limit
        if self._around is not None:
            return await self._middle(stretch, self._around)
        if self._after is not None:
            items = await stretch(self._after + 1, TOP, limit + 1, False)
            return items[:limit], len(items) > limit
        items = await stretch(0, TOP if self._before is None else self._before - 1, limit + 1, True)
        return (items[1:] if len(items) > limit else items), len(items) > limit

    async def _middle(self, stretch: Stretch, seq: int) -> tuple[list[Item], bool]:
        """The page with `seq` in its middle, or as near to it as the log's ends allow."""
        limit = self._limit
        earlier, later = await both(
            _run(stretch(0, seq - 1, limit + 1, True)), _run(stretch(seq, TOP, limit + 1, False))
        )
        later_count = min(len(later), limit - min(len(earlier), limit // 2))
        earlier_count = min(len(earlier), limit - later_count)
        items = earlier[len(earlier) - earlier_count :] + later[:later_count]
        return items, earlier_count < len(earlier) or later_count < len(later)

    async def _later(self, entries: list[AnyEntry], head: int, redacted: frozenset[int]) -> list[AnyEntry]:
        """What has become of the messages in `entries` by entries that are not there; see `hubbub.model.Page`."""
        after = entries[-1].seq if self._thread is None else 0
        if after >= head:
            return []
        messages = [entry.seq for entry in entries if isinstance(entry, MessageCreated)]
        found = Changes(self._table, self._room, after)
        await each(found.read, _runs(messages))
        words = await self._table.get_many(
            [keys.entry_key(self._room, seq) for target, seq in found.words.items() if target in set(messages)]
        )
        last_words = [entry for item in words.values() if (entry := read_entry(item, redacted)) is not None]
        reactions = sorted(found.reactions_to(set(messages)), key=lambda entry: entry.seq)
        room_left = max(0, MAX_CHANGES - len(last_words))
        shown = reactions[max(0, len(reactions) - room_left) :]
        return sorted([*last_words, *shown], key=lambda entry: entry.seq)


async def _run(stretch: Awaitable[list[Item]]) -> list[Item]:
    return await stretch


def _is_of(item: Item, room: RoomItem) -> bool:
    """Whether the item is an entry that the room still keeps."""
    return item.get("life") == room.life and not is_end(item) and int(str(item["sk"])) >= room.first


async def log_stretch(
    table: Table, room: RoomId, least: int, low: int, high: int, count: int, last: bool
) -> list[Item]:
    """A stretch of a log from `least` on; see `Stretch`."""
    low, high = max(low, least, 0), min(high, TOP)
    items: list[Item] = []
    start = None
    while low <= high and len(items) < count:
        page = await table.query(
            keys.log_pk(room),
            low=keys.digits(low),
            high=keys.digits(high),
            limit=count - len(items),
            descending=last,
            start=start,
        )
        items += page.items
        start = page.next
        if start is None:
            break
    return items[::-1] if last else items


async def thread_stretch(
    table: Table, room: RoomItem, root: int, low: int, high: int, count: int, last: bool
) -> list[Item]:
    """A stretch of a thread: its root, and the messages whose thread it is; see `Stretch`."""
    low, high = max(low, room.first), min(high, TOP)
    if low > high or not is_seq(root):
        return []
    seqs: list[int] = [root] if low <= root <= high and not last else []  # it comes before all its answers
    bounds = keys.thread_sk(root, low), keys.thread_sk(root, high)
    start = None
    while len(seqs) < count:
        page = await table.query(
            keys.thread_pk(room.id), low=bounds[0], high=bounds[1], limit=count, descending=last, start=start
        )
        seqs += [int(str(item["sk"]).rpartition("#")[2]) for item in page.items]
        start = page.next
        if start is None:
            break
    if last and low <= root <= high:
        seqs.append(root)
    places = [keys.entry_key(room.id, seq) for seq in sorted(seqs[:count])]
    found = await table.get_many(places)
    return [found[place] for place in places if place in found and _is_of(found[place], room)]


def _runs(seqs: list[int]) -> list[tuple[int, int]]:
    """The stretches in which these seqs lie close to each other."""
    runs: list[tuple[int, int]] = []
    for seq in seqs:
        if runs and seq - runs[-1][1] <= GAP:
            runs[-1] = runs[-1][0], seq
        else:
            runs.append((seq, seq))
    return runs


class Changes:
    """What has become of messages after a seq, as far as a page shows it.

    Args:
        table, room: where.
        after: the seq.

    Attributes:
        words: by message, the seq of the last entry that changed its words.

    """

    def __init__(self, table: Table, room: RoomId, after: int) -> None:
        self.words: dict[int, int] = {}
        self._table = table
        self._room = room
        self._after = after
        self._reactions: list[tuple[int, AnyEntry]] = []  # with their targets

    def reactions_to(self, messages: set[int]) -> Iterable[AnyEntry]:
        """The reactions to these messages; of each message all, or the last `MAX_CHANGES`."""
        return (entry for target, entry in self._reactions if target in messages)

    async def read(self, run: tuple[int, int]) -> None:
        """Read those of the messages from the one seq to the other, from the last on.

        What is not shown of a message that very much has become of is jumped over.
        """
        low, high = keys.digits(run[0]), f"{keys.digits(run[1])}#x"  # x comes after all that follows a message
        seen = 0
        now: tuple[str, str] | None = None  # the message and what of it the last item was about
        start = None
        while True:
            page = await self._table.query(
                keys.about_pk(self._room), low=low, high=high, limit=MAX_CHANGES, descending=True, start=start
            )
            for item in page.items:
                target, what, seq = str(item["sk"]).split("#")
                seen, now = (seen + 1 if (target, what) == now else 1), (target, what)
                self._note(item, int(target), what, int(seq))
            start = page.next
            if start is None or now is None:
                return
            # In this order from the top: a message's words, its reactions, the message before.
            if now[1] == "w":
                high, start = f"{now[0]}#s", None
            elif seen >= MAX_CHANGES:
                high, start = f"{now[0]}#", None

    def _note(self, item: Item, target: int, what: str, seq: int) -> None:
        if seq <= self._after:
            return
        if what == "w":
            self.words[target] = max(seq, self.words.get(target, 0))
        else:
            self._reactions.append((target, entry_decoder.decode(str(item["body"]))))


async def read_one(table: Table, room: RoomId, seq: int) -> Entry | None:
    """One entry as it is now; None where there is none."""
    if not is_seq(seq):
        return None
    room_key, entry_key = keys.room_key(room), keys.entry_key(room, seq)
    found = await table.get_many([room_key, entry_key])
    known = read_room(room, found.get(room_key))
    item = found.get(entry_key)
    if known.state != LIVE or item is None or not _is_of(item, known):
        return None
    return read_entry(item, known.redacted())

"""What is removed when time passes: entries beyond what is kept of a room's log, and what was left to be finished.

A room's `first` moves before anything below it is removed, so that nobody sees a log with a hole; `swept` follows it,
so that what a failure has left is found. The last entry's item stays, without its words: it says where the log ends.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from hubbub.aws.marshalling import Item
from hubbub.aws.service import AwsError
from hubbub.aws.table import ConditionFailed, Table
from hubbub.clock import Clock
from hubbub.errors import NotFound
from hubbub.model import RoomId, RoomKind
from hubbub.parallel import each
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.items import CLEARING, LIVE, MAKING, RoomItem, Tail, number, place_of, read_entry
from hubbub.store.dynamodb.leaving import clear_attempt, clear_entries, clear_life
from hubbub.store.dynamodb.redaction import finish
from hubbub.store.dynamodb.rooms import room_ids
from hubbub.store.dynamodb.tails import read_item, read_tail

logger = logging.getLogger("hubbub.store")

STEP = 1_000
"""How many entries of one room are removed before the next room has its turn."""

AGES_AT_ONCE = 100
"""How many entries are read at a time to find the first that is young enough."""

LEFTOVERS_AT_ONCE = 25
"""How many things that were left one step finishes."""

ROOMS_AT_ONCE = 100
"""How many rooms of the round one step looks at."""

ROUND_S = 3_600
"""How long after one round through all rooms has begun the next one may."""

SETTLED_MS = 300_000
"""How old an entry is at least before its item is removed: longer than anybody takes who has seen the log end before it
and writes there; for its item is what tells him that he is late."""

REDACTED_MS = 60_000
"""How long readers leave out the words of a deleted message's edits, whether or not they are removed by then: longer
than anybody takes to read a page."""


class Retention:
    """Removes what is not kept.

    Args:
        table, clock: the store's.
        entries, days: what is kept of a room's log; None for all.

    """

    def __init__(self, table: Table, clock: Clock, *, entries: int | None, days: float | None) -> None:
        self._table = table
        self._clock = clock
        self._entries = entries
        self._days = days

    async def sweep(self, rooms: Iterable[RoomId], *, go_round: bool) -> tuple[set[RoomId], bool]:
        """Finish what was left, shorten these rooms' logs, and where it is wanted take a step of the round.

        Returns:
            The rooms of which there is more to be removed, and whether more was left that can be finished now.

        """
        more_left = await self._finish_leftovers()
        if self._entries is None and self._days is None:
            return set(), more_left
        chosen = set(rooms)
        if go_round:
            chosen.update(await self._next_rooms())
        more: set[RoomId] = set()

        async def shorten(room: RoomId) -> None:
            if await self._shorten(room):
                more.add(room)

        await each(shorten, sorted(chosen))
        return more, more_left

    # Logs

    async def _shorten(self, room: RoomId) -> bool:
        """Let the room's log begin where it is to, and remove up to `STEP` entries below; whether there is more."""
        try:
            tail = await read_tail(self._table, room)
        except NotFound:
            return False
        first = await self._kept_from(tail)
        if first > tail.room.first and not await self._move_first(tail, first):
            return True
        swept = await self._settled_below(tail.room, min(first, tail.room.swept + STEP))
        has_removed = swept > tail.room.swept
        if has_removed:
            await self._remove_below(tail, first, swept)
        return (has_removed and swept < first) or first - tail.room.first > STEP

    async def _settled_below(self, room: RoomItem, goal: int) -> int:
        """A seq, at most `goal`, below which entries may be removed: all that may, or some of it."""
        while goal > room.swept and not await self._is_settled(room.id, goal - 1):
            goal = room.swept + (goal - room.swept) // 2
        return goal

    async def _is_settled(self, room: RoomId, seq: int) -> bool:
        """Whether nobody can take the place before this entry for the end of the log any more."""
        item = await self._table.get(keys.entry_key(room, seq))
        entry = None if item is None else read_entry(item)
        return entry is None or self._clock.now_ms() - entry.at >= SETTLED_MS

    async def _kept_from(self, tail: Tail) -> int:
        """The lowest seq that is to be kept; where age decides, as far as `STEP` entries tell."""
        first, head = tail.room.first, tail.place.seq
        kept_from = first if self._entries is None else max(first, head - self._entries + 1)
        if self._days is None:
            return kept_from
        oldest_ms = self._clock.now_ms() - int(self._days * 86_400_000)
        upto = min(kept_from + STEP, head)
        low = kept_from
        while low <= upto:
            # As a rule the first one is young enough.
            limit = 1 if low == kept_from else AGES_AT_ONCE
            page = await self._table.query(
                keys.log_pk(tail.room.id), low=keys.digits(low), high=keys.digits(upto), limit=limit
            )
            for item in page.items:
                entry = read_entry(item)
                if entry is not None and entry.at >= oldest_ms:
                    return max(kept_from, entry.seq)
            if page.next is None:
                break
            low = int(page.next) + 1
        return max(kept_from, upto + 1)

    async def _move_first(self, tail: Tail, first: int) -> bool:
        """Let the room's log begin at `first`; False if somebody else was at it meanwhile."""
        room, place = tail
        last = place
        if first <= place.seq:
            item = await self._table.get(keys.entry_key(room.id, first - 1))
            if item is None:
                return False
            last = place_of(item)
        try:
            await self._table.update(
                keys.room_key(room.id),
                "SET #first = :first, dropped = :dropped",
                condition="#state = :live AND life = :life AND #first = :was",
                values={
                    "first": first,
                    "dropped": last.messages,
                    "live": LIVE,
                    "life": room.life,
                    "was": room.first,
                },
            )
        except ConditionFailed:
            return False
        return True

    async def _remove_below(self, tail: Tail, first: int, swept: int) -> None:
        """Remove entries below `swept`, which is at most `first`; the item of the log's end stays as a place."""
        room, place = tail
        await clear_entries(self._table, room.id, room.swept, min(swept, place.seq) - 1)
        if first > place.seq:
            await self._table.update(
                keys.entry_key(room.id, place.seq), "REMOVE body", condition="attribute_exists(pk)", repeat=True
            )
        try:
            await self._table.update(
                keys.room_key(room.id),
                "SET swept = :swept",
                condition="life = :life AND swept < :swept",
                values={"swept": min(swept, place.seq), "life": room.life},
                repeat=True,
            )
        except ConditionFailed:  # somebody else has done it, or the room is another one by now
            return

    # The round

    async def _next_rooms(self) -> list[RoomId]:
        """The next rooms of the round, which all processes that sweep share; none while it rests."""
        item = await self._table.get(keys.ROUND)
        now_ms = self._clock.now_ms()
        kinds = list(RoomKind)
        begun, kind, after = (0, len(kinds), "") if item is None else _position(item)
        if kind == len(kinds):
            if now_ms - begun < ROUND_S * 1_000:
                return []
            begun, kind, after = now_ms, 0, ""
        rooms = await room_ids(self._table, kinds[kind], after, ROOMS_AT_ONCE)
        reached: Item = {"begun": begun, "kind": kind, "after": rooms[-1] if rooms else ""}
        if len(rooms) < ROOMS_AT_ONCE:
            reached = {"begun": begun, "kind": kind + 1, "after": ""}
        return rooms if await self._claim(item, reached) else []

    async def _claim(self, item: Item | None, reached: Item) -> bool:
        """Say that this stretch of the round is taken; False if somebody else has said so."""
        condition, was = "attribute_not_exists(pk)", {}
        if item is not None:
            condition = "begun = :begun AND kind = :kind AND #after = :after"
            was = {name: item[name] for name in ("begun", "kind", "after")}
        pk, sk = keys.ROUND
        try:
            await self._table.put({"pk": pk, "sk": sk, **reached}, condition=condition, values=was)
        except ConditionFailed:
            return False
        return True

    # What was left to be finished

    async def _finish_leftovers(self) -> bool:
        """Finish up to `LEFTOVERS_AT_ONCE` things whose time has come; whether those were not all."""
        done = 0
        start = None
        while True:
            page = await self._table.query(keys.LEFTOVERS, limit=LEFTOVERS_AT_ONCE, start=start)
            for item in page.items:
                if done == LEFTOVERS_AT_ONCE:
                    return True
                try:
                    is_done = await self._finish(item)
                except AwsError as error:
                    logger.warning("what %s has left is not removed yet: %s", item["sk"], error)
                    continue
                if is_done:
                    await self._table.delete((str(item["pk"]), str(item["sk"])))
                    done += 1
            start = page.next
            if start is None:
                return False

    async def _finish(self, left: Item) -> bool:
        """Finish one thing; False if its time has not come."""
        room = RoomId(str(left["room"]))
        if left["what"] == "life":
            if not await self._is_settled(room, number(left, "last")):
                return False
            await clear_life(self._table, room, left)
            return True
        if left["what"] == "attempt":
            known = await read_item(self._table, room)
            if known.life != left["life"] or known.state not in (MAKING, CLEARING):
                return True
            if known.until >= self._clock.now_ms():
                return False
            await clear_attempt(self._table, known)
            return True
        return await self._finish_words(room, left)

    async def _finish_words(self, room: RoomId, left: Item) -> bool:
        """Remove words of a deleted message's edits, and in the end what tells readers to leave them out."""
        word = str(left["word"])
        target, _, at_ms = word.partition("@")
        await finish(self._table, room, int(target))
        if self._clock.now_ms() - int(at_ms) < REDACTED_MS:
            return False
        try:
            await self._table.update(
                keys.room_key(room),
                "DELETE redacting :word",
                condition="life = :life",
                values={"word": {word}, "life": left["life"]},
                repeat=True,
            )
        except ConditionFailed:
            logger.debug("the room %s is another one by now", room)
        return True


def _position(item: Item) -> tuple[int, int, str]:
    return number(item, "begun"), number(item, "kind"), str(item["after"])

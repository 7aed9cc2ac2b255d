"""Serves the listeners of one shard of a room: what they lack of its log, page by page, in passes up to what is wanted.

Why nobody is passed over: a listener's item is written before he reads the log's end, and listeners are read after the
entries that they are to get were written. So whoever is not among them has those entries from the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from hubbub.aws.marshalling import Key
from hubbub.aws.table import ConditionFailed, QueryPage, Table
from hubbub.clock import Clock
from hubbub.errors import NotFound
from hubbub.fanout.apigateway.keys import Listener, listener_of, listeners_pk
from hubbub.fanout.apigateway.lease import Lease
from hubbub.fanout.apigateway.posts import MAX_POST_BYTES, Frame
from hubbub.fanout.apigateway.tally import Tally
from hubbub.fanout.apigateway.volley import Mail, Volley
from hubbub.model import RoomId
from hubbub.parallel import each
from hubbub.ports import ReadAfter

logger = logging.getLogger(__name__)

PAGE = 1_000
"""How many listeners are read and served at a time; in between it is noted how far that has come."""

MAX_BEHIND = 2_000
"""About how many entries are read for one pass; what goes beyond is another pass."""


class Excerpt:
    """What of a room's log is to be delivered: what came with the job, and what is read when that is not enough.

    Args:
        room: whose log.
        read: reads it.
        known: frames that came with the job, by seq; without holes.
        tally: where reads are counted.

    """

    def __init__(self, room: RoomId, read: ReadAfter, known: Mapping[int, Frame], tally: Tally) -> None:
        self._room = room
        self._read = read
        self._frames = dict(known)
        self._from = min(known, default=0) - 1 if known else None  # all after it are known; None when none are
        self._tally = tally
        self.is_short = False  # whether the log had less than was looked for

    async def between(self, after: int, upto: int) -> list[tuple[int, Frame]]:
        """The entries after `after` up to `upto`, as far as there are any.

        Raises:
            Unavailable: the log cannot be read.

        """
        if self._from is None or after < self._from or max(self._frames, default=0) < upto:
            await self._fetch(after, upto)
        return [(seq, self._frames[seq]) for seq in sorted(self._frames) if after < seq <= upto]

    async def _fetch(self, after: int, upto: int) -> None:
        last, fetched = after, 0
        while last < upto and fetched < MAX_BEHIND:
            self._tally.reads += 1
            try:
                entries = await self._read(self._room, last)
            except NotFound:  # the room was deleted meanwhile
                entries = []
            if not entries:
                self.is_short = max(self._frames, default=0) < upto
                break
            for seq, frame in entries:
                self._frames.setdefault(seq, Frame(frame))
            last = max(last, entries[-1][0])
            fetched += len(entries)
        self._from = after if self._from is None else min(self._from, after)


class Pass(NamedTuple):
    """What came of going through the listeners once.

    Attributes:
        upto: up to which entry they were served, or were to be where it had to end before; None where the log had
            nothing to serve them with.
        listeners: how many there are.
        lacked: whether any of them lacked something.
        page: whom it reached last, where it had to end before all were served: empty for nobody; else None.

    """

    upto: int | None
    listeners: int
    lacked: bool
    page: str | None = None


class Shard:
    """One shard's listeners.

    Args:
        table: where they are.
        clock: time.
        room, shard: whose.

    """

    def __init__(self, table: Table, *, clock: Clock, room: RoomId, shard: int) -> None:
        self._table = table
        self._clock = clock
        self._pk = listeners_pk(room, shard)

    async def query(self, start: str | None = None) -> QueryPage:
        """A page of their items."""
        return await self._table.query(self._pk, limit=PAGE, start=start)

    def hearing(self, page: QueryPage) -> list[Listener]:
        """Those of a page who are to get what is said now; an item that tells of nobody is passed over."""
        now_s = self._clock.now_ms() // 1_000
        hearing = []
        for item in page.items:
            try:
                listener = listener_of(item)
            except ValueError as error:  # of which msgspec.ValidationError is one
                logger.error("%s has an item that is no listener: %s", self._pk, error)
                continue
            if listener.hears(now_s):
                hearing.append(listener)
        return hearing

    async def count(self) -> int:
        """About how many there are."""
        count, start = 0, None
        while True:
            page = await self._table.query(self._pk, start=start, consistent=False, count_only=True)
            count += page.count
            start = page.next
            if start is None:
                return count

    async def go_through(
        self, lease: Lease, log: Excerpt, volley: Volley, *, upto: int, first: QueryPage | None, tally: Tally
    ) -> Pass:
        """Serve all listeners up to the entry `upto`, or as far as the log has it; a pass that was broken off goes on.

        Args:
            lease: held; it says up to where they were served before.
            log: the entries.
            volley: posts them.
            upto: where the pass ends; the entry was written before this is called.
            first: the first page of listeners, if it was read already, after that entry was written.
            tally: where recipients are counted.

        """
        start = lease.state.page if lease.state.passing is not None else None
        delivered = -1 if lease.state.delivered is None else lease.state.delivered
        page = first if first is not None and start is None else await self.query(start)
        listeners, served = 0, None
        tally.passes += 1
        while True:
            listeners += page.count
            hearing = self.hearing(page)
            after = min((listener.knows(delivered) for listener in hearing), default=upto)
            following: asyncio.Task[QueryPage] | None = None
            try:
                if page.next is not None:
                    following = asyncio.create_task(self.query(page.next))
                if after < upto:
                    entries = await log.between(after, upto)
                    if not entries:
                        return Pass(served, listeners, lacked=True)
                    upto = served = entries[-1][0]
                    mail = _mail(hearing, entries, delivered)
                    tally.recipients += len(mail)
                    begun = await volley.fire([each for _, each in mail], lambda: lease.is_held)
                    await self._caught_up(hearing, {key for key, _ in mail[begun:]}, upto, delivered)
                    if begun < len(mail):
                        return Pass(upto, listeners, lacked=True, page=mail[begun - 1][0] if begun else start or "")
                if following is None:
                    return Pass(upto, listeners, lacked=served is not None)
                start = page.next or ""
                await lease.save(upto, start)
                page = await following
            finally:
                if following is not None:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)

    async def _caught_up(self, hearing: Sequence[Listener], lacking: Set[str], upto: int, delivered: int) -> None:
        """Let those who were behind be served like the others from now on, but for the `lacking`, by their keys."""
        behind = [listener for listener in hearing if listener.is_behind and listener.key[1] not in lacking]
        await each(lambda listener: caught_up(self._table, listener.key, upto, whole=upto >= delivered), behind)


async def caught_up(table: Table, key: Key, upto: int, *, whole: bool = True) -> None:
    """Note of a listener's item that it has all entries up to `upto`; with `whole` it is behind the others no more.

    Raises:
        AwsError: the table cannot be reached.

    """
    change = "SET #after = :upto" + (" REMOVE #behind" if whole else "")
    try:
        await table.update(key, change, condition="attribute_exists(pk)", values={"upto": upto}, repeat=True)
    except ConditionFailed:  # it was taken out meanwhile
        return


def _mail(hearing: Sequence[Listener], entries: Sequence[tuple[int, Frame]], delivered: int) -> list[tuple[str, Mail]]:
    """What each listener of a page lacks, with the listener's key; those who lack nothing are not among them.

    An entry that is too long for any post is left out: its reader finds the hole, and reads the log.
    """
    can_go = [(seq, frame) for seq, frame in entries if len(frame.body) <= MAX_POST_BYTES]
    for seq, frame in entries:
        if len(frame.body) > MAX_POST_BYTES:
            logger.error("entry %d has %d bytes, a post at most %d", seq, len(frame.body), MAX_POST_BYTES)
    whole, first = [frame for _, frame in can_go], entries[0][0]
    mail = []
    for listener in hearing:
        known = listener.knows(delivered)
        frames = whole if known < first else [frame for seq, frame in can_go if seq > known]
        if frames:
            mail.append((listener.key[1], Mail(listener.connection, frames)))
    return mail

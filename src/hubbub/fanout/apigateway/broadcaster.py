"""Does a broadcast's jobs: each room's entries to all who listen to it, in order, each once unless something died.

A job may come twice, late, or at the same time as others: who holds a shard's lease serves it up to what is wanted, and
everybody else leaves it to him. What is too much for one broadcaster is handed on in parts, as a tree. It is made for
functions that are ended at a time, or killed: the rest is left to a successor, who goes on where it says.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from hubbub.aws.service import AwsError
from hubbub.aws.table import QueryPage, Table
from hubbub.clock import Clock
from hubbub.entropy import random_bytes
from hubbub.fanout.apigateway.jobs import MAX_FRAMES_BYTES, Announce, AnyJob, Deliver, Part, Signal, Transport
from hubbub.fanout.apigateway.keys import MAX_SHARDS, delivery_key
from hubbub.fanout.apigateway.lease import Lease, Lost
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Frame, Posts
from hubbub.fanout.apigateway.shard import Excerpt, Pass, Shard
from hubbub.fanout.apigateway.tally import Tally
from hubbub.fanout.apigateway.volley import Forget, Lines, Mail, Volley
from hubbub.model import ConnectionId
from hubbub.parallel import each
from hubbub.ports import ReadAfter

logger = logging.getLogger(__name__)

PER_SHARD = 1_000
"""With more listeners a shard than that on average, a room gets twice as many shards."""

PER_BROADCASTER_S = 500
"""How many posts a second one broadcaster makes at the very least: with more of them than the pace divided by that, a
room gets no requests any faster, and they wait for each other."""

LEAST_MOST = 4
"""How many broadcasters may serve a room at a time however slow the pace is."""

COUNT_EVERY_MS = 60_000
"""How old the count of a spread room's listeners may be."""

MARGIN_S = 8.0
"""How long before its time is over a broadcaster begins nothing new: what is under way must end, and the rest be handed
over."""


class Broadcaster:
    """Does jobs, any number at a time; it belongs to one event loop.

    Args:
        table: where listeners and leases are.
        posts: makes the posts.
        pace: gives out the account's requests; it had better be what `posts` has as its watch.
        transport: hands over what is left to others.
        read: reads a room's entries after a seq from the store.
        forget: takes a connection that is gone out of the directory.
        clock: time.
        report: told the numbers of each job when it is done.
        split: how many listeners one broadcaster serves; in rooms that are so large that they wait for the pace
            anyway, more.
        branch: to how many others one hands parts.
        at_once: how many posts are under way at a time.

    """

    def __init__(
        self,
        table: Table,
        posts: Posts,
        pace: Pace,
        transport: Transport,
        *,
        read: ReadAfter,
        forget: Forget,
        clock: Clock,
        report: Callable[[Tally], None] = lambda tally: None,
        split: int = 1_000,
        branch: int = 10,
        at_once: int = 100,
    ) -> None:
        if split < 1 or branch < 1 or at_once < 1:
            raise ValueError(
                f"broadcaster: expected split, branch and at_once from 1, got {split}, {branch}, {at_once}"
            )
        self._table = table
        self._posts = posts
        self._pace = pace
        self._transport = transport
        self._read = read
        self._forget = forget
        self._clock = clock
        self._report = report
        self._split = split
        self._branch = branch
        self._lines = Lines(at_once)

    def __repr__(self) -> str:
        return f"<Broadcaster by {self._posts!r} at {self._pace!r}>"

    async def run(self, job: AnyJob, *, remaining_s: float) -> None:
        """Do a job; what it takes longer than `remaining_s` for is handed over as jobs of its own.

        Raises:
            Exception: whatever it is (the table or the log cannot be reached, the lease is contended, a defect), the
                job is to come again.

        """
        began = self._clock.monotonic()
        margin_s = min(MARGIN_S, remaining_s / 4)
        tally = Tally(kind=str(job.__struct_config__.tag), room=job.room)
        volley = Volley(
            self._posts,
            self._pace,
            self._lines,
            clock=self._clock,
            forget=self._forget,
            tally=tally,
            until=began + remaining_s - margin_s,
            patience_s=self._posts.patience_s,
            grace_s=margin_s / 4,
        )
        work = _Work(self, job, volley, tally)
        try:
            await work.do(job)
            await volley.finish()
        finally:
            await volley.abandon()
            tally.duration_s = self._clock.monotonic() - began
            self._report(tally)


class _Work:
    """One job that is being done."""

    def __init__(self, broadcaster: Broadcaster, job: AnyJob, volley: Volley, tally: Tally) -> None:
        self._by = broadcaster
        self._stem = hashlib.blake2s(job.id.encode(), digest_size=12).hexdigest()  # what its parts' ids begin with
        self._room = job.room
        self._volley = volley
        self._tally = tally
        self._told: dict[int, int] = {}  # up to which head each shard's listeners were told, when it was served

    async def do(self, job: AnyJob) -> None:
        match job:
            case Deliver(seq=seq, frame=frame):
                await self._serve(0, seq, {} if frame is None else {seq: frame})
            case Announce(head=head, frame=frame):
                await self._announce(0, head, frame)
            case Signal(frame=frame, exclude=exclude):
                await self._signal_all(frame, exclude)
            case Part():
                await self._part(job)

    # Entries

    async def _serve(self, shard: int, seq: int, frames: dict[int, str]) -> bool:
        """Serve a shard up to `seq` and whatever is wanted meanwhile; False when nobody in it lacked anything.

        The first page of listeners is read while the lease is taken: the entry was written long before. Whoever serves
        shard 0 hands the room's other shards to others before each pass: what is wanted of a room is noted there.
        """
        by = self._by
        listing = Shard(by._table, clock=by._clock, room=self._room, shard=shard)
        first = asyncio.create_task(listing.query())
        try:
            async with Lease(by._table, clock=by._clock, room=self._room, shard=shard) as lease:
                is_held = await lease.acquire(seq)
                self._told[shard] = lease.state.told
                if not is_held:
                    return lease.state.delivered is None or lease.state.delivered < seq
                return await self._passes(lease, listing, await first, shard, seq, frames)
        except Lost as lost:
            logger.warning("somebody else goes on: %s", lost)
            return True
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    async def _passes(
        self,
        lease: Lease,
        listing: Shard,
        first: QueryPage | None,
        shard: int,
        target: int,
        frames: dict[int, str],
    ) -> bool:
        """Go through the listeners until all that is wanted is delivered; whether anybody lacked something at first."""
        known = {seq: Frame(text.encode()) for seq, text in frames.items()}
        served = lease.state.delivered
        if served is not None and served >= target:  # what is left was wanted while the last holder gave it up
            target, first, known, frames = max(served, lease.state.wanted), None, {}, {}
        if lease.state.anew and lease.state.passing is None:  # who asked may have come after the first page was read
            first = None
            await lease.turn(served)
        lacked_at_first: bool | None = None
        while True:
            is_resumed = lease.state.passing is not None
            upto = lease.state.passing or target
            if shard == 0 and not is_resumed:
                await self._spread(lease, upto, frames)
            log = Excerpt(self._room, self._by._read, known, self._tally)
            done = await listing.go_through(lease, log, self._volley, upto=upto, first=first, tally=self._tally)
            if lacked_at_first is None:
                lacked_at_first = done.lacked
            if done.page is not None:
                await self._leave(lease, shard, target, done.upto, done.page)
                return True
            if shard == 0 and not is_resumed:
                await self._count(lease, done)
            delivered = _delivered(lease, done)
            if upto >= target and (delivered is None or delivered >= target or log.is_short):
                listeners = lease.state.listeners if is_resumed or lease.state.shards > 1 else done.listeners
                if await lease.release(delivered, target, listeners=listeners):
                    return lacked_at_first
            if self._volley.is_over():
                await self._leave(lease, shard, target, delivered)
                return True
            await lease.turn(delivered)
            target = max(target, lease.state.wanted)
            first, known, frames = None, {}, {}

    async def _leave(self, lease: Lease, shard: int, target: int, upto: int | None, page: str | None = None) -> None:
        """Note how far it has come, and hand the rest of the shard to a successor.

        Args:
            lease: held.
            shard: which.
            target: up to where it is to be served.
            upto: up to where it was served; or to be, where there is a `page`.
            page: whom a pass that is broken off reached last.

        """
        if page is None:
            await lease.leave(upto)
        elif page:
            await lease.leave(None, upto, page)
        else:
            await lease.leave(None)
        self._tally.is_handed_over = True
        wanted = max(target, lease.state.wanted)
        part = Part(id=random_bytes(12).hex(), room=self._room, first_shard=shard, last_shard=shard, upto=wanted)
        await self._hand([part])

    # The tree

    async def _spread(self, lease: Lease, upto: int, frames: dict[int, str]) -> None:
        """Hand the room's other shards to others, if it has any."""
        state = lease.state
        if state.shards <= 1:
            return
        per_shard = max(1, state.listeners // state.shards or PER_SHARD)
        most = max(LEAST_MOST, math.ceil(self._by._pace.whole / PER_BROADCASTER_S))
        shares = max(1, self._by._split // per_shard, math.ceil((state.shards - 1) / most))
        carried = list(frames.items()) if sum(len(text) for text in frames.values()) <= MAX_FRAMES_BYTES // 2 else []
        whole = Part(
            id=f"{self._stem}.{upto}",
            room=self._room,
            first_shard=1,
            last_shard=state.shards - 1,
            each=shares,
            upto=upto,
            frames=carried,
        )
        await self._branch(whole, 1)

    async def _branch(self, whole: Part, first: int) -> None:
        """Hand a part's shards from `first` on to as many others as there may be."""
        count = whole.last_shard - first + 1
        if count <= 0:
            return
        groups = -(-count // whole.each)  # rounded up
        children = min(self._by._branch, groups)
        bounds = [first + whole.each * (groups * n // children) for n in range(children)] + [whole.last_shard + 1]
        parts = [_narrowed(whole, low, high - 1) for low, high in itertools.pairwise(bounds) if low < high]
        await self._hand(parts)

    async def _hand(self, parts: Sequence[Part]) -> None:
        self._tally.parts += len(parts)
        await self._by._transport.hand(parts)

    async def _part(self, job: Part) -> None:
        """Hand on what is beyond one's own share of a part, and serve that."""
        own = range(job.first_shard, min(job.last_shard + 1, job.first_shard + job.each))
        await self._branch(job, own.stop)
        if job.signal is not None:
            frame, signal = Frame(job.signal.encode()), job.exclude
            await each(lambda shard: self._signal(shard, frame, signal), own)
        elif job.announce is not None:
            words = job.announce
            await each(lambda shard: self._announce(shard, job.upto, words), own)
        else:
            await each(lambda shard: self._serve(shard, job.upto, dict(job.frames)), own)

    # How many listen

    async def _count(self, lease: Lease, done: Pass) -> None:
        """See from time to time how many listen to the room, and spread it over more shards if these are too many."""
        state = lease.state
        if state.shards == 1:
            if done.listeners > PER_SHARD:
                await lease.spread(_shards_for(done.listeners, 1), done.listeners)
            return
        if self._by._clock.now_ms() - state.counted < COUNT_EVERY_MS:
            return
        counts = await each(lambda n: self._shard(n).count(), range(1, state.shards))
        total = done.listeners + sum(counts)
        await lease.spread(_shards_for(total, state.shards), total)

    def _shard(self, shard: int) -> Shard:
        return Shard(self._by._table, clock=self._by._clock, room=self._room, shard=shard)

    # Heads

    async def _announce(self, shard: int, head: int, frame: str) -> None:
        """Deliver what was lost up to `head`; where nothing was, tell the listeners once."""
        if await self._serve(shard, head, {}) or self._told.get(shard, 0) >= head:
            return
        if shard == 0:
            await self._announce_others(head, frame)
        if not await self._tell(shard, Frame(frame.encode())):
            await self._hand([self._announcement(shard, shard, head, frame)])
            return
        # Only now it is told: whoever died over it would have it told again.
        await Lease(self._by._table, clock=self._by._clock, room=self._room, shard=shard).tell(head)

    async def _tell(self, shard: int, frame: Frame) -> bool:
        """Post a head's frame to a shard's listeners, as patiently as an entry; False when time ran out before."""
        listing = self._shard(shard)
        start: str | None = None
        while True:
            page = await listing.query(start)
            mail = [Mail(each.connection, [frame]) for each in listing.hearing(page)]
            self._tally.recipients += len(mail)
            if await self._volley.fire(mail) < len(mail):
                return False
            start = page.next
            if start is None:
                await self._volley.finish()
                return True

    async def _announce_others(self, head: int, frame: str) -> None:
        """Hand the announcement of a head to the other shards: they may lack something where shard 0 does not."""
        shards = await self._shards()
        if shards > 1:
            await self._branch(self._announcement(1, shards - 1, head, frame), 1)

    def _announcement(self, first: int, last: int, head: int, frame: str) -> Part:
        job = f"{self._stem}.{head}.{first}"
        return Part(id=job, room=self._room, first_shard=first, last_shard=last, upto=head, announce=frame)

    # Signals

    async def _signal_all(self, frame: str, exclude: ConnectionId | None) -> None:
        """Post to all listeners once; what fails is lost, as signals may be."""
        try:
            shards, _ = await asyncio.gather(self._shards(), self._signal(0, Frame(frame.encode()), exclude))
        except AwsError as error:
            logger.info("a signal was lost: %s", error)
            return
        if shards > 1:
            whole = Part(
                id=f"{self._stem}.s",
                room=self._room,
                first_shard=1,
                last_shard=shards - 1,
                signal=frame,
                exclude=exclude,
            )
            await self._branch(whole, 1)

    async def _signal(self, shard: int, frame: Frame, exclude: ConnectionId | None) -> None:
        listing = self._shard(shard)
        start: str | None = None
        while not self._volley.is_over():
            page = await listing.query(start)
            connections = [each.connection for each in listing.hearing(page) if each.connection != exclude]
            self._tally.recipients += len(connections)
            await self._volley.shout(connections, frame)
            start = page.next
            if start is None:
                return

    async def _shards(self) -> int:
        item: dict[str, Any] | None = await self._by._table.get(  # Any: an item's values
            delivery_key(self._room), consistent=False, only=("shards",)
        )
        return int((item or {}).get("shards", 1))


def _narrowed(whole: Part, first: int, last: int) -> Part:
    """The part of a part that these shards are."""
    return Part(
        id=f"{whole.id}.{first}",
        room=whole.room,
        first_shard=first,
        last_shard=last,
        each=whole.each,
        upto=whole.upto,
        frames=whole.frames,
        announce=whole.announce,
        signal=whole.signal,
        exclude=whole.exclude,
    )


def _delivered(lease: Lease, done: Pass) -> int | None:
    """Up to where a shard is served after a pass."""
    before = lease.state.delivered
    if done.upto is None or before is None:
        return done.upto if before is None else before
    return max(before, done.upto)


def _shards_for(listeners: int, least: int) -> int:
    """The least power of two of shards with no more than `PER_SHARD` listeners each."""
    shards = least
    while shards < MAX_SHARDS and listeners > PER_SHARD * shards:
        shards *= 2
    return shards

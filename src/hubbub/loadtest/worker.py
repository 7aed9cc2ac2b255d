"""One process of a load test: holds its connections, sends when it is time to, and reports every second.

Messages are sent when they are due, whether earlier ones were answered or not, and durations count from when a message
was due. So a server that stalls is charged for everything that should have happened meanwhile, and so is this process
when it is late itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
import time
from array import array
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
import uvloop

from hubbub.loadtest.frames import Mark, Reader
from hubbub.loadtest.histogram import Histogram
from hubbub.loadtest.logs import Tally
from hubbub.loadtest.member import Member, Refused, Trouble
from hubbub.loadtest.plan import Plan, raise_open_files
from hubbub.loadtest.prose import prose
from hubbub.loadtest.telling import (
    Broken,
    Counts,
    End,
    Finish,
    Go,
    Order,
    Ready,
    Report,
    RoomEnd,
    Sent,
    Stop,
    Tick,
    line,
    read_begin,
    read_order,
    until_second,
)
from hubbub.loadtest.tokens import NoToken, Tokens
from hubbub.loadtest.wire import NotConnected, Target, find, trust

T = TypeVar("T")

OPENING = 500
"""Handshakes of a process that are under way at a time, also in a storm."""

TRIES = 5
"""How often a connection is tried before the load begins."""

_PINGED_EVERY_S = 240
"""Below the ten minutes after which API Gateway and others give up a silent connection."""

_LEFT_ALONE_S = 30.0
"""How long at the most a server is left alone because it said so."""

_ACTS = 64
"""What is done in a row of what is late already."""

_LOOP_STEP_S = 0.05
_STOPPED_SETTLE_S = 2.0
_SETTLES = 6
"""What is still coming is waited for up to so many times the time in which nothing came."""


async def look_up(plan: Plan) -> Target:
    """Where the plan's URL leads.

    Raises:
        NotConnected: its host is not known.

    """
    return await find(plan.url, deflates=plan.deflates, v4=bool(plan.sources))


class Worker:
    """The process's connections and what they count; the `Desk` of its members.

    Args:
        plan: of the load test.
        process: which of its processes this is.
        target: where the plan's URL leads.
        tokens: for its members.

    """

    def __init__(self, plan: Plan, process: int, target: Target, tokens: Tokens) -> None:
        self.plan = plan
        self.process = process
        self.target = target
        self.tokens = tokens
        self.bench = plan.bench
        self.text = prose(plan.size_bytes)
        self.reader = Reader(plan.bench, self._seen_at)
        self.inflating = Reader(plan.bench, self._seen_at, inflates=True)
        self.tls = trust(plan.ca) if target.secure else None
        self.counts = Counts()
        self.ack, self.delivery, self.slow_delivery = Histogram(), Histogram(), Histogram()
        self.resumed = Histogram()
        self.history, self.connect, self.lateness, self.loop_lag = Histogram(), Histogram(), Histogram(), Histogram()
        self.resets, self.strayed = 0, 0
        self.apart = frozenset(plan.rooms) if plan.parts else frozenset()  # rooms of which only who is in them may hear
        self._tallies: dict[str, Tally] = {}
        self._acked = array("q")  # by number of a message: its seq by its answer; 0 for none
        self._seen = array("q")  # and as a listener was given it
        self._heads_known: dict[str, int] = {}  # where rooms end at least
        self._stored_twice = 0
        self._storm_back = Histogram()
        self._cut, self._back = 0, 0
        self._opening = asyncio.Semaphore(OPENING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._delivered = 0  # as last reported
        self._answered_at = 0
        self._waits = 0
        self._slow_reading = False  # those that do not read, read
        self._stopping = asyncio.Event()
        self._go: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._heads: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()
        self.members = [
            Member(
                index,
                plan.rooms_of(index),
                self,
                plan.sources[index % len(plan.sources)] if plan.sources else None,
                is_slow=plan.is_slow(index),
                grants=plan.grants,
                sends=index < plan.senders,
            )
            for index in plan.members_of(process)
        ]

    # What members tell and ask

    def tally(self, room: str) -> Tally:
        """The room's tally, one for all members."""
        return self._tallies.setdefault(room, Tally(room))

    def acknowledged(self, number: int, room: str, seq: int) -> None:
        """A message of this process has this place in its room's log."""
        self._answered_at = time.monotonic_ns()
        self._acked[number] = seq
        self._heads_known[room] = max(self._heads_known.get(room, 0), seq)

    def _seen_at(self, mark: Mark, room: str, seq: int) -> None:
        if mark.worker != self.process or not 0 <= mark.number < len(self._seen):
            return
        if self._seen[mark.number] not in (0, seq):
            self._stored_twice += 1
        self._seen[mark.number] = seq

    def lost(self, member: Member, code: int, reason: str) -> None:
        """A connection has ended: count it, and let the member come back."""
        if not member.cut_at:
            counted = self.counts.slow_closed if member.is_slow else self.counts.closed
            counted[str(code)] = counted.get(str(code), 0) + 1
        self._start(self._come_back(member))

    def _start(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The course of it

    def order(self, order: Order) -> None:
        """Take a word of the coordinator."""
        if isinstance(order, Go) and not self._go.done():
            self._go.set_result(order.start)
        elif isinstance(order, Stop):
            self._stopping.set()
        elif isinstance(order, Finish) and not self._heads.done():
            self._heads.set_result(order.heads)

    async def run(self, tell: Telling) -> None:
        """Do all of it, and tell how it goes."""
        self._start(self._report(tell))
        self._start(self._watch_loop())
        self._start(self._ping())
        ramp = asyncio.create_task(self._ramp())
        await self._or_stop(ramp)
        if not ramp.done():
            ramp.cancel()
            await asyncio.wait({ramp})
        # What exists now stays: the collector need not look at it again and again, which would stall this process.
        gc.collect()
        gc.freeze()
        tell(self._tick())
        tell(Ready(self.process))
        start = await self._or_stop(self._go)
        if start is not None:
            await self._load(start)
        await self._answers()
        tell(self._tick())
        tell(Sent(self.process, self._ends(), self._answered_at))
        await self._settle(await self._heads)
        end = self._end()
        tell(self._tick())
        tell(end)
        for task in list(self._tasks):
            task.cancel()
        for member in self.members:
            member.close()
        await asyncio.sleep(0.2)

    async def _or_stop(self, waited: asyncio.Future[T]) -> T | None:
        """Its result, or None when the load test was stopped before."""
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((waited, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return waited.result() if waited.done() and not self._stopping.is_set() else None

    async def _ramp(self) -> None:
        """Connect all, so many a second."""
        apart = 1e9 * self.plan.processes / self.plan.ramp
        begun = time.monotonic_ns()
        async with asyncio.TaskGroup() as group:
            for number, member in enumerate(self.members):
                due = begun + int(number * apart)
                ahead = due - time.monotonic_ns()
                if ahead > 0:
                    await asyncio.sleep(ahead / 1e9)
                if self._stopping.is_set():
                    return
                group.create_task(self._open_first(member, due))

    async def _open_first(self, member: Member, due: int) -> None:
        for number in range(TRIES):
            left_alone_s = await self._try(member, due)
            if left_alone_s is None or self._stopping.is_set():
                return
            await asyncio.sleep(left_alone_s + random.uniform(0, 0.25 * 2**number))  # noqa: S311  no secret

    async def _come_back(self, member: Member) -> None:
        wait_s = 0.0 if member.cut_at else random.uniform(0, 0.25)  # noqa: S311
        since, tried = 0, 0
        while not (self._stopping.is_set() and self._heads.done()):
            await asyncio.sleep(wait_s)
            since = since or time.monotonic_ns()
            left_alone_s = await self._try(member, since)
            if left_alone_s is None:
                self._has_come_back(member)
                return
            tried += 1
            wait_s = left_alone_s + random.uniform(0.05, min(20.0, 0.25 * 2**tried))  # noqa: S311

    def _has_come_back(self, member: Member) -> None:
        if member.cut_at:
            self._storm_back.record((time.monotonic_ns() - member.cut_at) // 1_000)
            self._back += 1
            member.cut_at = 0
        if member.is_slow and not self._slow_reading:
            member.stop_reading()

    async def _try(self, member: Member, due: int) -> float | None:
        """Open it, in its turn; None when it stands, else for how many seconds the server wants to be left alone."""
        try:
            async with self._opening:
                await member.open(due)
        except Trouble as error:
            self.counts.fail(str(error))
            after_s = error.retry_after_s if isinstance(error, NotConnected) else 0.0
            if isinstance(error, Refused) and error.retry_after_ms:
                after_s = error.retry_after_ms / 1_000
            return min(after_s, _LEFT_ALONE_S)
        return None

    async def _load(self, start: int) -> None:
        """Send, read history and cut connections, from `start` on for the plan's time."""
        plan = self.plan
        if not self._slow_reading:
            for member in self.members:
                if member.is_slow:
                    member.stop_reading()
        senders = [member for member in self.members if member.index < plan.senders]
        readers = [member for member in self.members if not member.is_slow]
        await asyncio.gather(
            self._send(senders, start),
            self._read_history(readers, start),
            self._storm(start) if plan.storm else asyncio.sleep(0),
        )

    async def _send(self, senders: Sequence[Member], start: int) -> None:
        number = 0

        def send(due: int) -> None:
            nonlocal number
            self.lateness.record((time.monotonic_ns() - due) // 1_000)
            self._acked.append(0)
            self._seen.append(0)
            sender = senders[number % len(senders)]
            self.counts.sent += 1
            sender.send(number, due)
            number += 1

        await self._paced(self.plan.rate, self.plan.senders, start, send)

    async def _read_history(self, readers: Sequence[Member], start: int) -> None:
        def read(due: int) -> None:
            random.choice(readers).read_page(due, random.getrandbits(40))  # noqa: S311  no secret

        await self._paced(self.plan.history, self.plan.connections - self.plan.slow, start, read)

    async def _paced(self, rate: float, members: int, start: int, act: Callable[[int], None]) -> None:
        """Act `rate` times a second, each at its time whatever became of those before; the processes take turns.

        Args:
            rate: of all processes together.
            members: how many do it, the first ones; a process without any has no turn.
            start: from when on.
            act: is given when it was due.

        """
        end = start + int(self.plan.duration_s * 1e9)
        turns = min(self.plan.processes, members)
        turn = self.process

        def due() -> int:
            return start + int(turn * 1e9 / rate) if rate and self.process < turns else end

        while not self._stopping.is_set() and due() < end:
            await self._sleep_until(due())
            for _ in range(_ACTS):  # then let the loop read
                if due() > time.monotonic_ns() or due() >= end:
                    break
                act(due())
                turn += turns
        await self._sleep_until(end)

    async def _sleep_until(self, at: int) -> None:
        """Sleep, unless a stop cuts it short; lets others have the loop in any case."""
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (at - time.monotonic_ns()) / 1e9)):
                await self._stopping.wait()

    async def _storm(self, start: int) -> None:
        await self._sleep_until(start + int(self.plan.duration_s / 2 * 1e9))
        if self._stopping.is_set():
            return
        now = time.monotonic_ns()
        for member in self.members:
            if member.is_live and self.plan.storms(member.index):
                member.cut_at = now
                self._cut += 1
                member.cut()

    async def _answers(self) -> None:
        """Wait until all is answered."""
        await self._while_coming(lambda: sum(len(member.pending) + len(member.pages) for member in self.members))

    def _ends(self) -> dict[str, int]:
        heads = self._heads_known
        for member in self.members:
            for room, log in member.logs.items():
                heads[room] = max(heads.get(room, 0), log.last)
        return heads

    async def _settle(self, heads: dict[str, int]) -> None:
        """Wait until all have what the rooms have."""
        self._slow_reading = True
        for member in self.members:
            if member.is_slow:
                member.read_again()
        behind = came = [member for member in self.members if member.has_come]

        def lacking() -> int:
            nonlocal behind
            behind = [member for member in behind if not member.is_live or member.lacks(heads)]
            return sum(max(1, member.lacks(heads)) for member in behind)

        await self._while_coming(lacking)
        for member in came:
            for room, log in member.logs.items():
                log.tally.lost += log.lacks(heads.get(room, 0))

    async def _while_coming(self, left: Callable[[], int]) -> None:
        """Return when nothing is left, or nothing has come for the plan's time."""
        begun = since = time.monotonic()
        self._waits = last = left()
        while self._waits:
            settle_s = min(self.plan.settle_s, _STOPPED_SETTLE_S) if self._stopping.is_set() else self.plan.settle_s
            if time.monotonic() - since >= settle_s or time.monotonic() - begun >= settle_s * _SETTLES:
                break
            await asyncio.sleep(_LOOP_STEP_S)
            self._waits = left()
            if self._waits < last:
                last, since = self._waits, time.monotonic()
        self._waits = 0

    # What is told

    def _end(self) -> End:
        pending = [member for member in self.members for _ in member.pending]
        rooms = [
            RoomEnd(each.room, each.lost, each.doubled, each.disordered)
            for each in self._tallies.values()
            if each.lost or each.doubled or each.disordered
        ]
        return End(
            self.process,
            live=sum(member.is_live for member in self.members),
            resumed=sum(each.resumed for each in self._tallies.values()),
            unanswered=sum(member.is_live for member in pending),
            unsent=sum(not member.is_live for member in pending),
            unread=sum(len(member.pages) for member in self.members),
            unseen=sum(1 for acked, seen in zip(self._acked, self._seen, strict=True) if acked and acked != seen),
            stored_twice=self._stored_twice,
            resets=self.resets,
            strayed=self.strayed,
            rooms=rooms,
            cut=self._cut,
            back=self._back,
            storm_back=self._storm_back.take(),
        )

    def _tick(self) -> Tick:
        counts, self.counts = self.counts, Counts()
        delivered = sum(each.delivered for each in self._tallies.values())
        counts.delivered, self._delivered = delivered - self._delivered, delivered
        return Tick(
            self.process,
            time.monotonic_ns(),
            live=sum(member.is_live for member in self.members),
            counts=counts,
            ack=self.ack.take(),
            delivery=self.delivery.take(),
            resumed=self.resumed.take(),
            history=self.history.take(),
            connect=self.connect.take(),
            lateness=self.lateness.take(),
            loop=self.loop_lag.take(),
            cpu=None,
            waits=self._waits,
        )

    async def _report(self, tell: Telling) -> None:
        used, at = time.process_time(), time.monotonic()
        while True:
            await asyncio.sleep(until_second())
            tick = self._tick()
            now_used, now = time.process_time(), time.monotonic()
            tick.cpu = (now_used - used) / (now - at)
            used, at = now_used, now
            tell(tick)

    async def _watch_loop(self) -> None:
        while True:
            due = time.monotonic_ns() + int(_LOOP_STEP_S * 1e9)
            await asyncio.sleep(_LOOP_STEP_S)
            self.loop_lag.record((time.monotonic_ns() - due) // 1_000)

    async def _ping(self) -> None:
        second = 0
        while True:
            await asyncio.sleep(1)
            second = (second + 1) % _PINGED_EVERY_S
            for member in self.members[second::_PINGED_EVERY_S]:
                if not (member.is_slow and self._go.done()):
                    member.ping()


class Telling:
    """Tells the coordinator."""

    def __init__(self) -> None:
        self._out = sys.stdout.buffer

    def __call__(self, report: Report) -> None:
        """Tell it."""
        self._out.write(line(report))
        self._out.flush()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 30)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    begin = read_begin(await lines.readline())
    plan = msgspec.json.decode(begin.plan, type=Plan)
    tell = Telling()
    raise_open_files()
    try:
        async with Tokens(plan) as tokens:
            worker = Worker(plan, begin.process, await look_up(plan), tokens)
            running = asyncio.create_task(worker.run(tell))
            listening = asyncio.create_task(_listen(lines, worker))
            await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                listening.cancel()
                running.result()
    except (NoToken, NotConnected) as error:
        tell(Broken(begin.process, str(error)))


async def _listen(lines: asyncio.StreamReader, worker: Worker) -> None:
    """Hear the coordinator; returns when it is gone."""
    while said := await lines.readline():
        worker.order(read_order(said))


if __name__ == "__main__":
    uvloop.run(_serve())

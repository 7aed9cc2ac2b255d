"""The coordinator of a load test: looks whether it can be done, starts its processes, and adds up what they tell."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from hubbub.loadtest.histogram import Histogram
from hubbub.loadtest.member import Member, Trouble
from hubbub.loadtest.observing import Observed, Usage, listeners
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.result import (
    BUSY,
    LATE_MS,
    Asked,
    Faults,
    Generator,
    Percentiles,
    PerS,
    Result,
    Second,
    Server,
    Storm,
    judge,
    percentiles,
)
from hubbub.loadtest.telling import (
    Begin,
    Broken,
    Counts,
    End,
    Finish,
    Go,
    Order,
    Ready,
    RoomEnd,
    Sent,
    Stop,
    Tick,
    line,
    read_report,
    until_second,
)
from hubbub.loadtest.tokens import Tokens
from hubbub.loadtest.wire import Target
from hubbub.loadtest.worker import Worker, look_up
from hubbub.model import RoomKind
from hubbub.parallel import each as each_of

_HEAD_START_S = 0.3
"""From the word to go until the first message: all processes have heard it by then."""

_LONGEST_LINE = 1 << 30
_MOST_ROOMS = 100
_CREATES = 20
_ENDING_S = 10.0
_BEHIND_S = 0.3
"""How long after the processes tell of a second it is closed: so it has one word of each of them."""

_ENDED_BY_HAND = "ended by hand, before there was a result"


class CannotRun(Exception):
    """The load test cannot be done, or has no result; says why.

    Attributes:
        by_hand: whether somebody ended it.

    """

    def __init__(self, words: str, *, by_hand: bool = False) -> None:
        super().__init__(words)
        self.by_hand = by_hand


class Sight(NamedTuple):
    """The server at a moment of the load test: what it has used, when, how many were connected and got how much."""

    usage: Usage
    at: float
    live: int
    delivered: int


class Coordinator:
    """A load test from beginning to end.

    Args:
        plan: what to do.
        on_second: told of each second, with how far it is and what is waited for.
        version: of Hubbub.
        on_wait: told each second what is done before the first connection.

    """

    def __init__(
        self,
        plan: Plan,
        on_second: Callable[[Second, str], None],
        version: str,
        on_wait: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._plan = plan
        self._version = version
        self._on_second = on_second
        self._on_wait = on_wait
        self._preparing: asyncio.Task[None] | None = None
        self._created = 0  # rooms
        self._processes: list[asyncio.subprocess.Process] = []
        self._phase = "connect"
        self._began_at = time.monotonic()
        self._start = 0.0  # of the load, on the machine's monotonic clock; 0 before
        self._load_s = 0.0
        self._delivered_before = 0  # who comes into a room is an entry too
        self._stopped = False
        self._killed = False  # so that there will be no result
        self._all = _Sums()
        self._second = _Sums()
        self._live: dict[int, int] = {}
        self._waits: dict[int, int] = {}
        self._cpu: dict[int, list[float]] = {}
        self._lateness, self._loop = Histogram(), Histogram()
        self._seconds: list[Second] = []
        self._ready: set[int] = set()
        self._sent: dict[int, Sent] = {}
        self._ends: dict[int, End] = {}
        self._heard = asyncio.Condition()
        self._per_s = PerS(0.0, 0.0)
        self._broken: str | None = None
        self._observed: Observed | None = None
        self._before: Sight | None = None  # the server before the first connection
        self._connected: Sight | None = None  # when all were connected
        self._loaded: Sight | None = None  # when all was sent

    def stop(self) -> None:
        """End it now, and make the report of what there was; the second time, without waiting for anything."""
        if self._preparing is not None:
            self._preparing.cancel()
        if self._stopped:
            self._killed = True
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            return
        self._stopped = True
        if self._start and not self._load_s:
            self._load_s = max(0.0, time.monotonic() - self._start)
        self._tell_all(Stop())

    async def run(self) -> Result:
        """Do it.

        Raises:
            CannotRun: the server cannot be reached or refuses, or a process of the load test broke; or somebody ended
                it before there was anything to tell.

        """
        began = int(time.time() * 1_000)
        await self._prepare()
        self._began_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            doing = [group.create_task(self._follow(number)) for number in range(self._plan.processes)]
            ticking = group.create_task(self._tick())
            try:
                await self._course()
            finally:
                ticking.cancel()
                for process in self._processes:
                    if process.stdin is not None:
                        process.stdin.close()
                _, left = await asyncio.wait(doing, timeout=_ENDING_S)
                for process in self._processes if left else []:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
        if self._broken is not None:
            raise CannotRun(self._broken, by_hand=self._broken == _ENDED_BY_HAND)
        self._flush()
        return self._result(began)

    # Before it

    async def _prepare(self) -> None:
        waiting = asyncio.create_task(self._tell_waiting())
        self._preparing = asyncio.create_task(self._find_and_try())
        try:
            await asyncio.wait({self._preparing})
            self._preparing.result()
        except Trouble as error:
            raise CannotRun(f"{_without_query(self._plan.url)}: {error}") from None
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            raise CannotRun(_ENDED_BY_HAND, by_hand=True) from None
        finally:
            self._preparing.cancel()
            self._preparing = None
            waiting.cancel()

    async def _tell_waiting(self) -> None:
        while True:
            await asyncio.sleep(1)
            made = f", {self._created:,} of {len(self._plan.rooms):,} rooms made" if self._created else ""
            self._on_wait(f"trying out {_without_query(self._plan.url)}{made}")

    async def _find_and_try(self) -> None:
        target = await look_up(self._plan)
        await self._try_out(target)
        self._observe(target)

    async def _try_out(self, target: Target) -> None:
        """Connect once, and make the rooms: what is wrong with URL and tokens is said before anything is started."""
        plan = msgspec.structs.replace(self._plan, connections=1, processes=1, slow=0, senders=1, storm=0.0)
        async with Tokens(plan) as tokens:
            desk = Worker(plan, 0, target, tokens)
            if self._plan.creates_rooms and not self._plan.grants:
                await self._create_rooms(desk)
            first = desk.members[0]
            await first.open()
            first.close()

    async def _create_rooms(self, desk: Worker) -> None:
        """Let who is the first in a room make it: he would be in it anyhow, and nobody has more than his."""
        by_owner: dict[int, list[str]] = {}
        for number, room in enumerate(self._plan.rooms):
            by_owner.setdefault(self._plan.first_in(number), []).append(room)

        async def create(of_one: tuple[int, list[str]]) -> None:
            owner = Member(of_one[0], [], desk, None)
            await owner.open()
            for room in of_one[1]:
                await owner.insist("create", room=room, kind=RoomKind.PUBLIC)
                self._created += 1
            owner.close()

        await each_of(create, by_owner.items(), at_once=_CREATES)

    def _observe(self, target: Target) -> None:
        pids = self._plan.pids
        family, host, port = target.address_of(0)
        if pids is None and _is_here(family, host):
            pids = listeners(port)
        if pids:
            self._observed = Observed(pids, port if self._plan.pids is None else None)
            self._before = self._look()

    def _look(self) -> Sight | None:
        if self._observed is None:
            return None
        usage = self._observed.look()
        return Sight(usage, time.monotonic(), sum(self._live.values()), self._all.counts.delivered)

    # The course of it

    async def _course(self) -> None:
        processes = self._plan.processes
        await self._until(lambda: len(self._ready) == processes)
        if self._broken is not None:
            return
        self._connected = self._look()
        if not self._stopped:
            if not sum(self._live.values()):
                failed = self._all.counts.failed
                why = max(failed, key=lambda each: failed[each]) if failed else "no answer"
                self._broken = f"not one of {self._plan.connections:,} connections came to be: {why}"
                return
            self._delivered_before = self._all.counts.delivered
            self._start = time.monotonic() + _HEAD_START_S
            self._phase = "load"
            self._tell_all(Go(int(self._start * 1e9)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_START_S + self._plan.duration_s):
                    await self._until(lambda: self._stopped or len(self._sent) == processes)
            self._load_s = self._load_s or self._plan.duration_s
        await self._until(lambda: len(self._sent) == processes)
        self._phase = "settle"
        if self._start:
            answered = max((sent.answered_at for sent in self._sent.values()), default=0) / 1e9
            took_s, counts = max(0.001, self._load_s, answered - self._start), self._all.counts
            delivered = counts.delivered - self._delivered_before
            self._per_s = PerS(round(counts.acked / took_s, 3), round(delivered / took_s, 3))
        self._loaded = self._look()
        heads: dict[str, int] = {}
        for sent in self._sent.values():
            for room, head in sent.heads.items():
                heads[room] = max(heads.get(room, 0), head)
        self._tell_all(Finish(heads))
        await self._until(lambda: len(self._ends) == processes)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds, or a process broke."""
        async with self._heard:
            await self._heard.wait_for(lambda: condition() or self._broken is not None)

    def _tell_all(self, order: Order) -> None:
        for process in self._processes:
            self._tell(process, order)

    def _tell(self, process: asyncio.subprocess.Process, order: Order) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(line(order))

    async def _follow(self, number: int) -> None:
        """Run one process, and take what it says until it ends."""
        with tempfile.TemporaryFile() as words:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "hubbub.loadtest.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=words,
                limit=_LONGEST_LINE,
                start_new_session=True,  # Ctrl-C is for the coordinator, which tells the others
            )
            self._processes.append(process)
            self._tell(process, Begin(msgspec.Raw(msgspec.json.encode(self._plan)), number))
            if self._stopped:
                self._tell(process, Stop())
            if process.stdout is not None:
                async for said in process.stdout:
                    await self._hear(said)
            status = await process.wait()
            if number not in self._ends:
                words.seek(0)
                last = words.read().decode(errors="replace").strip().rpartition("\n")[2]
                why = f"a process of the load test ended with status {status}: {last or 'it said nothing'}"
                self._broken = self._broken or (_ENDED_BY_HAND if self._killed else why)
                await self._notify()

    async def _hear(self, said: bytes) -> None:
        report = read_report(said)
        if isinstance(report, Tick):
            self._add(report)
            return
        if isinstance(report, Ready):
            self._ready.add(report.process)
        elif isinstance(report, Sent):
            self._sent[report.process] = report
        elif isinstance(report, End):
            self._ends[report.process] = report
        elif isinstance(report, Broken):
            self._broken = report.why
        await self._notify()

    async def _notify(self) -> None:
        async with self._heard:
            self._heard.notify_all()

    def _add(self, tick: Tick) -> None:
        for sums in (self._all, self._second):
            sums.add(tick)
        self._live[tick.process] = tick.live
        self._waits[tick.process] = tick.waits
        if self._phase == "load":
            if tick.cpu is not None:
                self._cpu.setdefault(tick.process, []).append(tick.cpu)
            self._lateness.add(tick.lateness)
            self._loop.add(tick.loop)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(until_second(_BEHIND_S))
            self._on_second(self._flush(), self._where())

    def _where(self) -> str:
        """How far it is."""
        if self._phase == "connect":
            return f"connecting {sum(self._live.values()):,} of {self._plan.connections:,}"
        if self._phase == "load":
            gone_s = max(0.0, time.monotonic() - self._start)
            if gone_s < self._plan.duration_s:
                return f"{gone_s:.0f} s of {self._plan.duration_s:g}"
        return f"waiting for {sum(self._waits.values()):,}"

    def _flush(self) -> Second:
        """Close a second."""
        sums, self._second = self._second, _Sums()
        counts, usage = sums.counts, self._observed.look() if self._observed is not None else None
        at = time.monotonic() - self._began_at
        apart = max(0.001, at - (self._seconds[-1].at_s if self._seconds else 0.0))
        second = Second(
            at_s=round(at, 3),
            phase=self._phase,
            live=sum(self._live.values()),
            sent=counts.sent,
            acked=counts.acked,
            delivered=counts.delivered,
            refused=sum(counts.refused.values()),
            failed=sum(counts.failed.values()),
            closed=sum(counts.closed.values()) + sum(counts.slow_closed.values()),
            ack=percentiles(sums.ack),
            delivery=percentiles(sums.delivery),
            server_cpu=None,
            server_rss=usage.rss_bytes if usage is not None and usage.processes else None,
            load_cpu=round(sums.cpu, 3),
        )
        if usage is not None:
            used = usage.cpu_s - self._server_cpu_s if self._seconds else 0.0
            second.server_cpu = round(max(0.0, used) / apart, 3) if usage.processes else None
            self._server_cpu_s = usage.cpu_s
        self._seconds.append(second)
        return second

    _server_cpu_s = 0.0  # as last looked at

    # After it

    def _result(self, began: int) -> Result:
        plan, counts, ends = self._plan, self._all.counts, list(self._ends.values())
        back = Histogram()
        for end in ends:
            back.add(end.storm_back)
        result = Result(
            version=1,
            hubbub=self._version,
            began=began,
            asked=_asked(plan),
            interrupted=self._stopped,
            load_s=round(self._load_s, 3),
            counts=counts,
            per_s=self._per_s,
            ack=percentiles(self._all.ack),
            delivery=percentiles(self._all.delivery),
            delivery_resumed=percentiles(self._all.resumed),
            resumed=sum(end.resumed for end in ends),
            history=percentiles(self._all.history),
            connect=percentiles(self._all.connect),
            faults=self._faults(ends),
            storm=Storm(sum(end.cut for end in ends), sum(end.back for end in ends), percentiles(back))
            if plan.storm
            else None,
            server=self._server(),
            generator=self._generator(),
            seconds=self._seconds,
        )
        judge(result, max_ack_ms=plan.max_ack_ms, max_delivery_ms=plan.max_delivery_ms, allowed=plan.allowed)
        return result

    def _faults(self, ends: list[End]) -> Faults:
        rooms: dict[str, RoomEnd] = {}
        for end in ends:
            for each in end.rooms:
                room = rooms.setdefault(each.room, RoomEnd(each.room))
                room.lost += each.lost
                room.doubled += each.doubled
                room.disordered += each.disordered
        worst = sorted(rooms.values(), key=lambda each: -(each.lost + each.doubled + each.disordered))
        live = sum(end.live for end in ends)
        return Faults(
            lost=sum(each.lost for each in worst),
            doubled=sum(each.doubled for each in worst),
            disordered=sum(each.disordered for each in worst),
            unanswered=sum(end.unanswered for end in ends),
            unsent=sum(end.unsent for end in ends),
            unread=sum(end.unread for end in ends),
            unseen=sum(end.unseen for end in ends),
            stored_twice=sum(end.stored_twice for end in ends),
            resets=sum(end.resets for end in ends),
            strayed=sum(end.strayed for end in ends),
            not_connected=0 if self._stopped else self._plan.connections - live,
            rooms=worst[:_MOST_ROOMS],
        )

    def _server(self) -> Server | None:
        if self._observed is None or self._before is None:
            return None
        connected = self._connected or self._before
        loaded = self._loaded or connected
        used = max(0.0, loaded.usage.cpu_s - connected.usage.cpu_s)
        delivered = loaded.delivered - connected.delivered
        grown = connected.usage.rss_bytes - self._before.usage.rss_bytes
        return Server(
            pids=self._observed.pids,
            name=self._observed.name,
            processes=loaded.usage.processes,
            cpu_s=round(used, 3),
            cpu=round(used / max(loaded.at - connected.at, 0.001), 3),
            cpu_us_per_delivery=round(used * 1e6 / delivered, 3) if delivered > 0 else None,
            rss_before_bytes=self._before.usage.rss_bytes,
            rss_bytes=max(each.server_rss or 0 for each in self._seconds),
            rss_per_connection_bytes=round(max(0, grown) / connected.live, 1) if connected.live else None,
        )

    def _generator(self) -> Generator:
        cpu = [round(sum(used) / len(used), 3) for _, used in sorted(self._cpu.items())]
        late, loop = percentiles(self._lateness), percentiles(self._loop)
        why = ""
        if cpu and max(cpu) > BUSY:
            why = f"it was the bottleneck, its process {cpu.index(max(cpu)) + 1} of {len(cpu)} used {max(cpu):.0%} "
            why += "of a core; give it more --processes, or another machine"
        elif _above(late, LATE_MS) or _above(loop, LATE_MS):
            worst = max(late.p99 or 0.0, loop.p99 or 0.0)
            why = f"one in a hundred of its own doings was {worst:,.0f} ms late or more; its machine is short of time"
        return Generator(cpu, late, loop, bool(why), why)


def _above(found: Percentiles, most: float) -> bool:
    return found.p99 is not None and found.p99 > most


class _Sums:
    """What ticks add up to."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.ack, self.delivery, self.resumed = Histogram(), Histogram(), Histogram()
        self.history, self.connect = Histogram(), Histogram()
        self.cpu = 0.0  # of the busiest process

    def add(self, tick: Tick) -> None:
        self.counts.add(tick.counts)
        self.ack.add(tick.ack)
        self.delivery.add(tick.delivery)
        self.resumed.add(tick.resumed)
        self.history.add(tick.history)
        self.connect.add(tick.connect)
        self.cpu = max(self.cpu, tick.cpu or 0.0)


def _asked(plan: Plan) -> Asked:
    return Asked(
        url=_without_query(plan.url),
        bench=plan.bench,
        connections=plan.connections,
        rooms=len(plan.rooms),
        rooms_each=plan.rooms_each,
        senders=plan.senders,
        rate=plan.rate,
        size_bytes=plan.size_bytes,
        duration_s=plan.duration_s,
        ramp=plan.ramp,
        deflates=plan.deflates,
        history=plan.history,
        storm=plan.storm,
        slow=plan.slow,
        processes=plan.processes,
        source_addresses=max(1, len(plan.sources)),
    )


def _without_query(url: str) -> str:
    return urlsplit(url)._replace(query="").geturl()


def _is_here(family: int, host: str) -> bool:
    """Whether the address is one of this machine's: only then can one bind to it."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True

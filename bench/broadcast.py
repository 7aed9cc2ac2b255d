"""Broadcasts to 1,000, 10,000 and 100,000 members under the quota, on virtual time: `python -m bench.broadcast`.

The broadcaster is the real one, with its leases, its tree, its pace and its signatures; the table is in memory, and API
Gateway, Lambda and SQS are simulated: their latencies, the quota's token bucket, cold starts, how many functions run at
a time, clients that are gone or do not read, jobs that come twice. What stands beside is the least time that the quota
allows: nobody can post to more connections than the bucket holds and is filled with.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpResponse
from hubbub.fanout.apigateway.broadcaster import PER_SHARD, Broadcaster
from hubbub.fanout.apigateway.jobs import AnyJob, Deliver, decode_job, encode_job
from hubbub.fanout.apigateway.keys import MAX_SHARDS, Listener, delivery_key, shard_of
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Posts
from hubbub.fanout.apigateway.tally import Tally
from hubbub.model import ConnectionId, RoomId, UserId
from memorytable import MemoryTable
from simulated import CREDENTIALS, ENDPOINT, REGION, SimulatedApi
from virtual import VirtualLoop, run_virtually

ROOM = RoomId("stadium")

Way = Literal["invoke", "sqs", "fifo"]
"""How jobs are handed over: Lambda's asynchronous invocation, a standard queue, a FIFO queue by shard."""


class Setting(msgspec.Struct, frozen=True):
    """What is simulated.

    Attributes:
        members: how many connections listen.
        way: how jobs are handed over.
        rate, burst: the account's quota: requests a second, and at once.
        share: which part of it broadcasts may use.
        split: how many listeners one broadcaster serves.
        messages: how many entries are written, one after the other.
        apart_s: how long after one the next is written.
        frame_bytes: how long each is.
        gone, slow: which parts of the members are no more, and read nothing for the first seconds.
        post_s: CPU time of a post in a function: measured by `bench.broadcaster`, times the machine's share that its
            memory buys.
        cold_s, warm_s: the least and greatest time from an invocation to the handler, for a new instance and another.
        hand_s: of a call that hands jobs over.
        poll_s: from a message in a queue to the invocation.
        batch: how many messages of a queue one invocation takes at most.
        pollers, more_pollers_per_s: how many batches of a queue are handled at once, and how many more each second.
        twice: which part of the jobs comes twice.
        seed: of all chance.

    """

    members: int
    way: Way = "invoke"
    rate: float = 10_000
    burst: float = 5_000
    share: float = 0.7
    split: int = 1_000
    messages: int = 1
    apart_s: float = 60.0
    frame_bytes: int = 300
    gone: float = 0.005
    slow: float = 0.001
    post_s: float = 0.0002
    cold_s: tuple[float, float] = (0.25, 0.5)
    warm_s: tuple[float, float] = (0.008, 0.03)
    hand_s: tuple[float, float] = (0.01, 0.03)
    poll_s: tuple[float, float] = (0.01, 0.06)
    batch: int = 10
    pollers: int = 5
    more_pollers_per_s: float = 5.0
    twice: float = 0.001
    seed: int = 1


class Message(msgspec.Struct, frozen=True):
    """What came of one message; times in seconds since it was handed over.

    Attributes:
        first_s, median_s, last_s: when the first, the middle and the last of those who read had it.
        missed: how many of those never had it.
        posts: requests to `@connections`, those that were throttled included.
        throttled: how many of them were answered with 429.
        functions, cold: invocations of the broadcaster, and how many of them began an instance.
        function_s: how long these took in all.
        handed: calls that handed jobs over: Invoke, or SendMessageBatch, ReceiveMessage and DeleteMessageBatch.
        write_units, read_units: of the table.
        table_requests: by operation.

    """

    first_s: float
    median_s: float
    last_s: float
    missed: int
    posts: int
    throttled: int
    functions: int
    cold: int
    function_s: float
    handed: int
    write_units: float
    read_units: float
    table_requests: dict[str, int]


class Result(msgspec.Struct, frozen=True):
    """What came of a simulation.

    Attributes:
        setting: what was simulated.
        floor_s: the least time in which the quota lets so many requests pass.
        share_floor_s: likewise, the part of it that broadcasts may use.
        messages: the first is sent when no function is warm, the others to the functions that it left.

    """

    setting: Setting
    floor_s: float
    share_floor_s: float
    messages: list[Message]


class Hot(msgspec.Struct, frozen=True):
    """What came of a room in which much is written.

    Attributes:
        setting: what was simulated.
        median_s, p99_s: from an entry's being handed over to a member's having it.
        disordered: entries that came to a member before one with a lower seq.
        repeated: entries that came to a member again.
        missed: entries that a member who reads never had.
        functions, passes, handed, write_units, read_units: for each entry.

    """

    setting: Setting
    median_s: float
    p99_s: float
    disordered: int
    repeated: int
    missed: int
    functions: float
    passes: float
    handed: float
    write_units: float
    read_units: float


def floor_s(members: int, rate: float, burst: float) -> float:
    """The least time in which a token bucket lets as many requests pass as there are members."""
    return max(0.0, (members - burst) / rate)


def simulate(setting: Setting) -> Result:
    """Simulate; it takes about a second for 10,000 members."""
    random.seed(setting.seed)
    loop = VirtualLoop()

    async def main() -> Result:
        return await _World(loop, setting).run()

    return run_virtually(main(), loop)


def simulate_hot(setting: Setting) -> Hot:
    """Simulate a room in which entries follow each other without waiting for their delivery."""
    random.seed(setting.seed)
    loop = VirtualLoop()

    async def main() -> Hot:
        return await _World(loop, setting).run_hot()

    return run_virtually(main(), loop)


class _Cpu:
    """`@connections` as one function's process gets at it: requests take turns on its share of a processor."""

    def __init__(self, api: SimulatedApi, loop: VirtualLoop, post_s: float) -> None:
        self._api = api
        self._loop = loop
        self._post_s = post_s
        self._free_at = 0.0

    async def request(self, method: str, url: str, **options: Any) -> HttpResponse:
        now = self._loop.time()
        self._free_at = max(self._free_at, now) + self._post_s
        await asyncio.sleep(self._free_at - now)
        return await self._api.request(method, url, **options)


class _World:
    """A room, its members, and the functions that serve it; the transport between them."""

    def __init__(self, loop: VirtualLoop, setting: Setting) -> None:
        self._loop = loop
        self._setting = setting
        self._dice = random.Random(setting.seed)
        self._table = MemoryTable(latency_s=(0.003, 0.009))
        self._api = SimulatedApi(loop.clock, rate=setting.rate, burst=setting.burst, checks=False)
        self._idle: list[Broadcaster] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: deque[AnyJob] = deque()
        self._busy_groups: set[str] = set()
        self._polled = 0
        self._queue_since = 0.0
        self._functions = self._cold = self._handed = 0
        self._function_s = 0.0
        self._passes = 0
        self._head = 0
        self._text = "x" * setting.frame_bytes
        self._readers: list[str] = []
        self._fill()

    def _fill(self) -> None:
        """Members, spread over as many shards as a room of that size has come to."""
        setting = self._setting
        shards = 1
        while shards < MAX_SHARDS and setting.members > PER_SHARD * shards:
            shards *= 2
        for n in range(setting.members):
            connection, user = ConnectionId(f"c{n:06}"), UserId(f"user{n:06}")
            listener = Listener(ROOM, shard_of(user, shards), user, connection, 0, 2**40, 2**40)
            self._table.place(listener.item())
            chance = self._dice.random()
            if chance < setting.gone:
                self._api.gone.add(connection)
            elif chance < setting.gone + setting.slow:
                self._api.slow[connection] = self._loop.time() + self._dice.uniform(1, 20)
            else:
                self._readers.append(connection)
        pk, sk = delivery_key(ROOM)
        counted = {"shards": shards, "listeners": setting.members, "counted": self._loop.clock.now_ms()}
        self._table.place({"pk": pk, "sk": sk, **counted})

    async def run(self) -> Result:
        """Write all messages."""
        setting = self._setting
        told = []
        for seq in range(1, setting.messages + 1):
            told.append(await self._message(seq))
            await asyncio.sleep(setting.apart_s)
        return Result(
            setting,
            floor_s(setting.members, setting.rate, setting.burst),
            floor_s(setting.members, setting.rate * setting.share, setting.burst * setting.share),
            told,
        )

    async def run_hot(self) -> Hot:
        """Write all messages, each when its time has come."""
        setting = self._setting
        self._table.forget_usage()
        began: dict[int, float] = {}
        for seq in range(1, setting.messages + 1):
            began[seq], self._head = self._loop.time(), seq
            self._start(self.hand([Deliver(id=f"{ROOM}.{seq}", room=ROOM, seq=seq, frame=self._frame(seq))]))
            await asyncio.sleep(setting.apart_s)
        await self._settled()
        lags: list[float] = []
        disordered = repeated = missed = 0
        for reader in self._readers:
            seen: set[int] = set()
            for at, frame in self._api.got[reader]:
                seq = int(frame.split(b" ")[0])
                if seq in seen:
                    repeated += 1
                    continue
                disordered += seq < max(seen, default=0)
                lags.append(at - began[seq])
                seen.add(seq)
            missed += setting.messages - len(seen)
        lags.sort()
        count, used = setting.messages, self._table.used
        return Hot(
            setting,
            median_s=lags[len(lags) // 2],
            p99_s=lags[int(len(lags) * 0.99)],
            disordered=disordered,
            repeated=repeated,
            missed=missed,
            functions=self._functions / count,
            passes=self._passes / count,
            handed=self._handed / count,
            write_units=used.write_units / count,
            read_units=used.read_units / count,
        )

    async def _settled(self) -> None:
        while self._tasks:
            tasks, self._tasks = self._tasks, set()
            await asyncio.gather(*tasks)

    def _frame(self, seq: int) -> str:
        return f"{seq} {self._text}"

    async def _message(self, seq: int) -> Message:
        self._functions = self._cold = self._handed = 0
        self._function_s = 0.0
        self._table.forget_usage()
        self._api.answers.clear()
        self._api.got.clear()
        began, self._head = self._loop.time(), seq
        await self.hand([Deliver(id=f"{ROOM}.{seq}", room=ROOM, seq=seq, frame=self._frame(seq))])
        await self._settled()
        times = sorted(self._api.got[each][0][0] - began for each in self._readers if self._api.got.get(each))
        used = self._table.used
        return Message(
            first_s=times[0],
            median_s=times[len(times) // 2],
            last_s=times[-1],
            missed=len(self._readers) - len(times),
            posts=sum(self._api.answers.values()),
            throttled=self._api.answers[429],
            functions=self._functions,
            cold=self._cold,
            function_s=self._function_s,
            handed=self._handed,
            write_units=used.write_units,
            read_units=used.read_units,
            table_requests=dict(used.requests),
        )

    # Handing over

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        """The transport that the setting has."""
        setting = self._setting
        await asyncio.sleep(self._dice.uniform(*setting.hand_s))
        again = [decode_job(encode_job(job)) for job in jobs]
        again += [job for job in again if self._dice.random() < setting.twice]
        if setting.way == "invoke":
            self._handed += len(jobs)
            for job in again:
                self._start(self._invoked([job]))
            return
        self._handed += -(-len(jobs) // 10)
        if not self._polled:
            self._queue_since = self._loop.time()
        self._queue.extend(again)
        self._poll()

    def _poll(self) -> None:
        """Let as many pollers take a message as there are by now; of a FIFO queue, one for each group at a time."""
        setting = self._setting
        most = setting.pollers + int((self._loop.time() - self._queue_since) * setting.more_pollers_per_s)
        while self._polled < most:
            groups = [_group(job) if setting.way == "fifo" else "" for job in self._queue]
            free = next((group for group in groups if not group or group not in self._busy_groups), None)
            if free is None:
                return
            places = [place for place, group in enumerate(groups) if group == free][: setting.batch]
            batch = [self._queue[place] for place in places]
            self._queue = deque(job for place, job in enumerate(self._queue) if place not in places)
            self._polled += 1
            self._busy_groups.add(free)
            self._start(self._polled_batch(batch, free))

    async def _polled_batch(self, batch: list[AnyJob], group: str) -> None:
        await asyncio.sleep(self._dice.uniform(*self._setting.poll_s))
        self._handed += 2
        try:
            await self._invoked(_last_entries(batch) if group else batch)
        finally:
            self._polled -= 1
            self._busy_groups.discard(group)
            self._poll()

    async def _invoked(self, batch: list[AnyJob]) -> None:
        self._functions += 1
        if self._idle:
            await asyncio.sleep(self._dice.uniform(*self._setting.warm_s))
            broadcaster = self._idle.pop() if self._idle else self._make()
        else:
            self._cold += 1
            await asyncio.sleep(self._dice.uniform(*self._setting.cold_s))
            broadcaster = self._make()
        began = self._loop.time()
        if self._setting.way == "fifo":
            for job in batch:
                await broadcaster.run(job, remaining_s=300)
        else:
            await asyncio.gather(*(broadcaster.run(job, remaining_s=300) for job in batch))
        self._function_s += self._loop.time() - began
        self._idle.append(broadcaster)

    def _start(self, work: Any) -> None:  # Any: a coroutine
        self._tasks.add(asyncio.create_task(work))

    def _make(self) -> Broadcaster:
        """A function's process."""
        setting, clock = self._setting, self._loop.clock
        pace = Pace(self._table, clock=clock, per_s=setting.rate, burst=int(setting.burst), share=setting.share)
        posts = Posts(
            _Cpu(self._api, self._loop, setting.post_s),
            ENDPOINT,
            region=REGION,
            credentials=Fixed(CREDENTIALS),
            clock=clock,
            watch=pace,
        )
        return Broadcaster(
            self._table,
            posts,
            pace,
            self,
            read=self._read,
            forget=self._forget,
            clock=clock,
            report=self._report,
            split=setting.split,
        )

    async def _read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        await asyncio.sleep(0.006)
        return [(seq, self._frame(seq).encode()) for seq in range(after + 1, min(self._head, after + 200) + 1)]

    async def _forget(self, connection: ConnectionId) -> None:
        await asyncio.sleep(0.012)

    def _report(self, tally: Tally) -> None:
        self._passes += tally.passes


def _last_entries(batch: list[AnyJob]) -> list[AnyJob]:
    """What the handler does of a batch of one group: an entry that a later one follows is delivered with that."""
    return [
        job
        for job, following in itertools.zip_longest(batch, batch[1:])
        if not (isinstance(job, Deliver) and isinstance(following, Deliver) and job.seq < following.seq)
    ]


def _group(job: AnyJob) -> str:
    return f"{job.room}#{getattr(job, 'first_shard', 0)}"


def main() -> None:
    """Print the table, or the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--share", type=float, nargs="*", default=[0.7, 0.95])
    parser.add_argument("--way", nargs="*", choices=["invoke", "sqs", "fifo"], default=["invoke"])
    parser.add_argument("--split", type=int, default=1_000)
    parser.add_argument("--hot", action="store_true", help="a room of 100 in which 20 entries a second are written")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.hot:
        _hot(chosen.json)
        return
    results = []
    if not chosen.json:
        print(
            f"{'members':>8} {'way':>6} {'share':>5} {'floor s':>7} {'of share':>8}  {'functions':>9} {'last s':>7}"
            f" {'median s':>8} {'429s':>5} {'posts':>7} {'func. s':>7} {'writes':>6} {'reads':>6}"
        )
    for members in chosen.members:
        for way in chosen.way:
            for share in chosen.share:
                setting = Setting(members=members, way=way, share=share, split=chosen.split, messages=2)
                result = simulate(setting)
                results.append(result)
                if not chosen.json:
                    _print(result)
    if chosen.json:
        print(msgspec.json.format(msgspec.json.encode(results)).decode())


def _hot(as_json: bool) -> None:
    """Print what came of a hot room by each way of handing over."""
    setting = Setting(members=100, messages=400, apart_s=0.05)
    ways: tuple[Way, ...] = ("invoke", "sqs", "fifo")
    results = [simulate_hot(msgspec.structs.replace(setting, way=way)) for way in ways]
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(results)).decode())
        return
    print(f"{'way':>6} {'median ms':>9} {'p99 ms':>6} {'disordered':>10} {'repeated':>8} {'missed':>6}  an entry took:")
    for hot in results:
        print(
            f"{hot.setting.way:>6} {hot.median_s * 1e3:>9.0f} {hot.p99_s * 1e3:>6.0f} {hot.disordered:>10}"
            f" {hot.repeated:>8} {hot.missed:>6}  {hot.functions:.2f} functions, {hot.passes:.2f} passes,"
            f" {hot.handed:.1f} calls, {hot.write_units:.1f} writes, {hot.read_units:.1f} reads"
        )


def _print(result: Result) -> None:
    setting = result.setting
    for message in result.messages:
        how = "cold" if message.cold > message.functions / 2 else "warm"
        print(
            f"{setting.members:>8,} {setting.way:>6} {setting.share:>5.2f} {result.floor_s:>7.2f}"
            f" {result.share_floor_s:>8.2f}  {message.functions:>4} {how} {message.last_s:>7.2f}"
            f" {message.median_s:>8.2f} {message.throttled:>5} {message.posts:>7,} {message.function_s:>7.1f}"
            f" {message.write_units:>6,.0f} {message.read_units:>6,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

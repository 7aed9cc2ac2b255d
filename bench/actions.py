"""What each action takes on AWS: `python -m bench.actions`. These are the figures of `src/hubbub/cost/work.toml`.

The functions' own handlers answer API Gateway's events, in this process, over a table in DynamoDB Local, whose capacity
units are counted. Several environments take turns, as Lambda's do, so that none knows what the others wrote. Round
trips are requests that wait for one another: each is made slower, and how much slower the whole becomes says how many.
Posts go nowhere: what one costs its sender is measured by `bench.posts`.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from hubbub.apigateway import new_id
from hubbub.auth import issue
from hubbub.aws.http import HttpClient, HttpResponse
from hubbub.aws.service import Service
from hubbub.aws.table import Table
from hubbub.emulator.resources import dynamodb_local
from hubbub.fanout.apigateway.directory import ApiGatewayDirectory
from hubbub.fanout.apigateway.fanout import ApiGatewayFanout
from hubbub.fanout.apigateway.jobs import AnyJob, Deliver, Signal, encode_job
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Posts
from hubbub.lambdas import authorizer, broadcast, logs, sweep, websocket
from hubbub.lambdas import home as homes
from hubbub.lambdas.assembly import Parts
from hubbub.lambdas.home import Home, credentials
from hubbub.lambdas.invocation import Function
from hubbub.lambdas.place import read
from hubbub.model import RoomId
from hubbub.store.dynamodb import DynamoStore
from hubbub.stream import read_after

SECRET = "a secret for benches that is long enough to be one"
REGION = "us-east-1"
ENVIRONMENTS = 4
SLOW_S = (0.02, 0.12)
"""By how much requests are made slower, to count those that wait for one another."""

Call = tuple[Function[Any], dict[str, Any]]  # Any: each function's own event, as JSON


class _Slowed(HttpClient):
    """A client whose every request takes longer."""

    more_s = 0.0

    async def request(self, *args: Any, **more: Any) -> HttpResponse:  # Any: as given
        if self.more_s:
            await asyncio.sleep(self.more_s)
        return await super().request(*args, **more)


class _Taken:
    """Takes every post."""

    async def request(self, *_: Any, **__: Any) -> HttpResponse:
        return HttpResponse(200, {}, b"")


class _Kept:
    """Keeps the jobs that are handed over; handing over takes as long as a request."""

    def __init__(self) -> None:
        self.jobs: list[AnyJob] = []

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        if _Slowed.more_s:
            await asyncio.sleep(_Slowed.more_s)
        self.jobs += jobs


class _Counted(Table):
    """A table that counts as DynamoDB does where DynamoDB Local does not.

    A query that finds nothing is a unit. Each item of a transaction is two units for each kilobyte, whatever is done
    with it; an update's is taken for one that fits into one ("Transactions: how it works" in the developer guide).
    """

    async def transact(self, *actions: Any) -> None:  # Any: as in the class above it
        await super().transact(*actions)
        self.used.write_units += sum(2 * _kilobytes(getattr(action, "item", {})) for action in actions)

    def _count(self, operation: str, consumed: Any) -> None:  # Any: as above
        if operation != "TransactWriteItems":
            super()._count(operation, consumed)
        if operation == "Query" and not consumed.get("CapacityUnits"):
            self.used.read_units += 1


def _kilobytes(item: dict[str, Any]) -> int:
    size = sum(len(name) + len(str(value)) for name, value in item.items())
    return max(1, -(-size // 1024))


class _Environment(Home):
    """An environment of Lambda's, whose table counts and whose jobs and posts go nowhere."""

    parts: Parts

    async def _opened(self) -> Parts:
        if self._parts is None:
            http = await self._stack.enter_async_context(_Slowed())
            service = Service(http, "dynamodb", region=REGION, credentials=credentials(), clock=self.clock)
            table = _Counted(service, self.place.need("table"), measure=True)
            await table.create()
            store = await self._stack.enter_async_context(DynamoStore(nullcontext(table), clock=self.clock))
            pace = Pace(table, clock=self.clock, per_s=10_000, burst=5_000, share=0.7)
            endpoint = self.place.need("endpoint")
            posts = Posts(_Taken(), endpoint, region=REGION, credentials=credentials(), clock=self.clock, watch=pace)
            directory = ApiGatewayDirectory(table, clock=self.clock, read=partial(read_after, store), linger_s=5.0)
            transport = _Kept()
            fanout = ApiGatewayFanout(directory=directory, transport=transport, posts=posts, clock=self.clock)
            self._parts = self.parts = Parts(table, store, directory, fanout, posts, pace, transport)
        return self._parts


class _Context:
    """What Lambda says of an invocation."""

    aws_request_id = "11111111-2222-3333-4444-555555555555"
    function_name = "hubbub"

    def get_remaining_time_in_millis(self) -> int:
        """Half a minute."""
        return 30_000


class Figures(NamedTuple):
    """What one invocation takes."""

    cpu_ms: float
    round_trips: float
    requests: float
    read_units: float
    write_units: float
    jobs: float
    log_bytes: float


class Bench:
    """The environments, their log, and the users' tokens."""

    def __init__(self, log: io.StringIO) -> None:
        self.homes = [_Environment(read(os.environ)) for _ in range(ENVIRONMENTS)]
        self._log = log
        self._turn = 0
        self._principals: dict[str, dict[str, Any]] = {}

    def invoke(self, call: Call) -> Any:  # Any: the answer's JSON
        """Call a function in the next environment."""
        self._turn += 1
        homes._current = self.homes[self._turn % ENVIRONMENTS]
        function, event = call
        answer = function(event, _Context())
        if '"type":"error"' in ((answer or {}).get("body") or ""):
            raise RuntimeError(f"{event['body']} was answered {answer['body']}")
        return answer

    def measure(self, make: Callable[[], Call], *, times: int = 40, slow_times: int = 4) -> Figures:
        """The figures of calls that are made anew each time; those of a second environment count as well."""
        for _ in range(ENVIRONMENTS):
            self.invoke(make())
        took = [self._timed(make, slow_times, more_s) for more_s in SLOW_S]
        sums = [0.0] * 6
        for _ in range(times):
            call = make()  # which may use the table, too
            before, cpu = self._state(), time.process_time()
            self.invoke(call)
            spent = (time.process_time() - cpu) * 1_000
            sums = [sum_ + more for sum_, more in zip(sums, (spent, *self._since(before)), strict=True)]
        cpu_ms, requests, read_units, written, jobs, logged = (sum_ / times for sum_ in sums)
        slower = (took[1] - took[0]) / (SLOW_S[1] - SLOW_S[0])
        return Figures(cpu_ms, slower, requests, read_units, written, jobs, logged)

    def _timed(self, make: Callable[[], Call], times: int, more_s: float) -> float:
        _Slowed.more_s = more_s
        try:
            seconds = []
            for _ in range(times):
                call, began = make(), time.perf_counter()
                self.invoke(call)
                seconds.append(time.perf_counter() - began)
            return statistics.median(seconds)
        finally:
            _Slowed.more_s = 0.0

    def _state(self) -> tuple[float, ...]:
        used = [home.parts.table.used for home in self.homes]
        return (
            sum(sum(each.requests.values()) for each in used),
            sum(each.read_units for each in used),
            sum(each.write_units for each in used),
            len(self.jobs()),
            self._log.tell(),
        )

    def _since(self, before: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(now - then for now, then in zip(self._state(), before, strict=True))

    def jobs(self) -> list[AnyJob]:
        """All that were handed over."""
        return [job for home in self.homes for job in home.parts.transport.jobs]  # type: ignore[attr-defined]  # _Kept

    # Events

    def handshake(self, user: str) -> Call:
        """What an authorizer is given."""
        token = issue(SECRET, user=user, ttl_s=86_400, now_s=int(time.time()), name=f"The user {user}")
        event = _event("$connect", "CONNECT", new_id())
        event |= {
            "type": "REQUEST",
            "methodArn": f"arn:aws:execute-api:{REGION}:123456789012:abc/live/$connect",
            "headers": {"Authorization": f"Bearer {token}", "Host": "abc.execute-api.us-east-1.amazonaws.com"},
            "queryStringParameters": {},
        }
        return authorizer.authorize, event

    def connect(self, user: str, connection: str) -> Call:
        """What `$connect` is given."""
        if user not in self._principals:
            self._principals[user] = self.invoke(self.handshake(user))["context"]
        event = _event("$connect", "CONNECT", connection, self._principals[user] | {"principalId": user})
        return websocket.handler, event | {"headers": {"Host": "abc.execute-api.us-east-1.amazonaws.com"}}

    def disconnect(self, user: str, connection: str) -> Call:
        """What `$disconnect` is given."""
        event = _event("$disconnect", "DISCONNECT", connection, self._principals[user] | {"principalId": user})
        return websocket.handler, event

    def ask(self, user: str, connection: str, action: str, **fields: Any) -> Call:  # Any: the action's own
        """What the route of an action is given."""
        event = _event(action, "MESSAGE", connection, self._principals[user] | {"principalId": user})
        event["requestContext"]["messageId"] = new_id()
        body = msgspec.json.encode({"action": action, "ref": "7", **fields}).decode()
        return websocket.handler, event | {"body": body}

    def enter(self, user: str, rooms: Sequence[str] = (), *, syncs: bool = True) -> str:
        """A connection of a user who is in these rooms and listens."""
        connection = new_id()
        self.invoke(self.connect(user, connection))
        for room in rooms:
            self.invoke(self.ask(user, connection, "join", room=room))
        if syncs:
            self.invoke(self.ask(user, connection, "sync"))
        return connection


def _event(route: str, kind: str, connection: str, authorized: dict[str, Any] | None = None) -> dict[str, Any]:
    now_ms = int(time.time() * 1_000)
    context = {
        "routeKey": route,
        "eventType": kind,
        "extendedRequestId": (request := new_id()),
        "requestTime": "30/Nov/2026:12:00:00 +0000",
        "messageDirection": "IN",
        "stage": "live",
        "connectedAt": now_ms,
        "requestTimeEpoch": now_ms,
        "identity": {"sourceIp": "192.0.2.1"},
        "requestId": request,
        "domainName": "abc.execute-api.us-east-1.amazonaws.com",
        "connectionId": connection,
        "apiId": "abc",
    }
    if authorized is not None:
        context["authorizer"] = authorized
    return {"requestContext": context, "isBase64Encoded": False}


def main(listeners: Sequence[int] = (20, 120)) -> None:
    """Print the tables."""
    with _dynamodb() as url, _variables(url):
        log = io.StringIO()
        logs.configure("info", log)
        bench = Bench(log)
        for home in bench.homes:
            home.run(home.chat())
        print(f"{'':<28}" + "".join(f"{name.replace('_', ' '):>13}" for name in Figures._fields))
        for name, figures in chain(_of_actions(bench), _of_rooms(bench), _of_broadcasts(bench, listeners)):
            print(f"{name:<28}" + "".join(f"{value:>13,.2f}" for value in figures), flush=True)
        for home in bench.homes:
            home.close()


def _of_actions(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Each action, in a room of twenty who listen."""
    founder = bench.enter("founder", syncs=False)
    bench.invoke(bench.ask("founder", founder, "create", room="room", kind="public", name="Room"))
    users = [f"user-{number}" for number in range(20)]
    connections = {user: bench.enter(user, ["room"]) for user in users}
    chance = random.Random(1)

    def somebody(action: str, **fields: Any) -> Callable[[], Call]:
        def make() -> Call:
            user = chance.choice(users)
            given = {name: value() if callable(value) else value for name, value in fields.items()}
            return bench.ask(user, connections[user], action, room="room", **given)

        return make

    text = "x" * 200
    yield "authorize", bench.measure(lambda: bench.handshake("user-1"))
    yield "connect", bench.measure(lambda: bench.connect("user-1", new_id()))
    yield "send", bench.measure(somebody("send", text=text, client_id=new_id))
    yield "send, no client_id", bench.measure(somebody("send", text=text))
    yield "react", bench.measure(somebody("react", target=30, reaction=lambda: new_id()[:8]))
    yield "typing", bench.measure(somebody("typing"))
    reader = bench.enter("reader", ["room"])

    def reading() -> Call:
        said = bench.invoke(somebody("send", text=text)())
        return bench.ask("reader", reader, "read", room="room", seq=msgspec.json.decode(said["body"])["seq"])

    yield "read", bench.measure(reading)
    yield "history, 50 entries", bench.measure(somebody("history", limit=50))
    yield "ping", bench.measure(lambda: bench.ask("user-1", connections["user-1"], "ping"))
    yield "sweep", bench.measure(lambda: (sweep.sweep, {}), slow_times=2)


def _of_rooms(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """What a connection's begin and end take for each room."""
    for count in (1, 6):
        rooms = [f"hall-{count}-{number}" for number in range(count)]
        for room in rooms:
            founder = bench.enter("founder", syncs=False)
            bench.invoke(bench.ask("founder", founder, "create", room=room, kind="public", name="Hall"))
        members = [f"guest-{count}-{number}" for number in range(60)]
        for member in members:
            bench.enter(member, rooms, syncs=False)
        opened = [(member, bench.enter(member, syncs=False)) for member in members]  # who comes back
        fresh = iter(opened)

        def syncing(fresh: Iterator[tuple[str, str]] = fresh) -> Call:
            return bench.ask(*next(fresh), "sync")

        yield f"sync, {count} rooms", bench.measure(syncing)
        leaving = iter(opened)

        def going(leaving: Iterator[tuple[str, str]] = leaving) -> Call:
            return bench.disconnect(*next(leaving))

        yield f"disconnect, {count} rooms", bench.measure(going)


def _of_broadcasts(bench: Bench, listeners: Sequence[int]) -> Iterator[tuple[str, Figures]]:
    """The delivery of an entry, of a signal and of a head, by how many listen."""
    for count in listeners:
        room = f"theatre-{count}"
        founder = bench.enter("founder", syncs=False)
        bench.invoke(bench.ask("founder", founder, "create", room=room, kind="public", name="Theatre"))
        for number in range(count):
            bench.enter(f"viewer-{number}", [room])

        def delivering(room: str = room, founder: str = founder) -> Call:
            bench.invoke(bench.ask("founder", founder, "send", room=room, text="x" * 200))
            own = [job for job in bench.jobs() if isinstance(job, Deliver) and job.room == room]
            return broadcast.broadcast, _as_event(max(own, key=lambda job: job.seq))

        def signalling(room: str = room) -> Call:
            return broadcast.broadcast, _as_event(Signal(id=new_id(), room=RoomId(room), frame='{"type":"typing"}'))

        yield f"entry to {count}", bench.measure(delivering, times=20)
        yield f"signal to {count}", bench.measure(signalling, times=20)


def _as_event(job: AnyJob) -> dict[str, Any]:
    event: dict[str, Any] = msgspec.json.decode(encode_job(job))
    return event


@contextmanager
def _dynamodb() -> Iterator[str]:
    """DynamoDB Local on a free port."""
    folder = dynamodb_local.find()
    if folder is None:
        raise SystemExit("DynamoDB Local is not here: run scripts/dynamodb-local")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, **dynamodb_local.ENVIRONMENT}
    command = dynamodb_local.command(folder, port)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def _variables(url: str) -> Iterator[None]:
    """The environment that a template gives to functions."""
    given = {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL_DYNAMODB": url,
        "HUBBUB_TABLE": "hubbub",
        "HUBBUB_ENDPOINT": f"https://abc.execute-api.{REGION}.amazonaws.com/live",
        "HUBBUB_BROADCASTER": "broadcaster",
        "HUBBUB_SECRET": SECRET,
        "HUBBUB_RATE": "0",
        "HUBBUB_USER_RATE": "0",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    main()

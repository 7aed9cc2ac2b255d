"""The real broadcaster against our own gateway's `@connections` and a real table: `python -m bench.broadcaster`.

A process with nothing in it but the broadcaster posts entries to 1,000 clients; its CPU time per post, the time from
taking the job to the last client's frame, and what an entry costs on the table. moto counts no capacity units for some
writes; with `--server dynamodb-local` they are Amazon's own. Functions run on asyncio's own loop, a server on uvloop.
Broadcaster, gateway, table and clients share this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from bench.contract import KEYS, id_of, in_process_server
from bench.load import Client, connect_many, until
from dynamolab import KEYS as TABLE_KEYS
from dynamolab import REGION, running
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpClient
from hubbub.aws.service import Service
from hubbub.aws.table import Table
from hubbub.clock import SystemClock
from hubbub.fanout.apigateway.broadcaster import Broadcaster
from hubbub.fanout.apigateway.jobs import AnyJob, Deliver
from hubbub.fanout.apigateway.keys import Listener
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Posts
from hubbub.model import ConnectionId, RoomId, UserId

ROOM = RoomId("bench")
TEXT = "x" * 300


class Nobody:
    """A transport of which nothing is asked."""

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        raise RuntimeError(f"expected no job to be handed over, got {jobs}")


async def post(table_url: str, endpoint: str, at_once: int) -> None:
    """The broadcaster's process: takes ids and then sizes from its input, one a line, and says what each entry cost."""
    ids = json.loads(await _line())
    clock = SystemClock()
    async with HttpClient() as tables, HttpClient(max_connections=at_once) as http:
        service = Service(tables, "dynamodb", region=REGION, credentials=Fixed(TABLE_KEYS), endpoint=table_url)
        table = Table(service, "bench", measure=True)
        await table.create()
        listeners = [
            Listener(ROOM, 0, UserId(f"u{n}"), ConnectionId(each), 0, 2**40, 2**40) for n, each in enumerate(ids)
        ]
        await table.write_many([listener.item() for listener in listeners])
        pace = Pace(table, clock=clock, per_s=1e6, burst=1_000_000)
        posts = Posts(http, endpoint, region="us-east-1", credentials=Fixed(KEYS), clock=clock, watch=pace)
        broadcaster = Broadcaster(
            table, posts, pace, Nobody(), read=_no_log, forget=_no_one, clock=clock, at_once=at_once
        )
        print("ready", flush=True)
        seq = 0
        while await _line():
            seq += 1
            before = (dict(table.used.requests), table.used.read_units, table.used.write_units)
            began, cpu = time.perf_counter(), time.process_time()
            await broadcaster.run(Deliver(id=str(seq), room=ROOM, seq=seq, frame=f"{seq} {TEXT}"), remaining_s=60)
            spent = time.process_time() - cpu
            used = {name: count - before[0].get(name, 0) for name, count in table.used.requests.items()}
            said = {
                "began": began,
                "done": time.perf_counter(),
                "cpu_s": spent,
                "requests": {name: count for name, count in used.items() if count},
                "read_units": table.used.read_units - before[1],
                "write_units": table.used.write_units - before[2],
            }
            print(json.dumps(said), flush=True)


async def _line() -> str:
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def _no_log(room: RoomId, after: int) -> list[tuple[int, bytes]]:
    raise RuntimeError("expected the frame in the job to be enough")


async def _no_one(connection: ConnectionId) -> None:
    raise RuntimeError(f"expected every connection to be there, {connection} is not")


async def measure(members: int, rounds: int, at_once: int, server: str, loop: str) -> list[dict[str, Any]]:
    """What each entry cost, and when the last client had it."""
    with running(server) as dynamodb:
        async with in_process_server() as gateway:
            clients = await connect_many(gateway, [None] * members)
            ids = [await id_of(client) for client in clients]
            command = [sys.executable, "-m", "bench.broadcaster", "--post", dynamodb.url]
            command += [f"http://127.0.0.1:{gateway.port}/ws", str(at_once), loop]
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20
            )
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(ids).encode() + b"\n")
            await process.stdout.readline()
            rows = []
            for _ in range(rounds + 1):
                arrived = _arrivals(clients)
                cpu = gateway.cpu_s()
                process.stdin.write(b"go\n")
                said = json.loads(await process.stdout.readline())
                await until(lambda arrived=arrived: len(arrived) == members)  # type: ignore[misc]  # bound at once
                said["last_s"] = max(arrived) - said["began"]
                said["gateway_cpu_s"] = gateway.cpu_s() - cpu
                rows.append(said)
            process.stdin.close()
            await process.wait()
            for client in clients:
                assert client.transport is not None
                client.transport.disconnect()
            return rows[1:]


def _arrivals(clients: Sequence[Client]) -> list[float]:
    """When each client got its next frame; filled as they come."""
    arrived: list[float] = []

    def note(frame: bytes) -> None:
        arrived.append(time.perf_counter())

    for client in clients:
        client.on_frame = note
    return arrived


async def main(members: int, rounds: int, server: str) -> None:
    """Print the table."""
    names = ("loop", "at once", "posts/CPU-s", "CPU us/post", "gateway us", "done ms", "last frame ms")
    print("  ".join(f"{name:>11}" for name in names))
    rows: list[dict[str, Any]] = []
    for loop, at_once in (("asyncio", 50), ("asyncio", 100), ("uvloop", 100)):
        rows = await measure(members, rounds, at_once, server, loop)
        figures = [(row["cpu_s"], row["gateway_cpu_s"], row["done"] - row["began"], row["last_s"]) for row in rows]
        cpu_s, gateway_s, done_s, last_s = (statistics.median(column) for column in zip(*figures, strict=True))
        row = (
            loop,
            str(at_once),
            f"{members / cpu_s:,.0f}",
            f"{cpu_s / members * 1e6:.1f}",
            f"{gateway_s / members * 1e6:.1f}",
            f"{done_s * 1e3:.0f}",
            f"{last_s * 1e3:.0f}",
        )
        print("  ".join(f"{figure:>11}" for figure in row), flush=True)
    last = rows[-1]
    print(f"\nan entry to {members:,} members on the table: {last['requests']},")
    print(f"{last['write_units']:g} write units, {last['read_units']:g} read units (as {server} counts them)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--server", choices=["moto", "dynamodb-local"], default="moto")
    parser.add_argument("--post", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.post:
        (asyncio if chosen.post[3] == "asyncio" else uvloop).run(post(*chosen.post[:2], int(chosen.post[2])))
    else:
        uvloop.run(main(chosen.members, chosen.rounds, chosen.server))

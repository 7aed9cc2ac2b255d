"""What a quiet connection costs a node of a cluster: `python -m bench.cluster_memory [--connections 10000]`.

Every connection is that of another user who listens to a room of 100 and to one of 1,000. First its memory, then the
processor time of the node while nobody says anything: with pings to silent connections as they are by default, and with
clients that ask every 30 seconds whether the connection stands, as Hubbub's own do.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop

from bench import saving
from bench.cluster import cpu, cpu_of, rss, running_cluster
from bench.crowd import Crowd, open_files
from bench.load import token
from bench.reconnects import rooms_of

WARM = 500
"""So many come and go before, so that what the first connections of a node bring about is not counted."""

HEARTBEAT_S = 30.0
"""How long Hubbub's clients wait, when they hear nothing, until they ask."""


async def quiet(seconds: float, crowd: Crowd, *, heartbeats: bool) -> None:
    """Let time pass."""
    pause_s = HEARTBEAT_S / len(crowd.visitors)
    loop = asyncio.get_running_loop()
    began = loop.time()
    number = 0
    while (passed_s := loop.time() - began) < seconds:
        while heartbeats and number * pause_s < passed_s:
            crowd.visitors[number % len(crowd.visitors)].send(action="ping", ref="ping")
            number += 1
        await asyncio.sleep(0.05)


async def main(count: int, seconds: float) -> dict[str, object]:
    """Print what so many connections cost, and return it."""
    rests: list[dict[str, object]] = []
    open_files(count + 1_000)
    with running_cluster(nodes=2) as cluster:
        node = cluster.nodes[0]
        warm = Crowd([node.port])
        for number in range(WARM):
            rooms = rooms_of(number, count)
            warm.add(token(f"user{number}", rooms), rooms)
        await warm.arrive()
        await warm.leave()
        await asyncio.sleep(10)
        empty = rss(node)
        began = cpu(cluster, [node])
        await asyncio.sleep(seconds)
        at_rest = cpu(cluster, [node]).since(began)
        crowd = Crowd([node.port])
        for number in range(count):
            rooms = rooms_of(number, count)
            crowd.add(token(f"user{number}", rooms), rooms)
        before = cpu(cluster, [node])
        await crowd.arrive()
        came = cpu(cluster, [node]).since(before)
        await asyncio.sleep(15)
        full = rss(node)
        print(f"{count:,} connections at a node of two, two rooms each: {empty / 2**20:.0f} MB before")
        print(f"  memory: {(full - empty) / count / 1024:.1f} KB each")
        print(
            f"  processor time of connecting and `sync`: node {came.nodes / count * 1e3:.2f} ms,"
            f" PostgreSQL {came.postgres / count * 1e3:.2f} ms, NATS {came.nats / count * 1e3:.2f} ms each"
        )
        print(f"  nobody there: node {at_rest.nodes / seconds:.1%} of a core")
        for heartbeats in (False, True):
            start = cpu(cluster, [node])
            other = cpu_of(cluster.nodes[1].pid)
            await quiet(seconds, crowd, heartbeats=heartbeats)
            used = cpu(cluster, [node]).since(start)
            other = cpu_of(cluster.nodes[1].pid) - other
            words = f"asking every {HEARTBEAT_S:g} s" if heartbeats else "pinged by the node"
            print(
                f"  all there, {words}: node {used.nodes / seconds:.1%} of a core,"
                f" {used.nodes / seconds / count * 1e6:.1f} us a second and connection; PostgreSQL"
                f" {used.postgres / seconds:.1%}, NATS {used.nats / seconds:.1%}, other node {other / seconds:.1%}",
                flush=True,
            )
            parts = {"node": used.nodes, "postgres": used.postgres, "nats": used.nats, "other_node": other}
            cores = {name: spent / seconds for name, spent in parts.items()}
            rests.append({"heartbeats": heartbeats, **cores})
        print(f"  closed {dict(crowd.closed)}, refused {dict(crowd.refused)}")
        await crowd.leave()
    return {
        "connections": count,
        "kb": (full - empty) / count / 1024,
        "connecting_ms": {name: spent / count * 1e3 for name, spent in came._asdict().items()},
        "rests": rests,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60, help="of each rest")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.connections, chosen.seconds))
    if chosen.save:
        saving.save("cluster_memory", figures)

"""Resident memory of the server per idle connection: `python -m bench.memory [--connections 10000]`.

Every connection is authenticated and listens to one room. The server is warm: 500 connections came and went before.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop

from bench import saving
from bench.load import connect_many, hubbub_server


async def main(count: int) -> dict[str, float]:
    """Print what `count` connections cost."""
    async with hubbub_server() as server:
        for client in await connect_many(server, ["warm"] * 500):
            assert client.transport is not None
            client.transport.disconnect()
        await asyncio.sleep(2)
        before = server.rss()
        clients = await connect_many(server, [f"user{n}" for n in range(count)])
        connected = server.rss()
        for start in range(0, count, 100):
            await asyncio.gather(*(client.ask(action="sync") for client in clients[start : start + 100]))
        await asyncio.sleep(3)
        listening = server.rss()
        print(f"{count:,} connections: {before / 2**20:.0f} MB before")
        print(f"  connected: {(connected - before) / count / 1024:.1f} KB each")
        print(f"  listening to a room: {(listening - before) / count / 1024:.1f} KB each")
        each = {"connected_kb": connected, "listening_kb": listening}
        return {
            "connections": count,
            "before_mb": before / 2**20,
            **{name: (size - before) / count / 1024 for name, size in each.items()},
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.connections))
    if chosen.save:
        saving.save("memory", figures)

"""Resident memory of the server per idle connection: `python -m bench.memory [--connections 15000]`.

Every connection is authenticated, with a browser's handshake, and listens to one room. The server is warm: 500
connections came and went before. What the kernel keeps for a socket is not in it.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop

from bench import saving
from bench.horde import Horde, most_connections
from bench.load import hubbub_server, token


async def main(count: int) -> dict[str, float]:
    """Print and return what `count` connections cost."""
    count = min(count, most_connections())
    async with hubbub_server() as server:
        horde = Horde(server)
        await horde.arrive([token("warm")] * 500)
        await horde.leave()
        await asyncio.sleep(2)
        before = server.rss()
        await horde.arrive([token(f"user{number}") for number in range(count)])
        connected = server.rss()
        await horde.listen()
        await asyncio.sleep(3)
        listening = server.rss()
        await horde.leave()
        await asyncio.sleep(5)
        gone = server.rss()
    found = {
        "connections": count,
        "before_mb": before / 2**20,
        "connected_kb": (connected - before) / count / 1024,
        "listening_kb": (listening - before) / count / 1024,
        "gone_mb": gone / 2**20,
    }
    print(f"{count:,} connections: {found['before_mb']:.0f} MB before")
    print(f"  connected: {found['connected_kb']:.1f} KB each")
    print(f"  listening to a room: {found['listening_kb']:.1f} KB each")
    print(f"  when all are gone: {found['gone_mb']:.0f} MB")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=15_000)
    saving.add_argument(parser)
    given = parser.parse_args()
    figures = uvloop.run(main(given.connections))
    if given.save:
        saving.save("memory", figures)

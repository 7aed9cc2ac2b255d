"""What a connection costs the server to accept, and a storm of them: `python -m bench.connects [--connections 4000]`.

Every handshake is a browser's, with a token of its own that the server has never seen, so each signature is verified.
The server's processor time counts, from the first packet until it has let go of them all again; connections a second
are what one core could take. In the storm all come at the same moment, and those who are told to come back later do.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from typing import Any

import uvloop

from bench import saving
from bench.horde import Horde, most_connections
from bench.load import Server, hubbub_server, token

GONE_S = 2.0
"""How long the server gets to notice that a round's connections have ended."""


async def round_of(server: Server, tokens: list[str], *, at_once: int) -> dict[str, float]:
    """Connect all, and let them go: what it took."""
    horde = Horde(server, at_once)
    before = server.cpu_s()
    await horde.arrive(tokens)
    arrived = server.cpu_s()
    await horde.leave()
    await asyncio.sleep(GONE_S)
    gone = server.cpu_s()
    waited = sorted(horde.took_s)
    return {
        "connect_us": (arrived - before) / len(tokens) * 1e6,
        "leave_us": (gone - arrived) / len(tokens) * 1e6,
        "per_second": len(tokens) / (arrived - before),
        "p50_ms": waited[len(waited) // 2] * 1e3,
        "p99_ms": waited[len(waited) * 99 // 100] * 1e3,
        "longest_ms": waited[-1] * 1e3,
        "told_to_wait": horde.refused,
    }


async def main(connections: int, rounds: int, storm: int) -> dict[str, Any]:
    """Print and return what was found."""
    most = most_connections()
    connections, storm = min(connections, most), min(storm, most)
    found: dict[str, Any] = {"connections": connections, "rounds": rounds}
    async with hubbub_server() as server:
        await round_of(server, [token("warm")] * 500, at_once=64)
        kinds: dict[str, list[dict[str, float]]] = {"new": [], "known": []}
        for number in range(rounds):
            new = [token(f"user{number}-{each}") for each in range(connections)]
            kinds["new"].append(await round_of(server, new, at_once=64))
            kinds["known"].append(await round_of(server, [token("somebody")] * connections, at_once=64))
        for kind, each in kinds.items():
            middle = {name: statistics.median(one[name] for one in each) for name in each[0]}
            found[kind] = middle
            print(
                f"{kind} tokens: {middle['connect_us']:.0f} µs of the server's processor for each connection, "
                f"{middle['per_second']:,.0f} a second on a core; {middle['leave_us']:.0f} µs when it goes"
            )
        if storm:
            tokens = [token(f"stormy{each}") for each in range(storm)]
            found["storm"] = {"connections": storm, **await round_of(server, tokens, at_once=storm)}
            print(
                f"{storm:,} at the same moment: half are answered within {found['storm']['p50_ms'] / 1e3:.1f} s, "
                f"the last after {found['storm']['longest_ms'] / 1e3:.1f} s; "
                f"{found['storm']['told_to_wait']:,} times one is told to come back in a few seconds"
            )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storm", type=int, default=15_000, help="how many come at once; 0 for no storm")
    saving.add_argument(parser)
    given = parser.parse_args()
    figures = uvloop.run(main(given.connections, given.rounds, given.storm))
    if given.save:
        saving.save("connects", figures)

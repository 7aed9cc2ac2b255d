"""What quiet connections cost while nothing happens: `python -m bench.idle [--connections 15000] [--rounds 3]`.

Real ones, which are pinged and answer, by the server's processor time beyond what it takes with nobody connected. And a
hundred thousand pretended ones, at a time that passes as fast as it can, for the sweeper's own share: whom to look at,
pings and pongs in the hub's terms, without a system call. The sweeper spreads the pings of those who came together,
over more and more time, so the first minutes are the most uneven, and the time is that of two pings of each.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

import psutil
import uvloop

from bench import saving
from bench.horde import Horde, most_connections
from bench.load import hubbub_server, token
from bench.quiet import QuietCrowd
from hubbub.config import Settings

PING_AFTER_S = Settings().ping_after_s


async def real(connections: int, seconds: float, rounds: int) -> dict[str, Any]:
    """The server's share of a core for so many, beyond that for none; the median of some rounds of so many seconds."""
    async with hubbub_server() as server:
        horde = Horde(server)
        began, before = time.monotonic(), server.cpu_s()
        await asyncio.sleep(min(seconds, 15.0))
        nobody = (server.cpu_s() - before) / (time.monotonic() - began)
        await horde.arrive([token(f"user{number}") for number in range(connections)])
        await horde.listen()
        await asyncio.sleep(PING_AFTER_S + 2)  # the first pings fall due as the connections came, nearly together
        pinged = sum(idler.pings for idler in horde.idlers)
        process = psutil.Process(server.process.pid)
        then = process.cpu_times()
        shares: list[float] = []
        for _ in range(rounds):
            began, before = time.monotonic(), server.cpu_s()
            await asyncio.sleep(seconds)
            shares.append((server.cpu_s() - before) / (time.monotonic() - began) - nobody)
        now = process.cpu_times()
        user_s, system_s = now.user - then.user, now.system - then.system
        pings = (sum(idler.pings for idler in horde.idlers) - pinged) / (rounds * seconds)
        lost = sum(idler.closed for idler in horde.idlers)
    if lost:
        raise RuntimeError(f"expected all to stay, got {lost} closed connections")
    share = statistics.median(shares)
    return {
        "connections": connections,
        "nobody_share": nobody,
        "share": share,
        "rounds": shares,
        "pings_per_second": pings,
        "us_per_ping": share / pings * 1e6 if pings else 0.0,
        "kernel_part": system_s / (user_s + system_s) if user_s + system_s else 0.0,
        "share_of_100000": share / connections * 100_000,
    }


async def pretended(connections: int, minutes: int) -> dict[str, float]:
    """The sweeper's share of a core for so many."""
    crowd = QuietCrowd()
    for number in range(connections):
        crowd.now = PING_AFTER_S * number / connections
        await crowd.come()
    seconds, first = minutes * 60, int(PING_AFTER_S) + 1
    before = time.process_time()
    for second in range(first, first + seconds):
        crowd.now = float(second)
        crowd.hub.sweep()
        crowd.answer()
    took_s = time.process_time() - before
    return {"connections": connections, "share": took_s / seconds}


async def main(connections: int, seconds: float, rounds: int, many: int) -> dict[str, Any]:
    """Print and return what was found."""
    found: dict[str, Any] = {"real": await real(min(connections, most_connections()), seconds, rounds)}
    print(
        "{connections:,} idle connections: {share:.2%} of a core, {pings_per_second:,.0f} pings a second of "
        "{us_per_ping:.0f} µs each, "
        "{kernel_part:.0%} of it the kernel's; for 100,000 that would be {share_of_100000:.1%}".format(**found["real"])
    )
    found["pretended"] = await pretended(many, 5)
    print("{connections:,} without sockets: {share:.2%} of a core for sweeps and pings".format(**found["pretended"]))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=15_000)
    parser.add_argument("--seconds", type=float, default=2 * (PING_AFTER_S + 2))
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--pretended", type=int, default=100_000, dest="many")
    saving.add_argument(parser)
    given = parser.parse_args()
    figures = uvloop.run(main(given.connections, given.seconds, given.rounds, given.many))
    if given.save:
        saving.save("idle", figures)

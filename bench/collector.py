"""How long the garbage collector halts the server: `python -m bench.collector [--connections 15000]`.

Real connections come, authenticated, and begin to listen; the server's own `/metrics` says what its longest halt was by
then. A process here may not hold a hundred thousand sockets, so as many are also pretended, in this process under the
same policy: all that a connection is in Python, but for its transport. Beside that the same without the policy.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import re
import time
from contextlib import nullcontext
from typing import Any

import httpx
import uvloop

from bench import saving
from bench.horde import Horde, most_connections
from bench.load import SECRET, Server, hubbub_server, token
from bench.quiet import QuietCrowd
from hubbub.auth import issue
from hubbub.collecting import Pauses, SettingAside


async def longest_of(server: Server) -> float:
    """What the server says of its longest halt, in seconds."""
    backend = issue(SECRET, user="backend", ttl_s=600, now_s=int(time.time()), scope="server")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(
            f"http://127.0.0.1:{server.port}/metrics",
            headers={"Authorization": f"Bearer {backend}"},
        )
    found = re.search(r"^hubbub_gc_pause_seconds_max (\S+)$", answer.text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"expected the metric of pauses, got {answer.status_code} {answer.text[:200]!r}")
    return float(found[1])


async def real(connections: int) -> dict[str, float]:
    """The server's longest halt while so many came, began to listen, and went."""
    async with hubbub_server() as server:
        horde = Horde(server)
        await horde.arrive([token(f"user{number}") for number in range(connections)])
        await horde.listen()
        there = await longest_of(server)
        await horde.leave()
        await asyncio.sleep(2)
        return {"connections": connections, "longest_ms": there * 1e3, "gone_ms": await longest_of(server) * 1e3}


async def pretended(connections: int, *, policy: bool) -> dict[str, float]:
    """The longest halt in this process while so many come, and while half of them are replaced."""
    gc.collect()
    with (
        SettingAside() if policy else nullcontext(),
        Pauses() as pauses,
    ):  # what it begins with is before anybody is there
        crowd = QuietCrowd()
        began = time.perf_counter()
        for _ in range(connections):
            await crowd.come()
        for _ in range(connections // 2):
            await crowd.go()
            await crowd.come()
        took_s = time.perf_counter() - began
    return {
        "connections": connections,
        "longest_ms": pauses.longest_s * 1e3,
        "share": pauses.total_s / took_s,
        "pauses": pauses.count,
    }


async def main(connections: int, many: int) -> dict[str, Any]:
    """Print and return what was found."""
    found: dict[str, Any] = {"real": await real(min(connections, most_connections()))}
    print("{connections:,} connections: the longest halt was {longest_ms:.1f} ms".format(**found["real"]))
    for name, policy in (("pretended", True), ("without", False)):
        found[name] = await pretended(many, policy=policy)
        how = "under the policy" if policy else "as Python does by itself"
        print("{connections:,} pretended ones, {how}: {longest_ms:.1f} ms".format(how=how, **found[name]))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=15_000)
    parser.add_argument("--pretended", type=int, default=100_000, dest="many")
    saving.add_argument(parser)
    given = parser.parse_args()
    figures = uvloop.run(main(given.connections, given.many))
    if given.save:
        saving.save("collector", figures)

"""One of 1,000 listeners stops reading: `python -m bench.slow_consumer [--listeners 1000]`.

They listen at two nodes of a cluster, all to one room, in which somebody goes on talking. In every other round one of
them does not read, and its node closes it in the middle. Before, the kernels' buffers are filled in a room that it
alone listens to, with as much as was found to be too much in a round that is not counted. What counts is when the
others have each message, with it and without, and what its node keeps for it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import uvloop
from scripts.cluster import Cluster, Node

from bench import saving
from bench.cluster import as_server, disconnect, rss, running_cluster
from bench.crowd import Crowd, Visitor, open_files
from bench.load import SECRET, Client, connect, token
from hubbub.auth import issue

ROOM = "hall"
TEXT_BYTES = 8_000
SLOW_CLOSED = "hubbub_slow_closed_total"

SHORT = 90
"""How many messages before it would be closed the filling stops: most of what a node keeps for a connection."""

FILLED_AT_ONCE = 16
"""How many messages are under way while the kernels' buffers are filled."""


def metric(node: Node, name: str) -> float:
    """One of a node's numbers."""
    bearer = issue(SECRET, user="backend", ttl_s=600, now_s=int(time.time()), scope="server")
    asked = urllib.request.Request(f"{node.url}/metrics", headers={"Authorization": f"Bearer {bearer}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text: str = opener.open(asked, timeout=30).read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


async def closed_as_slow(nodes: Sequence[Node]) -> int:
    """How many connections these nodes have closed for not reading."""
    return sum([int(await asyncio.to_thread(metric, node, SLOW_CLOSED)) for node in nodes])


def own_room(number: int) -> str:
    """The room of one client alone."""
    return f"own{number}"


class Talker:
    """Sends one message after the other.

    Attributes:
        heads: the `seq` of the last one that was acknowledged, by room.
        sent_at: when each was sent, by its room and `seq`.

    """

    def __init__(self, client: Client) -> None:
        self.heads: dict[str, int] = {}
        self.sent_at: dict[tuple[str, int], float] = {}
        self._client = client
        self._under_way: list[float] = []  # when those were sent that are not acknowledged, in order
        client.on_frame = self._answered

    def say(self, room: str = ROOM) -> None:
        """Send one."""
        self._under_way.append(time.perf_counter())
        self._client.send(
            msgspec.json.encode({"action": "send", "room": room, "text": "x" * TEXT_BYTES, "ref": "said"})
        )

    def leave(self) -> None:
        """Disconnect."""
        disconnect([self._client])

    async def answered(self, left: int = 0) -> None:
        """Wait until at most so many are not acknowledged."""
        while len(self._under_way) > left:
            await asyncio.sleep(0.001)

    def _answered(self, frame: bytes) -> None:
        reply = msgspec.json.decode(frame)
        if reply.get("type") == "error":
            raise RuntimeError(f"a message was refused: {reply}")
        if reply.get("ref") == "said":
            room, seq = reply["room"], reply["seq"]
            self.heads[room] = max(seq, self.heads.get(room, 0))
            self.sent_at[room, seq] = self._under_way.pop(0)


@dataclass
class Round:
    """How a round went.

    Attributes:
        p50_s, p99_s: how long it took until others had a message.
        kept: how much more memory the slow one's node had at most, bytes.
        missed: messages that were sent while it did not read, until it was found closed.
        caught_up_s: how long it took, when it read again, until it had all; 0 in a round without.

    """

    p50_s: float
    p99_s: float
    kept: int = 0
    missed: int = 0
    caught_up_s: float = 0.0


async def gathered(cluster: Cluster, listeners: int, slow: int) -> tuple[Crowd, Talker]:
    """A full room and somebody who talks in it; the first `slow` listeners have a room of their own as well."""
    rooms = [ROOM, *map(own_room, range(slow))]
    client = await connect(as_server(cluster.nodes[0]), "talker", rooms)
    for room in rooms:
        await client.ask(action="send", room=room, text="first")
    crowd = Crowd([node.port for node in cluster.nodes])
    for number in range(listeners):
        of_it = [ROOM, own_room(number)] if number < slow else [ROOM]
        crowd.add(token(f"user{number}", of_it), of_it)
    await crowd.arrive()
    return crowd, Talker(client)


async def fill(talker: Talker, room: str, messages: int) -> None:
    """Send so much to one who does not read."""
    for _ in range(messages):
        talker.say(room)
        await talker.answered(FILLED_AT_ONCE)
    await talker.answered()


async def too_much(cluster: Cluster, talker: Talker, slow: Visitor, room: str) -> int:
    """How many messages it takes until one who does not read is closed; it then reads again, and has all."""
    before = await closed_as_slow(cluster.nodes)
    slow.stop_reading()
    messages = 0
    while await closed_as_slow(cluster.nodes) == before:
        await fill(talker, room, FILLED_AT_ONCE)
        messages += FILLED_AT_ONCE
    slow.read_on()
    while slow.last[room] < talker.heads[room]:
        await asyncio.sleep(0.01)
    return messages


async def talk(
    cluster: Cluster, crowd: Crowd, talker: Talker, slow: Visitor | None, messages: int, rate: float
) -> Round:
    """Let somebody talk at this rate to all, one of whom may be no reader any more."""
    arrived: list[tuple[int, float]] = []

    def heard(who: Visitor, room: str, seq: int) -> None:
        if who is not slow:
            arrived.append((seq, time.perf_counter()))

    memory = {node.name: rss(node) for node in cluster.nodes}
    kept = 0
    first = talker.heads.get(ROOM, 1)
    crowd.on_entry = heard
    began = time.perf_counter()
    for number in range(messages):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        talker.say()
        if number % 10 == 0:
            kept = max(kept, *(rss(node) - memory[node.name] for node in cluster.nodes))
    await talker.answered()
    others = [visitor for visitor in crowd.visitors if visitor is not slow]
    while any(visitor.last[ROOM] < talker.heads[ROOM] for visitor in others):
        await asyncio.sleep(0.01)
    crowd.on_entry = None
    took = sorted(at - talker.sent_at[ROOM, seq] for seq, at in arrived if seq > first)
    return Round(took[len(took) // 2], took[int(len(took) * 0.99)], kept)


async def talk_to_a_slow_one(
    cluster: Cluster, crowd: Crowd, talker: Talker, number: int, filling: int, messages: int, rate: float
) -> Round:
    """`talk`, with a client that does not read and for which much waits already; it is closed and comes back."""
    slow = crowd.visitors[number]
    before = await closed_as_slow(cluster.nodes)
    slow.stop_reading()
    await fill(talker, own_room(number), filling)
    if await closed_as_slow(cluster.nodes) != before:
        raise RuntimeError(f"it was closed before the round, by {filling} messages: try again")
    went = await talk(cluster, crowd, talker, slow, messages, rate)
    while await closed_as_slow(cluster.nodes) == before:  # where the kernels took more than in the first round
        talker.say(own_room(number))
        await talker.answered()
    went.missed = sum(talker.heads[room] - last for room, last in slow.last.items())
    began = time.perf_counter()
    slow.read_on()
    while any(slow.last[room] < talker.heads[room] for room in slow.last):
        await asyncio.sleep(0.01)
    went.caught_up_s = time.perf_counter() - began
    return went


async def main(listeners: int, rounds: int, messages: int, rate: float) -> dict[str, object]:
    """Measure in alternating rounds, print, and return what is to be saved."""
    open_files(listeners + 1_000)
    with running_cluster(nodes=2) as cluster:
        crowd, talker = await gathered(cluster, listeners, rounds + 1)
        await asyncio.sleep(5)
        found = await too_much(cluster, talker, crowd.visitors[rounds], own_room(rounds))
        await talk(cluster, crowd, talker, None, 50, rate)
        print(f"{listeners:,} listeners at two nodes, {messages} messages of {TEXT_BYTES:,} bytes, {rate:g} a second")
        print(f"closed after {found} messages to one that does not read: {found * TEXT_BYTES / 2**20:.1f} MB")
        print("                 p50 ms   p99 ms   memory kept, MB   missed   caught up after, s")
        without: list[Round] = []
        with_it: list[Round] = []
        for number in range(rounds):
            without.append(await talk(cluster, crowd, talker, None, messages, rate))
            went = await talk_to_a_slow_one(cluster, crowd, talker, number, found - SHORT, messages, rate)
            with_it.append(went)
            for name, each in (("all read", without[-1]), ("one does not", went)):
                print(
                    f"  {name:>12}  {each.p50_s * 1e3:>7.1f}  {each.p99_s * 1e3:>7.1f}  {each.kept / 2**20:>16.1f}"
                    f"  {each.missed:>7}  {each.caught_up_s:>20.1f}",
                    flush=True,
                )
        ratio = statistics.median(ours.p99_s / theirs.p99_s for ours, theirs in zip(with_it, without, strict=True))
        print(f"p99 with one that does not read, to that without: {ratio:.2f} (median of {rounds} pairs)")
        print(f"closed {dict(crowd.closed)}; entries repeated {crowd.repeated}, out of order {crowd.torn}")
        talker.leave()
        await crowd.leave()
    medians = {
        name: {
            "p50_ms": statistics.median(each.p50_s for each in all_of) * 1e3,
            "p99_ms": statistics.median(each.p99_s for each in all_of) * 1e3,
        }
        for name, all_of in (("all_read", without), ("one_does_not", with_it))
    }
    return {"listeners": listeners, "closed_after_bytes": found * TEXT_BYTES, "p99_ratio": ratio, **medians}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=200, help="in each round")
    parser.add_argument("--rate", type=float, default=20, help="messages a second")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.listeners, chosen.rounds, chosen.messages, chosen.rate))
    if chosen.save:
        saving.save("slow_consumer", figures)

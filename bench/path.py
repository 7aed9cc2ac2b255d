"""Where the time of one message goes, by thread: `python -m bench.path`.

The whole chat in this process, without sockets: an event goes in, the entry is stored, framed once and handed to one
listener whose socket takes everything. Beside a store in memory the one on disk shows what durability costs, beside
one message at a time 16 show what sharing a commit saves.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM
from hubbub.apigateway import Event, Identity, RequestContext, new_id
from hubbub.auth import JwtVerifier
from hubbub.chat import Chat, ChatLimits
from hubbub.clock import SystemClock
from hubbub.fanout import open_fanout
from hubbub.gateway import Hub
from hubbub.gateway.connection import Life
from hubbub.gateway.hub import Peer
from hubbub.model import ConnectionId, Member, Principal, Role, RoomId, RoomKind, UserId
from hubbub.store import open_store

SENDER = Principal(user=UserId("sender"), expires_at=2**33)
BODY = msgspec.json.encode({"action": "send", "ref": "r", "room": ROOM, "text": "x" * 200}).decode()
NAMES = {"MainThread": "event loop", "hubbub-write": "writer"}


class _Socket:
    """A listener's socket that takes everything at once."""

    def waiting(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        pass

    def send_close(self, code: int, reason: str) -> None:
        pass

    def drop(self, abort: bool) -> None:
        pass


def _event(connection: str) -> Event:
    request_id = new_id()
    context = RequestContext(
        route_key="$default",
        event_type="MESSAGE",
        extended_request_id=request_id,
        request_time="19/Feb/2024:07:11:42 +0000",
        stage="local",
        connected_at=0,
        request_time_epoch=0,
        identity=Identity("127.0.0.1"),
        request_id=request_id,
        domain_name="localhost",
        connection_id=connection,
        api_id="bench",
        message_id=new_id(),
    )
    return Event(request_context=context, body=BODY, is_base64_encoded=False)


def _cpu_us() -> Counter[str]:
    """Processor time of each thread of this process so far, in microseconds."""
    used: Counter[str] = Counter()
    for thread in threading.enumerate():
        spent = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]
        used[NAMES.get(thread.name, "others")] += int(spent) // 1_000
    return used


async def measure(url: str, in_flight: int, messages: int) -> tuple[Counter[str], float]:
    """CPU time by thread, and the time that passed, of all `messages`, in microseconds."""
    chat, clock, hub = Chat(), SystemClock(), Hub()
    connection = ConnectionId(new_id())

    async def nothing(room: RoomId, after: int) -> list[tuple[int, bytes]]:
        return []

    async with open_store(url) as store, open_fanout("local", sink=hub, read=nothing, clock=clock) as fanout:
        verifier = JwtVerifier(secrets=["a secret that is not used in this bench"])
        limits = ChatLimits(rate=0, user_rate=0)
        chat.bind(store=store, fanout=fanout, directory=fanout, tokens=verifier, clock=clock, limits=limits)
        members = [Member(user=SENDER.user, role=Role.MEMBER)]
        room = await store.create_room(RoomId(ROOM), RoomKind.PUBLIC, name="", by=SENDER.user, at=0, members=members)
        await fanout.connect(connection, SENDER)
        socket = _Socket()
        hub.add(Peer(connection, Life(hub.now()), socket, socket.write))
        with await fanout.listen(connection, [room.id]) as listening:
            listening.start(room.id, room.head)
        for _ in range(messages // 10 // in_flight):
            await asyncio.gather(*(chat.handle(_event(connection)) for _ in range(in_flight)))
        before, began = _cpu_us(), time.perf_counter()
        for _ in range(messages // in_flight):
            await asyncio.gather(*(chat.handle(_event(connection)) for _ in range(in_flight)))
        passed_us = (time.perf_counter() - began) * 1e6
        return _cpu_us() - before, passed_us


async def main(rounds: int, messages: int) -> list[dict[str, float | str]]:
    """Print a table of medians."""
    rows: list[dict[str, float | str]] = []
    print(f"{'store':>8}  in flight  event loop, us  writer, us  others, us  all, us  passed, us   (each message)")
    for store in ("memory", "file"):
        for in_flight in (1, 16):
            figures: list[list[float]] = []
            for _ in range(rounds):
                with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
                    url = "sqlite://:memory:" if store == "memory" else f"sqlite:///{folder}/bench.db"
                    used, passed_us = await measure(url, in_flight, messages)
                columns = [used["event loop"], used["writer"], used["others"], used.total(), passed_us]
                figures.append([column / messages for column in columns])
            loop, writer, others, total, passed = (statistics.median(column) for column in zip(*figures, strict=True))
            print(
                f"{store:>8}  {in_flight:>9}  {loop:>14.0f}  {writer:>10.0f}  {others:>10.0f}  {total:>7.0f}"
                f"  {passed:>10.0f}",
                flush=True,
            )
            columns_us = {"loop_us": loop, "writer_us": writer, "all_us": total, "passed_us": passed}
            rows.append({"store": store, "in_flight": in_flight, **columns_us})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=3_200)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    rows = uvloop.run(main(chosen.rounds, chosen.messages))
    if chosen.save:
        saving.save("path", {"rows": rows})

"""Directories on one table, as several functions have them, and a log that they may read."""

from __future__ import annotations

import time
from typing import Any

from doubles import FakeClock
from hubbub.aws.table import Table
from hubbub.fanout import ApiGatewayDirectory
from hubbub.fanout.apigateway.listening import ApiGatewayListening
from hubbub.model import ConnectionId, Principal, RoomId, UserId

ROOM, OTHER = RoomId("room"), RoomId("other")
ALICE, BOB = UserId("alice"), UserId("bob")


def connection(name: str) -> ConnectionId:
    """A connection's id of the form that gateways give them."""
    return ConnectionId(f"{name:A<15}=")


A, A1, A2, B, C = map(connection, ("a", "a1", "a2", "b", "c"))


class Functions:
    """Functions that share a table.

    Attributes:
        clock: their time; it begins now, for a server may remove what has outlived its time.
        log: the seqs of every room's entries.
        told: what watchers were told, in all functions.
        one, two: the directories of two of them.

    """

    def __init__(self, table: Table, **options: Any) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.clock = FakeClock(now_ms - now_ms % 60_000)
        self.table = table
        self.log: list[int] = []
        self.told: list[tuple[str, str, bool]] = []
        self.options = options
        self.one, self.two = self.another(), self.another()

    def another(self) -> ApiGatewayDirectory:
        """The directory of another function."""
        made = ApiGatewayDirectory(self.table, clock=self.clock, read=self.read, **self.options)
        made.watch(lambda room, user, online: self.told.append((room, user, online)))
        return made

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        """The entries after a seq."""
        return [(seq, b"%d" % seq) for seq in self.log if seq > after]

    def principal(self, user: str, *, ttl_s: int = 3_600, **claims: Any) -> Principal:
        """A user's token."""
        return Principal(UserId(user), self.clock.now_ms() // 1_000 + ttl_s, **claims)

    async def connect(self, user: str, connection: ConnectionId, *rooms: str, ttl_s: int = 3_600) -> None:
        """Connect by one function and listen by the other."""
        await self.one.connect(connection, self.principal(user, ttl_s=ttl_s))
        assert set(await self.listen(self.two, connection, *rooms)) == set(rooms)

    async def listen(self, by: ApiGatewayDirectory, connection: ConnectionId, *rooms: str) -> dict[RoomId, list[bytes]]:
        """Listen to rooms by one of the functions."""
        async with await by.listen(connection, [RoomId(room) for room in rooms]) as listening:
            return await self.start(listening, *rooms)

    async def start(self, listening: ApiGatewayListening, *rooms: str) -> dict[RoomId, list[bytes]]:
        """Start to listen, knowing the whole log."""
        return await listening.start({RoomId(room): len(self.log) for room in rooms})

    async def items(self) -> list[tuple[str, str]]:
        """The keys of everything in the table but what is due, or has its turn to be looked at."""
        answer = await self.table._call("Scan", {"ProjectionExpression": "pk, sk"})
        keys = [(item["pk"]["S"], item["sk"]["S"]) for item in answer["Items"]]
        return sorted(key for key in keys if not key[0].startswith(("due#", "look#")))

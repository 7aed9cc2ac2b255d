"""One connection of the load test as a client of the chat: it syncs, listens, sends, and comes back where it was.

It mends nothing: what the client library would ask for again is counted here as lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from ssl import SSLContext
from typing import Any, Protocol, TypeVar

import msgspec

from hubbub.loadtest.frames import Control, Head, Item, Mark, Reader, Reply, Run, Signal
from hubbub.loadtest.histogram import Histogram
from hubbub.loadtest.logs import Log, Tally
from hubbub.loadtest.telling import Counts
from hubbub.loadtest.tokens import NoToken, Tokens
from hubbub.loadtest.wire import NotConnected, Target, Wire
from hubbub.protocol import encode

FormT = TypeVar("FormT")

PATIENCE_S = 30.0
"""How long a handshake or an answer that is needed to go on may take."""

PAGE = 200


class Desk(Protocol):
    """What the members of a process share."""

    bench: str
    process: int
    text: str
    reader: Reader
    inflating: Reader
    target: Target
    tls: SSLContext | None
    tokens: Tokens
    counts: Counts
    ack: Histogram
    delivery: Histogram
    slow_delivery: Histogram
    resumed: Histogram
    history: Histogram
    connect: Histogram
    resets: int
    strayed: int
    apart: frozenset[str]

    def tally(self, room: str) -> Tally:
        """The room's tally."""
        ...

    def acknowledged(self, number: int, room: str, seq: int) -> None:
        """A message of this process has this place in its room's log."""
        ...

    def lost(self, member: Member, code: int, reason: str) -> None:
        """The member's connection has ended."""
        ...


NOWHERE = -1
"""The `seq` of an acknowledgement that has none."""


class Refused(Exception):
    """The server answered with an error.

    Attributes:
        code: of it.

    """

    def __init__(self, action: str, code: str, message: str, retry_after_ms: int | None) -> None:
        super().__init__(f"{action} was refused with {code}: {message}")
        self.code = code
        self.retry_after_ms = retry_after_ms


class _Error(msgspec.Struct):
    message: str = ""
    retry_after_ms: int | None = None


class _Room(msgspec.Struct):
    room: str
    head: int


class _Synced(msgspec.Struct):
    epoch: str
    rooms: list[_Room]
    entries: list[Head]
    more: list[str]
    reset: list[str]


class _Page(msgspec.Struct):
    entries: list[Head]
    has_more: bool


def _understood(reply: Reply, form: type[FormT]) -> FormT:
    try:
        return msgspec.json.decode(reply.json, type=form)
    except msgspec.DecodeError as error:
        raise NotConnected(f"an answer is not the chat's: {error}") from None


class Member:
    """A connection, and what it has of its rooms.

    Args:
        index: which.
        rooms: where it listens.
        desk: what it shares with others.
        source: the address that it connects from; None for any.
        is_slow: whether it does not read what comes while the load test sends.
        grants: whether its token lets it into its rooms.
        sends: whether it sends.

    Attributes:
        is_live: whether it stands and is in step.
        cut_at: when the storm cut it, in monotonic nanoseconds; 0 when it did not, or it is back.
        pending: its messages that were sent and not answered: number, when due, and the room.
        pages: its questions for history that were not answered: when due, and before which `seq`.
        logs: where it stands in each room.
        has_come: whether it was connected and in step at any time.

    """

    __slots__ = (
        *("_asks", "_desk", "_epoch", "_grants", "_next", "_refs", "_sends", "_source", "_wire", "cut_at", "delivery"),
        *("has_come", "index", "is_live", "is_slow", "logs", "pages", "pending", "resumed", "rooms"),
    )

    def __init__(
        self,
        index: int,
        rooms: Sequence[str],
        desk: Desk,
        source: str | None,
        *,
        is_slow: bool = False,
        grants: bool = True,
        sends: bool = True,
    ) -> None:
        self.index = index
        self.rooms = rooms
        self.is_slow = is_slow
        self.is_live = False
        self.cut_at = 0
        self.has_come = False
        self.pending: dict[int, tuple[int, str]] = {}
        self.pages: dict[int, int] = {}
        self.logs: dict[str, Log] = {room: Log(desk.tally(room)) for room in rooms}
        self.delivery = desk.slow_delivery if is_slow else desk.delivery
        self.resumed = desk.slow_delivery if is_slow else desk.resumed
        self._desk = desk
        self._source = source
        self._grants = grants
        self._sends = sends
        self._wire: Wire | None = None
        self._epoch: str | None = None  # of the last sync
        self._asks: dict[str, asyncio.Future[Reply]] = {}
        self._refs = 0
        self._next = index % len(rooms) if rooms else 0  # the room it sends to next

    async def open(self, since: int | None = None) -> None:
        """Connect, and listen from where it stood.

        Args:
            since: when it was to, in monotonic nanoseconds; None for now.

        Raises:
            NotConnected: no connection came to be, or it ended meanwhile.
            Refused: the server does not let it into a room.
            NoToken: there is no token for it.

        """
        desk, begun = self._desk, since or time.monotonic_ns()
        token = await desk.tokens.of(self.index)
        wire = Wire(self, desk.reader, desk.inflating, desk.target, token)
        self._wire = wire
        try:
            address = desk.target.address_of(self.index)
            await wire.open(address, desk.tls, self._source, PATIENCE_S, slow=self.is_slow)
            await self._listen()
        except BaseException:
            wire.abandon()
            self._down()
            raise
        desk.connect.record((time.monotonic_ns() - begun) // 1_000)
        desk.counts.opened += 1
        desk.counts.deflated += wire.deflates
        self.is_live = True
        for number, (due, room) in list(self.pending.items()):  # again: the same client_id is stored once
            self._write(number, due, room)
        for due, before in list(self.pages.items()):
            self._ask_page(due, before)

    async def _listen(self) -> None:
        known = {room: log.known for room, log in self.logs.items()} if self.has_come else {}
        synced = _understood(
            await self.insist("sync", rooms=known, **({"epoch": self._epoch} if known else {})), _Synced
        )
        self._epoch = synced.epoch
        heads = {state.room: state.head for state in synced.rooms}
        self._resume(synced.entries, {room: seq for room, seq in known.items() if room not in synced.reset})
        for room, log in self.logs.items():
            if room in synced.reset:
                self._desk.resets += 1
            if room not in known or room in synced.reset:
                log.begin(heads[room] if room in heads else await self._enter(room))
            elif room not in heads:
                await self._enter(room)
                await self._catch_up(room)
            elif room in synced.more:
                await self._catch_up(room)
        self.has_come = True
        now = time.monotonic_ns()
        for log in self.logs.values():
            for run in log.go_on():
                self.delivery.record_since(now, log.take(run))

    async def _enter(self, room: str) -> int:
        """Begin to listen to a room that one is not in; returns its head."""
        if self._grants or not self._sends:
            try:
                return (await self.insist("subscribe", room=room)).head.head
            except Refused as error:
                if error.code not in ("forbidden", "not_a_member"):
                    raise
        return (await self.insist("join", room=room)).head.head

    async def _catch_up(self, room: str) -> None:
        log = self.logs[room]
        while True:
            after = log.known
            page = _understood(await self.insist("history", room=room, after=after, limit=PAGE), _Page)
            self._resume(page.entries, {room: after})
            if not page.has_more or log.known == after:
                return

    def _resume(self, entries: Sequence[Head], after: Mapping[str, int]) -> None:
        """Take what an answer has of the rooms that were asked about, each after a `seq`."""
        by_room: dict[str, list[tuple[int, int]]] = {}
        for entry in entries:
            by_room.setdefault(entry.room, []).append((entry.seq, self._desk.reader.note(entry)))
        now = time.monotonic_ns()
        for room, seq in after.items():
            self.resumed.record_since(now, self.logs[room].resume(by_room.get(room, ()), seq))

    async def ask(self, action: str, **fields: Any) -> Reply:  # Any: an action's fields
        """Ask, and wait for the answer.

        Raises:
            NotConnected: it ended, or took too long.
            Refused: it is an error.

        """
        self._refs += 1
        ref = f"a{self._refs}"
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asks[ref] = answer
        try:
            if self._wire is None:
                raise NotConnected("the connection has ended")
            self._wire.send(encode({"action": action, "ref": ref, **fields}))
            async with asyncio.timeout(PATIENCE_S):
                reply = await answer
        except TimeoutError:
            raise NotConnected(f"no answer to {action} within {PATIENCE_S:g} s") from None
        finally:
            del self._asks[ref]
        if reply.head.type != "ok":
            error = _understood(reply, _Error)
            raise Refused(action, str(reply.head.code), error.message, error.retry_after_ms)
        return reply

    async def insist(self, action: str, **fields: Any) -> Reply:  # Any: an action's fields
        """Ask, and again as long as it is too often, up to `PATIENCE_S`.

        Raises:
            NotConnected: it ended, or took too long.
            Refused: it is another error, or still that.

        """
        begun = time.monotonic()
        while True:
            try:
                return await self.ask(action, **fields)
            except Refused as error:
                if error.code != "rate_limited" or time.monotonic() - begun > PATIENCE_S:
                    raise
                await asyncio.sleep(min((error.retry_after_ms or 100) / 1_000, PATIENCE_S))

    def send(self, number: int, due: int) -> None:
        """Send the message of this number now, or when the connection is back."""
        room = self.rooms[self._next]
        self._next = (self._next + 1) % len(self.rooms)
        self.pending[number] = due, room
        if self.is_live:
            self._write(number, due, room)

    def _write(self, number: int, due: int, room: str) -> None:
        desk = self._desk
        self._say(
            encode(
                {
                    "action": "send",
                    "ref": f"s{number}",
                    "room": room,
                    "text": desk.text,
                    "client_id": f"{desk.bench}-{desk.process}-{number}",
                    "data": Mark(desk.bench, desk.process, number, due),
                }
            )
        )

    def _say(self, frame: bytes) -> None:
        if self._wire is not None:
            self._wire.send(frame)

    def read_page(self, due: int, before: int) -> None:
        """Ask for a page of history of its first room now, or when the connection is back."""
        self.pages[due] = 1 + before % (self.logs[self.rooms[0]].last + 1)
        if self.is_live:
            self._ask_page(due, self.pages[due])

    def _ask_page(self, due: int, before: int) -> None:
        fields = {"room": self.rooms[0], "before": before, "limit": 50}
        self._say(encode({"action": "history", "ref": f"h{due}", **fields}))

    def ping(self) -> None:
        """Say something, so that nobody takes the connection for dead."""
        if self.is_live:
            self._say(b'{"action":"ping","ref":"p"}')

    def close(self) -> None:
        """Say goodbye, and come back no more."""
        self.is_live = False
        if self._wire is not None:
            self._wire.close()

    def cut(self) -> None:
        """Break the connection off."""
        if self._wire is not None:
            self._wire.cut()

    def stop_reading(self) -> None:
        """Read no more."""
        if self._wire is not None:
            self._wire.stop_reading()

    def read_again(self) -> None:
        """Read like everybody."""
        if self._wire is not None:
            self._wire.read_again()

    def lacks(self, heads: dict[str, int]) -> int:
        """How many entries of its rooms have not come."""
        return sum(log.lacks(heads.get(room, 0)) for room, log in self.logs.items())

    # What the connection tells

    def got(self, items: Sequence[Item], size: int) -> None:
        """Frames came."""
        now = time.monotonic_ns()
        desk = self._desk
        desk.counts.received_bytes += size
        for item in items:
            if type(item) is Run:
                log = self.logs.get(item.room)
                if log is None:
                    if item.room in desk.apart:
                        desk.strayed += item.last - item.first + 1
                    continue  # else a room of the user's that is no part of this
                if log.held is not None:
                    log.held.append(item)
                    continue
                self.delivery.record_since(now, log.take(item))
            elif type(item) is Reply:
                self._answered(item, now)
            elif type(item) is Signal:
                desk.counts.signals += 1
            elif type(item) is Control and self._wire is not None:
                self._wire.answer(item)

    def _answered(self, reply: Reply, now: int) -> None:
        ref, desk = reply.head.ref or "", self._desk
        if ref.startswith("s") and ref[1:].isdecimal():
            known = self.pending.pop(int(ref[1:]), None)
            if known is None:
                return
            if reply.head.type == "ok":
                desk.counts.acked += 1
                desk.ack.record((now - known[0]) // 1_000)
                desk.acknowledged(int(ref[1:]), known[1], reply.head.seq or NOWHERE)
            else:
                code = str(reply.head.code)
                desk.counts.refused[code] = desk.counts.refused.get(code, 0) + 1
        elif ref.startswith("h") and ref[1:].isdecimal():
            if self.pages.pop(int(ref[1:]), None) is None:
                return
            if reply.head.type == "ok":
                desk.counts.pages += 1
                desk.history.record((now - int(ref[1:])) // 1_000)
            else:
                code = str(reply.head.code)
                desk.counts.page_errors[code] = desk.counts.page_errors.get(code, 0) + 1
        elif not reply.head.type:
            words = bytes(reply.head.message).decode(errors="replace").strip('"')[:100]
            desk.counts.gateway_errors[words] = desk.counts.gateway_errors.get(words, 0) + 1
        elif ref in self._asks and not self._asks[ref].done():
            self._asks[ref].set_result(reply)

    def ended(self, code: int, reason: str) -> None:
        """The connection has ended."""
        was_live = self.is_live
        self._down()
        for answer in self._asks.values():
            if not answer.done():
                answer.set_exception(NotConnected(f"the server closed the connection with {code} {reason}".rstrip()))
        if was_live:
            self._desk.lost(self, code, reason)

    def _down(self) -> None:
        self.is_live, self._wire = False, None
        for log in self.logs.values():
            log.held = []  # what was held is asked for again


Trouble = (NotConnected, Refused, NoToken)
"""How `Member.open` fails."""

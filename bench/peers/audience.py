"""The clients of a benched server: many light connections that join a room, say things, and count what they get.

A connection is one protocol object that reads frames where they lie and looks into none of them further than for the
mark of a text. Frames of the same length that came together are counted together, so that the clients take less
processor time than what they measure.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence

from bench.peers.dialects import MARK, MARKED, Dialect, Refused, Step, text

READY_WITHIN_S = 30.0
"""How long a connection may take until it is of use."""

SOURCES = 4
"""From how many of this machine's addresses they come."""

UNCOUNTED = 9_999_999
"""The number of texts that are said before anything is counted."""

LOOK_S = 0.1
"""How often one who waits looks whether anything came; `Audience.last_at` is exact to that where something is lost."""

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING = 0x0, 0x1, 0x2, 0x8, 0x9


class Member(asyncio.Protocol):
    """One connection.

    Attributes:
        count: texts that it got.
        acks: messages of its own that were acknowledged.
        seen: how often each number was got, where an audience keeps track.

    """

    __slots__ = (
        "_audience",
        "_head",
        "_rest",
        "_steps",
        "_tail",
        "_waiter",
        "acks",
        "count",
        "is_open",
        "number",
        "seen",
        "transport",
    )

    def __init__(self, audience: Audience, number: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.number = number
        self.count = 0
        self.acks = 0
        self.seen: bytearray | None = None
        self.is_open = False
        self._audience = audience
        self._head: bytes | None = b""  # of the handshake's answer; None when it is done
        self._rest = b""  # of a frame that is not complete
        self._tail = b""  # of a stream, in which a mark may have begun
        self._steps: deque[Step] = deque()  # of the first the answer is waited for
        self._waiter: asyncio.Future[None] | None = None  # done with the last of them

    async def open(self, host: str, port: int) -> None:
        """Connect, and say what is to be said before anything else.

        Raises:
            OSError: there is no connection.
            Refused: the handshake was answered with something else, or the peer refused what was said.
            TimeoutError: it took too long.

        """
        ready = self.begin(self._audience.dialect.opening())
        source = (f"127.0.2.{1 + self.number % SOURCES}", 0)
        async with _in_time("connect"):
            await asyncio.get_running_loop().create_connection(lambda: self, host, port, local_addr=source)
            self.send_raw(self._request(host, port))
            await ready

    async def listen(self) -> None:
        """Join the room.

        Raises:
            Refused: the peer refused.
            TimeoutError: there was no answer in time.

        """
        async with _in_time("listen"):
            await self.begin(self._audience.dialect.joining())

    def begin(self, steps: Sequence[Step]) -> asyncio.Future[None]:
        """Say the steps' parts one after the other, from when the connection is open; done with the last answer."""
        self._steps = deque(steps)
        self._waiter = ready = asyncio.get_running_loop().create_future()
        if self.is_open:
            self._enter()
        return ready

    def say(self, number: int) -> None:
        """Say the text of a number in the room."""
        self.send(self._audience.dialect.message(text(number)))

    def send(self, payload: bytes) -> None:
        """Send a payload as a frame."""
        self.send_raw(self._audience.dialect.frame(payload))

    def send_raw(self, data: bytes) -> None:
        """Send bytes."""
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        """End the connection."""
        self.is_open = False
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self.is_open:
            self._audience.lost_connections += 1
        self.is_open = False
        self._fail(Refused(f"the connection ended: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        if self._head is not None:
            data = self._answered(data)
        if data:
            self._frames(self._rest + data if self._rest else data)

    def _request(self, host: str, port: int) -> bytes:
        dialect = self._audience.dialect
        key = base64.b64encode(os.urandom(16)).decode()
        headers = {
            "Host": f"{host}:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            **dialect.headers(self.number),
        }
        lines = [f"GET {dialect.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    def _answered(self, data: bytes) -> bytes:
        """Take the answer to the handshake; returns what follows it."""
        assert self._head is not None
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        self._head = None
        if not head.startswith(b"HTTP/1.1 101"):
            self._fail(Refused(head.decode(errors="replace")))
            self.close()
            return b""
        self.is_open = True
        self._enter()
        return rest

    def _frames(self, data: bytes) -> None:
        """Count the frames in these bytes, and keep the part of one that is not complete."""
        at, end = 0, len(data)
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            if size == 126:
                start += 2
                size = int.from_bytes(data[at + 2 : start], "big")
            elif size == 127:
                start += 8
                size = int.from_bytes(data[at + 2 : start], "big")
            after = start + size
            if after > end or start > end:
                break
            opcode = first & 0x0F
            if opcode > _BINARY:
                self._control(opcode, data[start:after])
                at = after
                continue
            whole = after - at
            alike = (end - at) // whole
            if alike > 1 and self.seen is None and not self._audience.dialect.is_stream:
                counted = self._alike(data, at, whole, alike, start - at)
                if counted:
                    at += counted * whole
                    continue
            self._payload(data[start:after])
            at = after
        self._rest = data[at:] if at < end else b""

    def _alike(self, data: bytes, at: int, whole: int, count: int, head: int) -> int:
        """Count frames of one length that follow each other, each with a mark; 0 when they are not all that."""
        until = at + count * whole
        if data[at:until].count(MARK) != count:
            return 0
        for place in range(at, at + head):
            if data[place:until:whole].count(data[place]) != count:
                return 0
        self.count += count
        self._audience.got(count)
        return count

    def _payload(self, payload: bytes) -> None:
        audience = self._audience
        if audience.dialect.is_stream:
            payload = self._tail + payload
            kept = 9 if self.seen is not None else len(MARK) - 1
            self._tail = payload[-kept:]
        if self.seen is not None:
            numbers = [place for number in MARKED.findall(payload) if (place := int(number)) < len(self.seen)]
            for place in numbers:
                self.seen[place] = min(self.seen[place] + 1, 255)
            count = len(numbers)
        else:
            count = payload.count(MARK)
        if count:
            self.count += count
            audience.got(count)
        if not count or audience.dialect.shares_frames:
            self._other(payload)

    def _other(self, payload: bytes) -> None:
        """Something that is no delivery, or has something else beside one."""
        dialect = self._audience.dialect
        if self._steps and self._steps[0].until is not None and self._steps[0].until(payload):
            self._steps.popleft()
            self._enter()
            return
        if dialect.acknowledges and dialect.is_ack(payload):
            self.acks += 1
            self._audience.acknowledged()
            return
        try:
            answer = dialect.answer(payload)
        except Refused as error:
            self._audience.refusals.append(str(error))
            self._fail(error)
            return
        if answer is not None:
            self.send(answer)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self.send_raw(bytes((0x8A, 0x80 | len(payload))) + b"\0\0\0\0" + payload)
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big")
            self._audience.closed_with[code] = self._audience.closed_with.get(code, 0) + 1

    def _enter(self) -> None:
        """Say what the next steps say, up to one that has an answer; after the last, all is done."""
        while self._steps:
            step = self._steps[0]
            if step.say is not None:
                self.send(step.say)
            if step.until is not None:
                return
            self._steps.popleft()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


@contextlib.asynccontextmanager
async def _in_time(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            yield
    except TimeoutError as error:
        raise TimeoutError(f"a client that would {what} had no answer within {READY_WITHIN_S:g} s") from error


class Audience:
    """All the clients of one server.

    Args:
        dialect: how one speaks with it.
        port: where it is.
        at_once: how many connect at a time.

    Attributes:
        kind: what they are.
        members: they.
        received: texts that all of them got; while they are tracked, those of the numbers that are.
        last_at: when the last of those came that `until` waited for, on the monotonic clock.
        acks: messages that were acknowledged.
        refusals: errors that the server sent.
        lost_connections: connections that the server ended.
        closed_with: how often it said so, by code.

    """

    kind: type[Member] = Member

    def __init__(self, dialect: Dialect, port: int, *, at_once: int = 32, host: str = "127.0.0.1") -> None:
        self.dialect = dialect
        self.members: list[Member] = []
        self.received = 0
        self.last_at = 0.0
        self.acks = 0
        self.refusals: list[str] = []
        self.lost_connections = 0
        self.closed_with: dict[int, int] = {}
        self._host = host
        self._port = port
        self._at_once = at_once
        self._wanted = 0
        self._reached: asyncio.Event | None = None

    async def connect(self, count: int) -> list[Member]:
        """Further members, connected and not yet listening.

        Raises:
            Refused: as `Member.open`.
            TimeoutError: so too.

        """
        gate = asyncio.Semaphore(self._at_once)

        async def one(member: Member) -> None:
            async with gate:
                await member.open(self._host, self._port)

        new = [self.kind(self, len(self.members) + number) for number in range(count)]
        self.members += new
        async with asyncio.TaskGroup() as group:
            for member in new:
                group.create_task(one(member))
        return new

    async def listen(self, members: Sequence[Member]) -> None:
        """Let members join the room, and return when the server has all their wishes.

        Raises:
            Refused: as `Member.listen`.

        """
        gate = asyncio.Semaphore(self._at_once)

        async def one(member: Member) -> None:
            async with gate:
                await member.listen()

        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(one(member))

    async def hear(
        self, speaker: Member, listeners: Sequence[Member], hearing: int, stragglers_s: float, *, within_s: float = 30.0
    ) -> None:
        """Say things until every listener has got one, and then wait for the rest of what was said.

        Args:
            speaker: who says them.
            listeners: who must hear.
            hearing: how many get what is said.
            stragglers_s: what is missing when nothing has come for so long does not come any more.
            within_s: how long it may take until all have heard something.

        Raises:
            TimeoutError: some get nothing.

        """
        begin, said = self.received, 0
        deadline = time.monotonic() + within_s
        while True:
            speaker.say(UNCOUNTED)
            said += 1
            for _ in range(100):
                await asyncio.sleep(0.02)
                if all(each.count for each in listeners):
                    break
            if all(each.count for each in listeners):
                break
            if time.monotonic() > deadline:
                deaf = sum(not each.count for each in listeners)
                raise TimeoutError(f"{deaf} of {len(listeners)} listeners got nothing within {within_s} s")
        await self.until(begin + said * hearing, stragglers_s)

    async def quiet(self, for_s: float) -> None:
        """Return when nothing has come for that long."""
        await self.until(sys.maxsize, for_s)

    async def until(self, received: int, within_s: float) -> bool:
        """Wait until so much was received in all, or nothing came for `within_s`; whether it was."""
        self._wanted = received
        reached = self._reached = asyncio.Event()
        before, self.last_at = self.received, time.monotonic()
        while self.received < received:
            try:
                async with asyncio.timeout(min(within_s, LOOK_S)):  # wait_for() of Python 3.11 may lose a cancellation
                    await reached.wait()
            except TimeoutError:
                now = time.monotonic()
                if self.received != before:
                    before, self.last_at = self.received, now
                elif now - self.last_at >= within_s:
                    break
        else:
            self.last_at = time.monotonic()
        self._reached = None
        return self.received >= received

    def got(self, count: int) -> None:
        """A member got texts."""
        self.received += count
        if self._reached is not None and self.received >= self._wanted:
            self._reached.set()

    def acknowledged(self) -> None:
        """A message was acknowledged."""
        self.acks += 1

    def track(self, messages: int) -> None:
        """From now on let each member count what it gets by number, from 0 to below `messages`."""
        for member in self.members:
            member.seen = bytearray(messages)

    def close(self) -> None:
        """End all connections."""
        for member in self.members:
            member.close()

"""A crowd of light clients that come back by the rules of Hubbub's own: full jitter, doubled with each failure, `sync`.

They do as Hubbub's client does in a browser, where `Retry-After` is not to be seen.

A client of this crowd is one protocol object on a raw socket, so that ten thousand of them fit beside the nodes that
they are to try. It keeps the last `seq` of each of its rooms and counts whatever is no continuation: nothing is mended
here that a node should have seen to.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 20.0
"""The longest first wait after a failure, doubled with each further one, and its limit: those of `hubbub.connect`."""

ANSWER_S = 10.0
"""How long a handshake or an answer may take before a client gives up the connection."""

SOURCES = 8
"""From how many of this machine's addresses they come, so that there are ports enough."""

_MASK = b"\0\0\0\0"
_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9


class _Page(msgspec.Struct):
    room: str
    seq: int


class _State(msgspec.Struct):
    room: str
    head: int


class _Frame(msgspec.Struct):
    """What is read of a frame, whatever it is; entries have an id, and no ref."""

    type: str
    room: str = ""
    seq: int = 0
    id: str = ""
    ref: str = ""
    code: str = ""
    epoch: str = ""
    in_ms: int = 0
    retry: bool = False
    retry_after_ms: int | None = None
    rooms: list[_State] = []
    entries: list[_Page] = []
    more: list[str] = []
    reset: list[str] = []
    has_more: bool = False


_decode = msgspec.json.Decoder(_Frame).decode


def client_frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A client's frame; its mask is zeros, which costs nothing and is one."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size)) + _MASK + payload
    return bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big") + _MASK + payload


class Crowd:
    """Clients, and what happened to them.

    Args:
        ports: the nodes of which each client takes one at random whenever it connects.
        jitter: the source of chance.

    Attributes:
        visitors: the clients.
        ports: as given; may be changed.
        handshakes, attempts: connections that came to be, and that were tried.
        refused: handshakes that were answered with something else, by HTTP status.
        failed: connections that were not taken, or broke before they were answered.
        unanswered: handshakes that took too long, and `sync`s that did.
        closed: connections that ended, by their close code; 1006 without one.
        repeated, torn: entries that a client had already, and that did not follow on what it had.
        errors: replies that were errors, by code.
        resets: rooms whose seqs were said to mean nothing any more.
        on_entry: told of each entry that a client gets and did not have: who, the room, the `seq`.

    """

    def __init__(self, ports: Sequence[int], *, jitter: random.Random | None = None) -> None:
        self.ports = list(ports)
        self.visitors: list[Visitor] = []
        self.attempts = 0
        self.handshakes = 0
        self.refused: Counter[int] = Counter()
        self.failed = 0
        self.unanswered = [0, 0]
        self.closed: Counter[int] = Counter()
        self.repeated = 0
        self.torn = 0
        self.errors: Counter[str] = Counter()
        self.resets = 0
        self.on_entry: Callable[[Visitor, str, int], None] | None = None
        self.random = jitter or random.Random()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, token: str, rooms: Sequence[str]) -> Visitor:
        """A further client, which does not yet connect."""
        visitor = Visitor(self, len(self.visitors), token, rooms)
        self.visitors.append(visitor)
        return visitor

    @property
    def live(self) -> int:
        """How many are connected and caught up with what they missed."""
        return sum(visitor.is_live for visitor in self.visitors)

    def behind(self, heads: dict[str, int]) -> list[Visitor]:
        """Those who lack something of rooms whose logs end where `heads` says, or are not there."""
        return [
            visitor
            for visitor in self.visitors
            if not visitor.is_live or any(heads.get(room, 0) > last for room, last in visitor.last.items())
        ]

    async def arrive(self, *, at_once: int = 100, within_s: float = 300.0) -> None:
        """Let all connect, some at a time; returns when all are live.

        Raises:
            TimeoutError: they are not within `within_s`.

        """
        gate = asyncio.Semaphore(at_once)
        tries = int(within_s / 0.01)

        async def one(visitor: Visitor) -> None:
            async with gate:
                visitor.connect()
                for _ in range(tries):
                    if visitor.is_live:
                        return
                    await asyncio.sleep(0.01)

        async with asyncio.timeout(within_s):
            await asyncio.gather(*(one(visitor) for visitor in self.visitors))

    async def leave(self) -> None:
        """All go, and none comes back."""
        for visitor in self.visitors:
            visitor.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def own(self, work: Any) -> None:
        """Run a client's coroutine."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Visitor:
    """One client over many connections.

    Attributes:
        last: its rooms, and how far it has each.
        is_live: whether it is connected and has what it missed.
        live_at: when it last became so, by the event loop's clock.

    """

    __slots__ = (
        "_attempt",
        "_crowd",
        "_epoch",
        "_gone",
        "_number",
        "_patience",
        "_rest",
        "_retry",
        "_token",
        "_wire",
        "is_live",
        "last",
        "live_at",
    )

    def __init__(self, crowd: Crowd, number: int, token: str, rooms: Sequence[str]) -> None:
        self._crowd = crowd
        self._number = number
        self._token = token
        self._epoch = ""
        self._attempt = 0
        self._gone = False
        self._wire: Wire | None = None
        self._rest: set[str] = set()  # rooms of which more is to be read
        self._patience: asyncio.TimerHandle | None = None  # for an answer
        self._retry: asyncio.TimerHandle | None = None
        self.last: dict[str, int] = dict.fromkeys(rooms, 0)
        self.is_live = False
        self.live_at = 0.0

    def connect(self) -> None:
        """Begin to connect to one of the nodes."""
        if not self._gone:
            self._crowd.own(self._open())

    def leave(self) -> None:
        """Go, and do not come back."""
        self._gone = True
        self._forget()

    def stop_reading(self) -> None:
        """Read no more, while the connection stands."""
        if self._wire is not None:
            self._wire.stop_reading()

    def read_on(self) -> None:
        """Read again."""
        if self._wire is not None:
            self._wire.read_on()

    def send(self, **fields: object) -> None:
        """Send an action, if there is a connection."""
        if self._wire is not None:
            self._wire.send(msgspec.json.encode(fields))

    async def _open(self) -> None:
        crowd = self._crowd
        crowd.attempts += 1
        wire = self._wire = Wire(self)
        source = f"127.0.1.{1 + self._number % SOURCES}"
        self._be_patient()
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: wire, "127.0.0.1", crowd.random.choice(crowd.ports), local_addr=(source, 0)
            )
        except OSError:
            if self._wire is wire:
                crowd.failed += 1
                self._wait()

    @property
    def head(self) -> bytes:
        """The request for a WebSocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        return (
            "GET /ws HTTP/1.1\r\nHost: hubbub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: hubbub.v1, jwt.{self._token}\r\n\r\n"
        ).encode()

    def accepted(self) -> None:
        """The handshake was answered with 101."""
        self._crowd.handshakes += 1
        self._sync()

    def refused(self, status: int) -> None:
        """It was answered with something else."""
        self._crowd.refused[status] += 1
        self._wait()

    def frame(self, payload: bytes) -> None:
        """A text frame came."""
        frame = _decode(payload)
        if frame.id and not frame.ref:
            self._take(frame.room, frame.seq)
        elif frame.ref == "sync" and frame.type == "ok":
            self._synced(frame)
        elif frame.ref.startswith("more ") and frame.type == "ok":
            self._more(frame.ref.removeprefix("more "), frame)
        elif frame.type == "error":
            self._failed(frame)
        elif frame.type == "notice" and frame.code == "going_away":
            delay_s = self._crowd.random.random() * frame.in_ms / 1_000
            wire = self._wire
            asyncio.get_running_loop().call_later(delay_s, self._move, wire)

    def ended(self, wire: Wire, code: int) -> None:
        """A connection is gone."""
        if wire is not self._wire:
            return
        if wire.is_open:
            self._crowd.closed[code] += 1
        else:
            self._crowd.failed += 1
        self._wait()

    def _sync(self) -> None:
        self._be_patient()
        seen = {"rooms": self.last, "epoch": self._epoch} if self._epoch else {}
        self.send(action="sync", ref="sync", **seen)

    def _synced(self, said: _Frame) -> None:
        if not self._epoch:  # it is new here, and begins where the logs end
            self.last |= {state.room: state.head for state in said.rooms if state.room in self.last}
        self._epoch = said.epoch
        self._crowd.resets += len(said.reset)
        for entry in said.entries:
            self._take(entry.room, entry.seq)
        self._rest = set(said.more)
        for room in self._rest:
            self._ask_more(room)
        self._maybe_live()

    def _ask_more(self, room: str) -> None:
        self.send(action="history", room=room, after=self.last[room], limit=200, ref=f"more {room}")

    def _more(self, room: str, page: _Frame) -> None:
        for entry in page.entries:
            if entry.seq > self.last[room]:  # some have come live meanwhile
                self._take(room, entry.seq)
        if page.has_more:
            self._ask_more(room)
        else:
            self._rest.discard(room)
            self._maybe_live()

    def _maybe_live(self) -> None:
        if self._rest or self.is_live:
            return
        self._calm()
        self.is_live = True
        self.live_at = asyncio.get_running_loop().time()

    def _failed(self, said: _Frame) -> None:
        self._crowd.errors[said.code] += 1
        if said.ref != "sync" or not said.retry:
            return
        self._calm()
        delay_s = self._jitter_s() if said.retry_after_ms is None else said.retry_after_ms / 1_000
        self._attempt += 1
        wire = self._wire
        self._retry = asyncio.get_running_loop().call_later(delay_s, lambda: self._wire is wire and self._sync())

    def _take(self, room: str, seq: int) -> None:
        last = self.last.get(room)
        if last is None:
            return
        if seq == last + 1:
            self.last[room] = seq
            if self._crowd.on_entry is not None:
                self._crowd.on_entry(self, room, seq)
        elif seq <= last:
            self._crowd.repeated += 1
        elif not self._rest:
            self._crowd.torn += 1

    def _move(self, wire: Wire | None) -> None:
        """Leave a node that is going away, for another."""
        if wire is self._wire and wire is not None and not self._gone:
            self._forget()
            self.connect()

    def _wait(self) -> None:
        """Come back after a while."""
        now = asyncio.get_running_loop().time()
        if self.is_live and now - self.live_at >= self._longest_s():
            self._attempt = 0
        self._forget()
        if not self._gone:
            self._retry = asyncio.get_running_loop().call_later(self._jitter_s(), self.connect)
            self._attempt += 1

    def _longest_s(self) -> float:
        return float(min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(self._attempt, 30)))

    def _jitter_s(self) -> float:
        return self._crowd.random.random() * self._longest_s()

    def _forget(self) -> None:
        """Be done with the connection."""
        self._calm()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        wire, self._wire = self._wire, None
        self.is_live = False
        self._rest = set()
        if wire is not None:
            wire.drop()

    def _be_patient(self) -> None:
        self._calm()
        self._patience = asyncio.get_running_loop().call_later(ANSWER_S, self._no_answer)

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _no_answer(self) -> None:
        self._crowd.unanswered[self._wire is not None and self._wire.is_open] += 1
        self._wait()


class Wire(asyncio.Protocol):
    """One connection: the request, its answer, frames."""

    __slots__ = ("_buffer", "_code", "_transport", "_visitor", "is_open")

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._transport: Any = None  # uvloop's transports have none of asyncio's classes
        self._buffer = b""
        self._code = 1006
        self.is_open = False  # whether 101 came

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._visitor._wire is not self:  # it was given up meanwhile
            transport.abort()
        else:
            transport.write(self._visitor.head)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self.is_open and not self._read_answer():
            return
        self._read_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        self._visitor.ended(self, self._code)

    def send(self, text: bytes) -> None:
        """Send a text frame."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(client_frame(text))

    def stop_reading(self) -> None:
        """Read no more; the kernels take some megabytes before the other notices."""
        self._transport.pause_reading()

    def read_on(self) -> None:
        """Read again, if there is still something to be read."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def drop(self) -> None:
        """Be gone."""
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.abort()

    def _read_answer(self) -> bool:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        status = int(head.split(b" ", 2)[1])
        if status != 101:
            self._visitor.refused(status)
            return False
        self._buffer = rest
        self.is_open = True
        self._visitor.accepted()
        return True

    def _read_frames(self) -> None:
        data, at, end = self._buffer, 0, len(self._buffer)
        while end - at >= 2 and self._visitor._wire is self:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if end < start + size:
                break
            opcode, payload = data[at] & 0x0F, data[start : start + size]
            at = start + size
            if opcode == _TEXT:
                self._visitor.frame(payload)
            elif opcode == _PING:
                self._transport.write(client_frame(payload, 0xA))
            elif opcode == _CLOSE:
                self._code = int.from_bytes(payload[:2], "big") if size >= 2 else 1005
                self._transport.write(client_frame(payload[:2], _CLOSE))
                self._transport.close()
        self._buffer = data[at:]


def open_files(count: int) -> None:
    """Allow this process so many open files, and the processes that it starts.

    Raises:
        ValueError: it may not have so many.

    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if wanted < count:
        raise ValueError(f"expected to be allowed {count} open files, got {hard}: see ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

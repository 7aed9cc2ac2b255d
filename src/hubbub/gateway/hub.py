"""The live connections of a node and their groups: what is published once is written to many.

A frame is encoded once. What is published to a group within one turn of the loop is joined and written to each member
in one call, and what is sent to one connection is joined likewise; frames sent to one connection may overtake those
published to its groups in the same turn. A connection that does not read is congested: it loses droppable frames
first, and is closed with 4408 when too much waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hubbub.gateway.connection import SLOW_CONSUMER, Close, Drop, Life, Message, Ping, Pong, Rules

logger = logging.getLogger("hubbub.gateway")

DEFAULT_OUTBOX_BYTES = 1024 * 1024

Write = Callable[[bytes], Any]


class Wire(Protocol):
    """The socket of a connection, as far as the hub needs it."""

    def waiting(self) -> int:
        """How many bytes wait to be written."""
        ...

    def send_close(self, code: int, reason: str) -> None:
        """Send a CLOSE frame; 1005 for one without a code."""
        ...

    def drop(self, abort: bool) -> None:
        """Close the socket; with `abort` without sending what waits."""
        ...


class Peer:
    """A live connection in the hub.

    Attributes:
        id: its connection id.
        life: its state.
        wire: its socket.
        write: writes bytes to the socket; the socket's own function, for speed.
        groups: what it is a member of; None for nothing.
        out: frames sent to it in this turn of the loop; None for none.
        congested: whether the socket has asked for a pause.
        context: whatever the one who added it wants to find again.

    """

    __slots__ = ("congested", "context", "groups", "id", "life", "out", "wire", "write")

    def __init__(self, id: str, life: Life, wire: Wire, write: Write, context: Any = None) -> None:  # noqa: A002
        self.id = id
        self.life = life
        self.wire = wire
        self.write = write
        self.groups: set[_Group] | None = None
        self.out: list[bytes] | None = None
        self.congested = False
        self.context = context

    def __repr__(self) -> str:
        return f"<Peer {self.id} {self.life!r}{' congested' if self.congested else ''}>"


class _Group:
    """Members of a group, and what was published to them in this turn of the loop."""

    __slots__ = ("members", "name", "pending", "published_at", "writers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Peer, None] = {}
        self.pending: list[bytes] = []
        self.writers: list[Write] | None = None  # the members' write functions; None when they must be gathered anew
        self.published_at = 0.0  # monotonic seconds


class HubStats:
    """Plain counters, read by whoever shows metrics.

    Attributes:
        connections: live now.
        opened, closed: in all.
        closed_by_code: closed, by the code that `$disconnect` reported.
        messages_in, bytes_in: messages that came, and their bytes.
        frames_out, bytes_out: frames handed to sockets, and their bytes.
        signals_shed: droppable frames that a congested connection did not get.
        slow_closed: connections closed with 4408.
        refused: handshakes refused, by HTTP status.
        failures: functions that raised or took too long.

    """

    def __init__(self) -> None:
        self.connections = 0
        self.opened = 0
        self.closed = 0
        self.closed_by_code: Counter[int] = Counter()
        self.messages_in = 0
        self.bytes_in = 0
        self.frames_out = 0
        self.bytes_out = 0
        self.signals_shed = 0
        self.slow_closed = 0
        self.refused: Counter[int] = Counter()
        self.failures = 0


class Hub:
    """All live connections of a node.

    Args:
        rules: what holds for every connection.
        outbox_bytes: how much may wait for a connection that does not read.
        clock: monotonic seconds; the loop's own by default.

    """

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        outbox_bytes: int = DEFAULT_OUTBOX_BYTES,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self.stats = HubStats()
        self._outbox_bytes = outbox_bytes
        self._clock = clock
        self._peers: dict[str, Peer] = {}
        self._groups: dict[str, _Group] = {}
        self._dirty: list[_Group] = []
        self._outs: list[Peer] = []
        self._flushing = False
        self._looks: dict[int, list[Peer]] = {}  # whom to look at, by the second in which
        self._looked = 0

    def __repr__(self) -> str:
        return f"<Hub {len(self._peers)} connections in {len(self._groups)} groups>"

    def __len__(self) -> int:
        return len(self._peers)

    def configure(self, rules: Rules, outbox_bytes: int) -> None:
        """Let these rules hold from now on."""
        self.rules = rules
        self._outbox_bytes = outbox_bytes

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    # Connections come and go

    def add(self, peer: Peer) -> None:
        """A connection is live."""
        self._peers[peer.id] = peer
        self.stats.connections += 1
        self.stats.opened += 1
        self._look_at(peer, peer.life.next_look(self.now(), 0.0, self.rules))

    def remove(self, peer: Peer) -> tuple[int, str]:
        """A connection is gone; the code and reason to report."""
        code, reason = peer.life.lost()
        peer.out = None
        if self._peers.pop(peer.id, None) is not None:
            self._leave_all(peer)
            self.stats.connections -= 1
            self.stats.closed += 1
            self.stats.closed_by_code[code] += 1
        return code, reason

    def get(self, connection: str) -> Peer | None:
        """The live connection of that id."""
        return self._peers.get(connection)

    def peers(self) -> list[Peer]:
        """All live connections."""
        return list(self._peers.values())

    # What a fan-out may ask

    def join(self, group: str, connection: str) -> bool:
        """Add a connection to a group; False when there is no such connection."""
        peer = self._peers.get(connection)
        if peer is None or peer.life.phase:
            return False
        joined = self._groups.get(group)
        if joined is None:
            joined = self._groups[group] = _Group(group)
        if peer in joined.members:
            return True
        if joined.pending:
            self._flush()  # what was published before is not for the newcomer
        joined.members[peer] = None
        joined.writers = None
        if peer.groups is None:
            peer.groups = set()
        peer.groups.add(joined)
        return True

    def leave(self, group: str, connection: str) -> None:
        """Take a connection out of a group."""
        peer = self._peers.get(connection)
        known = self._groups.get(group)
        if peer is not None and known is not None and peer in known.members:
            if known.pending:
                self._flush()  # what was published before still is for the leaver
            self._leave(peer, known)
            if peer.groups is not None:
                peer.groups.discard(known)

    def publish(self, group: str, frame: bytes, *, droppable: bool = False, exclude: str | None = None) -> None:
        """Send a text frame to all members but `exclude`; a droppable one may be shed."""
        known = self._groups.get(group)
        if known is None or not known.members:
            return
        encoded = text_frame(frame)
        if droppable or exclude is not None:
            self._publish_some(known, encoded, droppable, exclude)
            return
        if not known.pending:
            self._dirty.append(known)
            if not self._flushing:
                self._flush_soon()
        known.pending.append(encoded)

    def send(self, connection: str, frame: bytes) -> bool:
        """Send a text frame to one connection; False when there is no such connection."""
        peer = self._peers.get(connection)
        if peer is None or peer.life.phase:
            return False
        self.send_to(peer, frame)
        return True

    def send_to(self, peer: Peer, frame: bytes) -> None:
        """Send a text frame to a connection that is open."""
        self._send_encoded(peer, text_frame(frame))

    def close(self, connection: str, code: int, reason: str) -> bool:
        """Begin the closing handshake; False when there is no such connection."""
        peer = self._peers.get(connection)
        if peer is None:
            return False
        self.act(peer, peer.life.close(code, reason, self.now(), self.rules))
        return True

    def broadcast(self, frame: bytes) -> None:
        """Send a text frame to every connection."""
        encoded = text_frame(frame)
        for peer in self._peers.values():
            if not peer.life.phase:
                self._send_encoded(peer, encoded)

    # What sockets tell

    def act(self, peer: Peer, act: object) -> None:
        """Do what a connection's life has said is to be done, other than to take a message."""
        if isinstance(act, Pong):
            self._write(peer, control_frame(0xA, act.payload))
        elif isinstance(act, Ping):
            self._write(peer, control_frame(0x9, b""))
        elif isinstance(act, Close):
            self._flush()  # what was published before still goes out before CLOSE
            self._leave_all(peer)
            peer.wire.send_close(act.code, act.reason)
            if act.drop:
                peer.wire.drop(abort=False)
            elif peer.life.close_by is not None:
                self._look_at(peer, peer.life.close_by)
        elif isinstance(act, Drop):
            self._leave_all(peer)
            peer.wire.drop(act.abort)
        else:
            assert act is None or isinstance(act, Message)  # noqa: S101  there are no other acts

    def parser_failed(self, peer: Peer, code: int, reason: str) -> None:
        """The parser refuses what came and closes the connection; nothing may be written after its CLOSE."""
        self._flush()
        self._leave_all(peer)
        peer.life.failed(code, reason, self.now(), self.rules)
        if peer.life.close_by is not None:
            self._look_at(peer, peer.life.close_by)

    def congested(self, peer: Peer, yes: bool) -> None:
        """The socket asks for a pause, or has room again."""
        peer.congested = yes
        for group in peer.groups or ():
            group.writers = None

    # Writing

    def _flush_soon(self) -> None:
        self._flushing = True
        asyncio.get_running_loop().call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        """Write what was sent and published since the last time."""
        if self._outs:
            outs, self._outs = self._outs, []
            for peer in outs:
                frames, peer.out = peer.out, None
                if frames:
                    self._write(peer, frames[0] if len(frames) == 1 else b"".join(frames))
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, []
        if len(dirty) == 1:
            self._flush_one(dirty[0])
        else:
            self._flush_many(dirty)

    def _flush_one(self, group: _Group) -> None:
        frames, group.pending = group.pending, []
        payload = frames[0] if len(frames) == 1 else b"".join(frames)
        writers = group.writers
        if writers is None:
            writers = self._gather(group)
        for write in writers:
            write(payload)
        self._count(group, len(frames), len(payload), len(writers))

    def _flush_many(self, groups: Iterable[_Group]) -> None:
        """Several groups at once: a connection in more than one of them still gets one write."""
        out: dict[Peer, list[bytes]] = {}
        for group in groups:
            frames, group.pending = group.pending, []
            payload = frames[0] if len(frames) == 1 else b"".join(frames)
            for peer in group.members:
                mine = out.get(peer)
                if mine is None:
                    out[peer] = [payload]
                else:
                    mine.append(payload)
            self._count(group, len(frames), len(payload), len(group.members))
        for peer, payloads in out.items():
            payload = payloads[0] if len(payloads) == 1 else b"".join(payloads)
            if peer.congested:
                self._write_congested(peer, payload)
            else:
                peer.write(payload)

    def _count(self, group: _Group, frames: int, size: int, members: int) -> None:
        group.published_at = self.now()
        self.stats.frames_out += frames * members
        self.stats.bytes_out += size * members

    def _gather(self, group: _Group) -> list[Write]:
        writers: list[Write] = [
            self._congested_writer(peer) if peer.congested else peer.write for peer in group.members
        ]
        group.writers = writers
        return writers

    def _congested_writer(self, peer: Peer) -> Write:
        def write(payload: bytes) -> None:
            self._write_congested(peer, payload)

        return write

    def _write(self, peer: Peer, payload: bytes) -> None:
        if peer.congested:
            self._write_congested(peer, payload)
        else:
            peer.write(payload)
        self.stats.bytes_out += len(payload)

    def _write_congested(self, peer: Peer, payload: bytes) -> None:
        if peer.life.phase:
            return
        if peer.wire.waiting() + len(payload) <= self._outbox_bytes:
            peer.write(payload)
            return
        self.stats.slow_closed += 1
        logger.info("connection closed: it does not read what it is sent", extra={"connection_id": peer.id})
        closed = peer.life.close(SLOW_CONSUMER, "slow consumer", self.now(), self.rules)
        # Not through `act`: this may run in the middle of a flush.
        peer.out = None
        self._leave_all(peer)
        if closed is not None and peer.life.close_by is not None:
            peer.wire.send_close(closed.code, closed.reason)
            self._look_at(peer, peer.life.close_by)

    def _send_encoded(self, peer: Peer, encoded: bytes) -> None:
        self.stats.frames_out += 1
        if peer.out is not None:
            peer.out.append(encoded)
            return
        peer.out = [encoded]
        self._outs.append(peer)
        if not self._flushing:
            self._flush_soon()

    def _publish_some(self, group: _Group, encoded: bytes, droppable: bool, exclude: str | None) -> None:
        if group.pending:
            self._flush()
        for peer in list(group.members):
            if peer.id == exclude:
                continue
            if droppable and peer.congested:
                self.stats.signals_shed += 1
            else:
                self._write(peer, encoded)
                self.stats.frames_out += 1
        group.published_at = self.now()

    # Leaving

    def _leave(self, peer: Peer, group: _Group) -> None:
        del group.members[peer]
        group.writers = None
        if not group.members and not group.pending:
            self._groups.pop(group.name, None)

    def _leave_all(self, peer: Peer) -> None:
        groups, peer.groups = peer.groups, None
        for group in groups or ():
            self._leave(peer, group)

    # Time

    def _look_at(self, peer: Peer, when: float) -> None:
        self._looks.setdefault(int(when) + 1, []).append(peer)

    def sweep(self) -> None:
        """Ping the silent, close the idle and the old, give up on the dead; to be called about once a second.

        A connection is looked at when its earliest deadline may have come, not every time.
        """
        now = self.now()
        second = int(now)
        if not self._looked:
            self._looked = min(self._looks, default=second) - 1
        for due in range(self._looked + 1, second + 1):
            for peer in self._looks.pop(due, ()):
                if self._peers.get(peer.id) is not peer:
                    continue
                sent_at = max((group.published_at for group in peer.groups or ()), default=0.0)
                self.act(peer, peer.life.passed(now, sent_at, self.rules))
                if self._peers.get(peer.id) is peer:
                    self._look_at(peer, max(peer.life.next_look(now, sent_at, self.rules), now))
        self._looked = second


def text_frame(payload: bytes) -> bytes:
    """An unmasked, unfragmented text frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def control_frame(opcode: int, payload: bytes) -> bytes:
    """An unmasked control frame of at most 125 bytes (RFC 6455, section 5.5)."""
    return bytes((0x80 | opcode, len(payload))) + payload

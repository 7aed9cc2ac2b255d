"""The live connections of a node and their groups: what is published once is written to many.

A frame is encoded once. What was published to a connection's groups and sent to itself until that leaves, at the end of
a turn of the loop or a little later, is joined and written in one call, in the order of the calls. A connection that
does not read is congested: it loses droppable frames first, and is closed with 4408 when too much waits for it. Where
compression was agreed, a frame is compressed once for all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Any, Protocol

from hubbub.few import FEW, Few, added, removed
from hubbub.gateway.accelerator import Outlet, flush
from hubbub.gateway.connection import COMPRESSED, SLOW_CONSUMER, TEXT, Close, Drop, Life, Message, Ping, Pong, Rules
from hubbub.gateway.deflate import MAX_BYTES, compress
from hubbub.gateway.departures import Departures
from hubbub.gateway.looks import Looks
from hubbub.gateway.outlets import Seal

logger = logging.getLogger("hubbub.gateway")

DEFAULT_OUTBOX_BYTES = 1024 * 1024

MAX_HEAD_BYTES = 10
"""What a frame from a server has before its payload at most (RFC 6455, section 5.2)."""

_TEXT = 0x80 | TEXT
_DEFLATED_TEXT = _TEXT | COMPRESSED

LATE_AFTER_S = 5.0
"""A sweep that comes so long after the one before has been held up, and with it what the clients have sent."""

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


class _Gone:
    """The wire of a connection whose socket is gone: nothing comes of what is still asked of it."""

    def waiting(self) -> int:
        return 0

    def send_close(self, code: int, reason: str) -> None:
        pass

    def drop(self, abort: bool) -> None:
        pass


_GONE = _Gone()


class Peer(Outlet):
    """A live connection in the hub.

    Args:
        id, life, wire, context: see below.
        write: writes bytes to the socket; the socket's own function, for speed.
        transport, fd, seal: see `Outlet`.

    Attributes:
        id: its connection id.
        life: its state.
        wire: its socket; once that is gone, one that does nothing.
        groups: what it is a member of; None once nothing more is to be written to it.
        out: which frames of the log are sent to it; None for none.
        sent_at: when a message was last sent to it, other than by a group it is in; monotonic seconds, 0 for never.
        look_at: the second in which the sweeper will look at it, negative if that is to ping it; None for not at all.
        context: whatever the one who added it wants to find again; None once the socket is gone.

    """

    __slots__ = ("context", "groups", "id", "life", "look_at", "out", "sent_at", "wire")

    def __init__(
        self,
        id: str,  # noqa: A002
        life: Life,
        wire: Wire,
        write: Write,
        context: Any = None,
        *,
        transport: Any = None,
        fd: int = -1,
        seal: Seal | None = None,
    ) -> None:
        super().__init__(write, transport, fd, seal)
        self.id = id
        self.life = life
        self.wire = wire
        self.groups: Few[_Group] | None = ()
        self.out: list[int] | None = None
        self.sent_at = 0.0
        self.look_at: int | None = None
        self.context = context

    def __repr__(self) -> str:
        return f"<Peer {self.id} {self.life!r}{' congested' if self.congested else ''}>"

    @property
    def message_out_at(self) -> float:
        """When a message was last sent to it, by a group it is in or otherwise; monotonic seconds, 0 for never."""
        return max([self.sent_at, *(group.published_at for group in self.groups or ())])


_NOBODY: dict[Peer, None] = {}
_NOTHING: list[int] = []
"""What all groups share that nobody is in who has agreed to compression; they stay empty."""


class _Group:
    """Members of a group, and what was published to them and has not left.

    Those who have agreed to compression are apart, since they get other bytes.
    """

    __slots__ = ("_listed", "deflated", "deflating", "members", "name", "pending", "published_at")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Peer, None] = {}  # who gets everything plain
        self.deflating: dict[Peer, None] = _NOBODY  # who gets compressed what is worth it
        self.pending: list[int] = []  # which frames of the log
        self.deflated: list[int] = _NOTHING  # the same for those who get them compressed
        self.published_at = 0.0  # monotonic seconds
        self._listed: list[Peer] | None = None  # the plain members, until others come or go; never changed

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._of(peer)

    def __iter__(self) -> Iterator[Peer]:
        return chain(self.members, self.deflating)

    def listed(self) -> list[Peer]:
        """Those who get everything plain, as they are now."""
        if self._listed is not None:
            return self._listed
        listed = list(self.members)
        if len(listed) > FEW:  # a short one is made quickly, and most groups have but few members
            self._listed = listed
        return listed

    def has_any(self, peers: set[Peer]) -> bool:
        """Whether some of them are members; it takes as long as there are of the fewer."""
        return not (self.members.keys().isdisjoint(peers) and self.deflating.keys().isdisjoint(peers))

    def add(self, peer: Peer) -> None:
        """Make it a member."""
        if peer.life.deflates and self.deflating is _NOBODY:
            self.deflating, self.deflated = {}, []
        self._of(peer)[peer] = None
        self._listed = None

    def remove(self, peer: Peer) -> None:
        """Make it none."""
        del self._of(peer)[peer]
        self._listed = None

    def pending_for(self, peer: Peer) -> list[int]:
        """What waits for a member."""
        return self.deflated if peer.life.deflates else self.pending

    def _of(self, peer: Peer) -> dict[Peer, None]:
        return self.deflating if peer.life.deflates else self.members


class HubStats:
    """Plain counters, read by whoever shows metrics.

    Attributes:
        connections: live now.
        opened, closed: in all.
        closed_by_code: closed, by the code that `$disconnect` reported.
        messages_in, bytes_in: messages that came, and the bytes of all frames.
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

    Attributes:
        departures: when what is sent and published leaves.

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
        self._log: list[bytes] = []  # the frames sent and published that have not left, in the order of the calls
        self._congested: set[Peer] = set()  # those in which something waits to be written
        self._packed: dict[bytes, bytes] = {}  # what of them was compressed, as a frame; empty for not worth it
        self.departures = Departures(self._flush, self._due)
        self._looks = Looks()
        self._swept_at: float | None = None  # when the sweeper last looked; None for never, or when it came late

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
        if self._clock is None:
            self._clock = asyncio.get_running_loop().time  # asking for the loop is a system call each time
        return self._clock()

    # Connections come and go

    def add(self, peer: Peer) -> None:
        """A connection is live."""
        self._peers[peer.id] = peer
        if peer.congested:
            self._congested.add(peer)
        self.stats.connections += 1
        self.stats.opened += 1
        self._look_at(peer, peer.life.next_look(self.now(), 0.0, self.rules))

    def remove(self, peer: Peer) -> tuple[int, str]:
        """A connection is gone; the code and reason to report."""
        code, reason = peer.life.lost()
        peer.detach()
        peer.wire, peer.context, peer.out = _GONE, None, None  # or it and its connection would keep each other
        if self._peers.pop(peer.id, None) is not None:
            self._congested.discard(peer)
            self._leave_all(peer)
            self._looks.forget(peer)
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

    def members(self, group: str) -> Collection[Peer]:
        """The connections in a group as they are now; look at them before anything else happens."""
        known = self._groups.get(group)
        if known is None:
            return ()
        return [*known] if known.deflating else known.members.keys()

    def has_room(self, peer: Peer, size: int) -> bool:
        """Whether a message of `size` bytes can be sent to a connection without closing it for what it did not read."""
        if not peer.congested:
            return True
        positions = chain(peer.out or (), *(group.pending_for(peer) for group in peer.groups or ()))
        waiting = peer.wire.waiting() + sum(len(self._log[position]) for position in positions)
        return waiting + size + MAX_HEAD_BYTES <= self._outbox_bytes

    # What a fan-out may ask

    def join(self, group: str, connection: str) -> bool:
        """Add a connection to a group; False when there is no such connection."""
        peer = self._peers.get(connection)
        if peer is None or peer.life.phase:
            return False
        known = self._groups.get(group)
        if known is not None and known.pending and peer not in known:
            self._flush()  # what was published before is not for the newcomer
            if peer.life.phase:
                return False  # it was closed by what it did not read
        joined = self._groups.get(group)
        if joined is None:
            joined = self._groups[group] = _Group(group)
        if peer not in joined:
            joined.add(peer)
            peer.groups = added(() if peer.groups is None else peer.groups, joined)
        return True

    def leave(self, group: str, connection: str) -> None:
        """Take a connection out of a group."""
        peer = self._peers.get(connection)
        known = self._groups.get(group)
        if peer is not None and known is not None and peer in known:
            if known.pending:
                self._flush()  # what was published before still is for the leaver
            if peer.groups is not None:  # it was not closed by what it did not read
                self._leave(peer, known)
                peer.groups = removed(peer.groups, known)

    def publish(self, group: str, frame: bytes, *, droppable: bool = False, exclude: str | None = None) -> None:
        """Send a text frame to all members but `exclude`; a droppable one may be shed."""
        known = self._groups.get(group)
        if known is None:
            return
        if exclude is not None or (droppable and self._congested and known.has_any(self._congested)):
            self._publish_some(known, frame, droppable, exclude)
            return
        if not known.pending:
            self._dirty.append(known)
        position = self._note(text_frame(frame))
        known.pending.append(position)
        if known.deflating:
            known.deflated.append(self._note_deflated(frame, position))

    def send(self, connection: str, frame: bytes) -> bool:
        """Send a text frame to one connection; False when there is no such connection."""
        peer = self._peers.get(connection)
        if peer is None or peer.life.phase:
            return False
        self.send_to(peer, frame)
        return True

    def send_to(self, peer: Peer, frame: bytes) -> None:
        """Send a text frame to a connection that is open."""
        position = self._note_deflated(frame, None) if peer.life.deflates else self._note(text_frame(frame))
        self._send_noted(peer, position)

    def close(self, connection: str, code: int, reason: str) -> bool:
        """Begin the closing handshake; False when there is no such connection."""
        peer = self._peers.get(connection)
        if peer is None:
            return False
        self.act(peer, peer.life.close(code, reason, self.now(), self.rules))
        return True

    def broadcast(self, frame: bytes) -> None:
        """Send a text frame to every connection."""
        position, deflated = self._note(text_frame(frame)), None
        for peer in self._peers.values():
            if peer.life.phase:
                continue
            if not peer.life.deflates:
                self._send_noted(peer, position)
                continue
            if deflated is None:
                deflated = self._note_deflated(frame, position)
            self._send_noted(peer, deflated)

    # What sockets tell

    def act(self, peer: Peer, act: object) -> None:
        """Do what a connection's life has said is to be done, other than to take a message or to ping."""
        if isinstance(act, Pong):
            self._control(peer, control_frame(0xA, act.payload))
        elif isinstance(act, Close):
            self._flush()  # what was published before still goes out before CLOSE
            self._close(peer, act)
        elif isinstance(act, Drop):
            self._let_go(peer)
            peer.wire.drop(act.abort)
        else:
            assert act is None or isinstance(act, Message)  # noqa: S101  there are no other acts

    def congested(self, peer: Peer, yes: bool) -> None:
        """The socket asks for a pause, or has room again."""
        peer.congested = yes
        if not yes:
            self._congested.discard(peer)
        elif self._peers.get(peer.id) is peer:
            self._congested.add(peer)

    # Writing

    def _due(self) -> tuple[int, int]:
        """How many frames were published, and to how many connections; who is in several groups counts for each."""
        frames = connections = 0
        for group in self._dirty:
            frames += len(group.pending)
            connections += len(group.members) + len(group.deflating)
        return frames, connections

    def _flush(self) -> None:
        """Write what was sent and published since the last time: once to each connection, in the order of the calls."""
        self.departures.left()
        if not self._log:
            return
        log, self._log = self._log, []
        self._packed.clear()
        groups, self._dirty = self._dirty, []
        peers, self._outs = self._outs, []
        now = self.now()
        batches: list[tuple[list[Peer], list[int]]] = []
        for group in groups:
            group.published_at = now
            if group.members:
                batches.append((group.listed(), group.pending))
            if group.deflating:
                batches.append((list(group.deflating), group.deflated))
                group.deflated = []
            group.pending = []
        for peer in peers:
            if peer.out is not None:
                peer.sent_at = now
                batches.append(([peer], peer.out))
                peer.out = None
        self.stats.frames_out += self._write_all(log, batches)

    def _write_all(self, log: list[bytes], batches: list[tuple[list[Peer], list[int]]]) -> int:
        """Write frames of a log to many; how many frames that was."""
        frames, size, left = flush(log, batches)
        self.stats.bytes_out += size
        for peer, payload, error in left:
            if error is None:
                self._write(peer, payload)
            else:
                self._broken(peer, error)
        return frames

    def _write(self, peer: Peer, payload: bytes) -> None:
        try:
            if not peer.congested or peer.wire.waiting() + len(payload) <= self._outbox_bytes:
                peer.write(payload)
            else:
                self._overflown(peer)
        except Exception as error:
            self._broken(peer, error)

    def _overflown(self, peer: Peer) -> None:
        """More would wait for the connection than may."""
        closed = peer.life.close(SLOW_CONSUMER, "slow consumer", self.now(), self.rules)
        if closed is None:
            self._let_go(peer)  # it is being closed already, and this is what does not fit before CLOSE
            return
        self.stats.slow_closed += 1
        logger.info("connection closed: it does not read what it is sent", extra={"connection_id": peer.id})
        self._close(peer, closed)

    def _control(self, peer: Peer, frame: bytes) -> None:
        self._write(peer, frame)
        self.stats.bytes_out += len(frame)

    def _note(self, encoded: bytes) -> int:
        """Where in the log the frame is."""
        if not self.departures.is_called:  # asked here, since it mostly is, and a call costs more than this
            self.departures.wanted()
        self._log.append(encoded)
        return len(self._log) - 1

    def _note_deflated(self, frame: bytes, plain: int | None) -> int:
        """Where in the log the frame is for those who have agreed to compression.

        It is called when the first of them is met. What goes to several groups or connections is compressed
        once for all of them.

        Args:
            frame: its payload.
            plain: where it is for the others; None for nowhere.

        """
        least = self.rules.deflate_min_bytes
        if least is not None and least <= len(frame) <= MAX_BYTES:
            packed = self._packed.get(frame)
            if packed is None:
                payload = compress(frame)
                packed = text_frame(payload, first=_DEFLATED_TEXT) if len(payload) < len(frame) else b""
                self._packed[frame] = packed
            if packed:
                return self._note(packed)
        return self._note(text_frame(frame)) if plain is None else plain

    def _send_noted(self, peer: Peer, position: int) -> None:
        if peer.out is not None:
            peer.out.append(position)
            return
        peer.out = [position]
        self._outs.append(peer)

    def _publish_some(self, group: _Group, frame: bytes, droppable: bool, exclude: str | None) -> None:
        position = self._note(text_frame(frame))
        forms = [(group.members, position)]
        if group.deflating:
            forms.append((group.deflating, self._note_deflated(frame, position)))
        for members, form in forms:
            for peer in members:
                if peer.id == exclude:
                    continue
                if droppable and peer.congested:
                    self.stats.signals_shed += 1
                else:
                    self._send_noted(peer, form)

    # Leaving

    def _leave(self, peer: Peer, group: _Group) -> None:
        group.remove(peer)
        peer.sent_at = max(peer.sent_at, group.published_at)
        if not group.members and not group.deflating and self._groups.get(group.name) is group:
            del self._groups[group.name]

    def _leave_all(self, peer: Peer) -> None:
        groups, peer.groups = peer.groups, None
        for group in groups or ():
            self._leave(peer, group)

    def _let_go(self, peer: Peer) -> None:
        """Write nothing more to the connection."""
        peer.out = None
        self._leave_all(peer)

    def _close(self, peer: Peer, closed: Close) -> None:
        self._let_go(peer)
        try:
            peer.wire.send_close(closed.code, closed.reason)
        except Exception as error:
            self._broken(peer, error)
            return
        if closed.drop:
            peer.wire.drop(abort=False)
        self._look_at(peer, peer.life.next_look(self.now(), 0.0, self.rules))

    def _broken(self, peer: Peer, error: Exception) -> None:
        """Writing to a socket has raised: its connection ends, and the others notice nothing."""
        logger.error("writing to a connection failed", exc_info=error, extra={"connection_id": peer.id})
        peer.life.lost()
        self._let_go(peer)
        peer.wire.drop(abort=True)

    # Time

    def _look_at(self, peer: Peer, when: float) -> None:
        """Look at the connection when that may be due, if it is still here."""
        if self._peers.get(peer.id) is peer and when < math.inf:
            self._looks.put(peer, when, peer.life.earliest_look(when, self.rules), self.now())
        else:
            self._looks.forget(peer)

    def sweep(self) -> None:
        """Ping the silent, close the idle and the old, give up on the dead; to be called about once a second.

        A connection is looked at when its earliest deadline may have come, not every time. A sweep that comes late does
        nothing: this process was held up, and its next one comes after the sockets have been read, so that nobody is
        taken for silent whose answer has long been here.
        """
        now = self.now()
        if self._swept_at is not None and now - self._swept_at > LATE_AFTER_S:
            self._swept_at = None
            return
        self._swept_at = now
        rules, looks = self.rules, self._looks
        only_pings = rules.lifetime_s is None and rules.idle_s is None and rules.ping_after_s < math.inf
        silent: list[Peer] = []
        try:
            for place in looks.due(now):
                if only_pings:
                    silent += looks.sift(place, now, rules)
                # Should one of them fail, the next sweep goes on with the others.
                while (peer := looks.take(place)) is not None:
                    if self._look(peer, now, is_ping=place < 0):
                        silent.append(peer)
        finally:
            if silent:
                self._write_all([_PING], [(silent, [0])])

    def _look(self, peer: Peer, now: float, *, is_ping: bool) -> bool:
        """Do what is due for a connection; whether that is to ping it, which is not done here."""
        rules, life = self.rules, peer.life
        sent_at = 0.0 if rules.idle_s is None else peer.message_out_at
        act = life.passed(now, sent_at, rules, is_ping)
        pings = isinstance(act, Ping)
        if act is not None and not pings:
            self.act(peer, act)
        self._look_at(peer, life.next_look(now, sent_at, rules))
        return pings


_head_of_longer = struct.Struct(">BBH").pack
_head_of_longest = struct.Struct(">BBQ").pack


def text_frame(payload: bytes, *, first: int = _TEXT) -> bytes:
    """An unmasked, unfragmented text frame (RFC 6455, section 5.2); `first` is its first byte."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return _head_of_longer(first, 126, size) + payload
    return _head_of_longest(first, 127, size) + payload


def control_frame(opcode: int, payload: bytes) -> bytes:
    """An unmasked control frame of at most 125 bytes (RFC 6455, section 5.5)."""
    return bytes((0x80 | opcode, len(payload))) + payload


_PING = control_frame(0x9, b"")

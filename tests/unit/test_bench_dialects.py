"""What the clients of `make bench-peers` make of the bytes that each peer sends: of recorded ones, and of odd ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import pytest
from bench.peers import audience as audience_module
from bench.peers import recording
from bench.peers.audience import UNCOUNTED, Audience, Member
from bench.peers.catalogue import PEERS, Peer
from bench.peers.dialects import (
    MARK,
    MARKED,
    SIZE,
    ApiGateway,
    Centrifuge,
    Dialect,
    Hubbub,
    Json,
    Nats,
    Refused,
    SocketIo,
    Step,
    text,
)

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class Wire(asyncio.Transport):
    """What a member writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A server's frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def said(written: bytes) -> list[bytes]:
    """The payloads of a client's short frames, whose mask is zeros."""
    found = []
    while written:
        size, head = written[1] & 0x7F, 6
        if size == 126:
            size, head = int.from_bytes(written[2:4], "big"), 8
        found.append(written[head : head + size])
        written = written[head + size :]
    return found


def member_of(dialect: Dialect) -> tuple[Audience, Member, Wire]:
    """A member whose handshake was answered and who has nothing to say."""
    audience = Audience(dialect, 1)
    member = Member(audience, 0)
    audience.members.append(member)
    wire = Wire()
    member.connection_made(wire)
    member.data_received(ACCEPTED)
    return audience, member, wire


DELIVERIES: dict[str, tuple[Dialect, Callable[[str], bytes]]] = {
    "plain": (Dialect(), lambda each: each.encode()),
    "hubbub": (
        Hubbub(),
        lambda each: msgspec.json.encode(
            {"type": "message.created", "room": "bench", "seq": 7, "id": "01K", "by": "user1", "text": each}
        ),
    ),
    "channels": (Json(), lambda each: b'{"message": "' + each.encode() + b'"}'),
    "socket.io": (SocketIo(), lambda each: b'42["message","' + each.encode() + b'"]'),
    "nats": (Nats(), lambda each: b"MSG bench 1 200\r\n" + each.encode() + b"\r\n"),
    "centrifugo": (
        Centrifuge(),
        lambda each: b'{"push":{"channel":"bench","pub":{"data":{"text":"' + each.encode() + b'"},"offset":7}}}',
    ),
    "api gateway": (ApiGateway(), lambda each: each.encode()),
}


@pytest.mark.parametrize("name", DELIVERIES)
@pytest.mark.parametrize("pieces", [1, 7, 200, 1_000_000])
def test_deliveries_are_counted_however_their_bytes_arrive(name: str, pieces: int) -> None:
    """Thirty deliveries in a row count as thirty, in one piece, in some, and byte by byte."""
    dialect, wrapped = DELIVERIES[name]
    audience, member, _ = member_of(dialect)
    sent = b"".join(frame(wrapped(text(number)), dialect.opcode) for number in range(30))
    step = max(1, len(sent) // pieces)
    for at in range(0, len(sent), step):
        member.data_received(sent[at : at + step])
    assert member.count == audience.received == 30
    assert not audience.refusals


@pytest.mark.parametrize("name", DELIVERIES)
def test_losses_and_doubles_are_found_by_number(name: str) -> None:
    """Of numbers 0 to 9, one that never comes and one that comes twice are told from the others."""
    dialect, wrapped = DELIVERIES[name]
    audience, member, _ = member_of(dialect)
    audience.track(10)
    for number in (0, 1, 2, 3, 5, 6, 7, 7, 8, 9):
        member.data_received(frame(wrapped(text(number)), dialect.opcode))
    assert member.seen is not None
    assert list(member.seen) == [1, 1, 1, 1, 0, 1, 1, 2, 1, 1]


def test_frames_of_other_lengths_and_kinds_in_between_are_told_apart() -> None:
    """A short frame, a ping and a long frame among deliveries count for nothing, and the ping is answered."""
    _, member, wire = member_of(Dialect())
    one = frame(text(1).encode())
    wire.written = b""
    member.data_received(one * 5 + frame(b"hello") + frame(b"are you there", 9) + one * 3 + frame(b"y" * 70_000) + one)
    assert member.count == 9
    assert wire.written == bytes((0x8A, 0x80 | 13)) + b"\0\0\0\0are you there"


def test_frames_of_a_deliverys_length_that_are_none_are_not_counted() -> None:
    """Frames as long as a delivery, but without a mark, or with another head, do not count."""
    _, member, _ = member_of(Dialect())
    one, other = frame(text(1).encode()), frame(b"n" * SIZE)
    member.data_received(one + other + one + other + one)
    assert member.count == 3


def test_a_mark_that_two_frames_share_is_counted_once_in_a_stream() -> None:
    """NATS may end a frame within a message: one whose mark is cut by it counts once, its number too."""
    whole = b"MSG bench 1 200\r\n" + text(3).encode() + b"\r\n"
    middle = whole.index(MARK) + 1
    for is_tracked in (False, True):
        audience, member, _ = member_of(Nats())
        if is_tracked:
            audience.track(5)
        member.data_received(frame(whole[:middle], 2) + frame(whole[middle:], 2))
        assert member.count == 1
        assert member.seen is None or list(member.seen) == [0, 0, 0, 1, 0]


CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1","protocol":1,"echo":true}\r\nPING\r\n'
)

OPENINGS: dict[str, tuple[Dialect, list[tuple[list[bytes], bytes]]]] = {
    "socket.io": (
        SocketIo(),
        [
            ([], b'0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'),
            ([b"40"], b'40{"sid":"y"}'),
        ],
    ),
    "nats": (
        Nats(),
        [
            ([], b'INFO {"server_id":"N","version":"2.15.1","proto":1,"headers":true,"max_payload":1048576} \r\n'),
            (
                [
                    CONNECT,
                ],
                b"PONG\r\n",
            ),
        ],
    ),
    "centrifugo": (
        Centrifuge(),
        [([b'{"id":1,"connect":{}}'], b'{"id":1,"connect":{"client":"c","version":"6.9.1","ping":25,"pong":true}}')],
    ),
}


@pytest.mark.parametrize("name", OPENINGS)
async def test_what_comes_before_anything_else_is_said_in_turns(name: str) -> None:
    """Each part is said when the one before it was answered, and only after the last is a connection of use."""
    dialect, turns = OPENINGS[name]
    audience, member, wire = member_of(dialect)
    wire.written = b""
    steps = dialect.opening()
    assert len(steps) == len(turns)
    opening = member.begin(steps)
    for says, answer in turns:
        assert said(wire.written) == says
        wire.written = b""
        assert not opening.done()
        member.data_received(frame(answer, dialect.opcode))
    assert opening.done()
    assert member.count == audience.received == 0


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        (Hubbub(), b'{"type":"ok","ref":"join","epoch":"e","rooms":[]}'),
        (SocketIo(), b'42["listening"]'),
        (Nats(), b"PONG\r\n"),
        (Centrifuge(), b'{"id":2,"subscribe":{"recoverable":true,"epoch":"e"}}'),
    ],
)
async def test_listening_is_waited_for_where_it_is_answered(dialect: Dialect, answer: bytes) -> None:
    """A member listens when the peer has said so, and not before."""
    _, member, _ = member_of(dialect)
    listening = asyncio.create_task(member.listen())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not listening.done()
    member.data_received(frame(answer, dialect.opcode))
    await asyncio.wait_for(listening, 10)


@pytest.mark.parametrize(
    ("dialect", "ping", "pong"),
    [
        (SocketIo(), b"2", b"3"),
        (Nats(), b"PING\r\n", b"PONG\r\n"),
        (Centrifuge(), b"{}", b"{}"),
    ],
)
def test_a_peers_own_ping_is_answered(dialect: Dialect, ping: bytes, pong: bytes) -> None:
    """So that it does not end the connection in the middle of a run."""
    _, member, wire = member_of(dialect)
    wire.written = b""
    member.data_received(frame(ping, dialect.opcode))
    assert said(wire.written) == [pong]


@pytest.mark.parametrize(
    ("dialect", "error"),
    [
        (Hubbub(), b'{"type":"error","ref":"say","code":"rate_limited","retry":true}'),
        (SocketIo(), b'44{"message":"no"}'),
        (Nats(), b"-ERR 'Authorization Violation'\r\n"),
        (Centrifuge(), b'{"id":3,"error":{"code":103,"message":"permission denied"}}'),
        (ApiGateway(), b'{"message": "Internal server error", "connectionId":"a", "requestId":"b"}'),
    ],
)
async def test_errors_are_noticed(dialect: Dialect, error: bytes) -> None:
    """What a peer refuses is kept, and ends a step that waits for an answer."""
    audience, member, _ = member_of(dialect)
    waiting = member.begin([Step(b"please", lambda payload: payload == b"yes")])
    member.data_received(frame(error, dialect.opcode))
    assert audience.refusals == [error.decode()]
    with pytest.raises(Refused):
        await waiting


async def test_a_refused_handshake_says_with_what_it_was_answered() -> None:
    """A member whose handshake is answered with anything but 101 fails with the answer, and is gone."""
    audience = Audience(Dialect(), 1)
    member = Member(audience, 0)
    wire = Wire()
    member.connection_made(wire)
    waiting = member.begin(())
    member.data_received(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(Refused, match="403 Forbidden"):
        await waiting
    assert wire.is_aborted


def test_a_sender_is_told_of_each_message_once() -> None:
    """Hubbub's answers to `send` are counted as such, those to other actions not, and none is a delivery."""
    audience, member, _ = member_of(Hubbub())
    member.data_received(frame(b'{"type":"ok","ref":"say","room":"bench","seq":8,"id":"01K","at":"2026"}'))
    member.data_received(frame(b'{"type":"ok","ref":"other"}'))
    assert (audience.acks, member.acks, audience.received) == (1, 1, 0)


def test_a_connection_that_the_peer_ends_is_counted() -> None:
    """With the code of its CLOSE; one that the member ends itself is not."""
    audience, member, _ = member_of(Dialect())
    member.data_received(frame((4408).to_bytes(2, "big"), 8))
    member.connection_lost(None)
    _, other, _ = member_of(Dialect())
    other.close()
    other.connection_lost(None)
    assert (audience.closed_with, audience.lost_connections) == ({4408: 1}, 1)
    assert other._audience.lost_connections == 0


@pytest.mark.parametrize(
    ("dialect", "ping", "pong"), [(Nats(), b"PING\r\n", b"PONG\r\n"), (Centrifuge(), b"\n{}", b"{}")]
)
def test_a_ping_beside_a_delivery_is_answered(dialect: Dialect, ping: bytes, pong: bytes) -> None:
    """Where a peer puts several things into a frame, what is no delivery is seen too."""
    wrapped = DELIVERIES["nats" if isinstance(dialect, Nats) else "centrifugo"][1]
    for is_tracked in (False, True):
        audience, member, wire = member_of(dialect)
        if is_tracked:
            audience.track(5)
        wire.written = b""
        member.data_received(frame(wrapped(text(1)) + ping, dialect.opcode))
        assert said(wire.written) == [pong]
        assert member.count == audience.received == 1


def test_what_was_said_before_the_count_began_is_not_counted() -> None:
    """A straggler of the warm-up is neither a double nor takes the place of a delivery that is missing."""
    audience, member, _ = member_of(Dialect())
    audience.track(2)
    for number in (UNCOUNTED, 1, UNCOUNTED):
        member.data_received(frame(text(number).encode()))
    assert member.seen is not None
    assert (list(member.seen), audience.received) == ([0, 1], 1)


@pytest.mark.slow
async def test_waiting_tells_when_the_last_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is not whole, the silence by which that is known does not count as time that it took."""
    monkeypatch.setattr(audience_module, "LOOK_S", 0.01)
    audience, member, _ = member_of(Dialect())
    waiting = asyncio.create_task(audience.until(3, 1.0))
    await asyncio.sleep(0)
    member.data_received(frame(text(0).encode()) * 2)
    came = time.monotonic()
    assert not await waiting
    gave_up = time.monotonic()
    assert audience.last_at - came < gave_up - audience.last_at
    assert gave_up - audience.last_at >= 1.0


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_waiting_can_be_interrupted_at_any_moment(turns: int) -> None:
    """Also in the turns of the loop in which what is waited for comes: or Ctrl-C would now and then do nothing."""
    audience, member, _ = member_of(Dialect())
    waiting = asyncio.create_task(audience.until(1, 5.0))
    for _ in range(3):
        await asyncio.sleep(0)
    member.data_received(frame(text(0).encode()))
    for _ in range(turns):
        await asyncio.sleep(0)
    is_interrupted = waiting.cancel()
    assert is_interrupted or turns > 0
    await asyncio.wait([waiting])
    assert waiting.cancelled() == is_interrupted


RECORDED = recording.kept()


def test_every_peer_is_recorded() -> None:
    """`python -m bench.peers --record --only NAME` does it for one that is new."""
    assert RECORDED.keys() == PEERS.keys()


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("size", [1, 5, 1_000_000])
async def test_what_peers_really_send_is_understood(name: str, size: int) -> None:
    """A client that gets the recorded bytes, cut anywhere, connects, listens, and counts each message once."""
    recorded, dialect = RECORDED[name], PEERS[name].dialect()
    audience = Audience(dialect, 1)
    member = Member(audience, 0)
    audience.members.append(member)
    audience.track(recording.MESSAGES)
    member.connection_made(Wire())
    opening = member.begin(dialect.opening())
    listening: asyncio.Future[None] | None = None
    for chunk in recorded.chunks:
        data = chunk.encode("latin-1")
        for at in range(0, len(data), size):
            member.data_received(data[at : at + size])
            if opening.done() and listening is None:
                listening = member.begin(dialect.joining())
    assert listening is not None
    assert listening.done()
    assert member.seen is not None
    assert list(member.seen) == [1] * recording.MESSAGES
    assert member.acks == (recorded.said if dialect.acknowledges else 0)
    assert (audience.refusals, audience.closed_with) == ([], {})


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_every_peer_is_given_the_same_text(peer: Peer) -> None:
    """Whatever a dialect wraps around it, a message has the text as it is, once, in a frame that is masked."""
    dialect = peer.dialect()
    payload = dialect.message(text(5))
    assert payload.count(text(5).encode()) == 1
    sent = dialect.frame(payload)
    assert sent[0] == 0x80 | dialect.opcode
    assert sent[1] & 0x80
    assert said(sent) == [payload]


def test_texts_have_their_mark_number_and_size() -> None:
    """Each is as long as the others and says its number; one that has no place is refused."""
    assert {len(text(number)) for number in (0, 9_999_999)} == {SIZE}
    assert MARKED.findall(text(42).encode()) == [b"0000042"]
    for number in (-1, 10_000_000):
        with pytest.raises(ValueError, match="up to seven digits"):
            text(number)

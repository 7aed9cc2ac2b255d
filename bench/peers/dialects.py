"""How one speaks with each peer over its WebSocket: joining the room, saying something, and what a delivery looks like.

A dialect decides on bytes alone: it is given the payloads of frames and returns those to send. All peers get the same
texts, and each carries them as they are, so a delivery is found by its mark whatever is wrapped around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from bench.crowd import client_frame
from bench.load import ROOM, token

TEXT_FRAME = 0x1
BINARY_FRAME = 0x2

SIZE = 200
"""Bytes of a text."""

MARK = b"~~#"
"""Stands once in each text, before its number; in nothing else that a peer sends."""

MARKED = re.compile(rb"~~#(\d{7})")
"""The mark with the number."""


def text(number: int) -> str:
    """The text of a message: its mark and number, filled up to `SIZE`.

    Raises:
        ValueError: the number has no place in it.

    """
    if not 0 <= number < 10_000_000:
        raise ValueError(f"expected a number of up to seven digits, got {number}")
    return f"{MARK.decode()}{number:07d}".ljust(SIZE, "x")


class Refused(Exception):
    """A peer said that it will not do what it was asked; the message is what it said."""


class Step(NamedTuple):
    """A part of what is said before a connection is of use.

    Attributes:
        say: the payload to send; None for nothing.
        until: whether a payload is the answer that is waited for; None when there is none.

    """

    say: bytes | None
    until: Callable[[bytes], bool] | None


class Dialect:
    """Plain text: `listen` joins, every other text goes to all who listen. What peers without a protocol get.

    Attributes:
        path: of the WebSocket.
        opcode: of the frames that are sent.
        is_stream: whether a message may begin in one frame and end in another.
        shares_frames: whether a frame may have something else beside deliveries, a ping for one.
        acknowledges: whether the sender is told of each message that it was taken.

    """

    path = "/"
    opcode = TEXT_FRAME
    is_stream = False
    shares_frames = False
    acknowledges = False

    def headers(self, user: int) -> dict[str, str]:
        """Headers of a member's handshake."""
        return {}

    def opening(self) -> Sequence[Step]:
        """What is said on a new connection before anything else."""
        return ()

    def joining(self) -> Sequence[Step]:
        """What is said to listen to the room."""
        return (Step(b"listen", None),)

    def message(self, said: str) -> bytes:
        """What is sent to say something in the room."""
        return said.encode()

    def answer(self, payload: bytes) -> bytes | None:
        """What is to be sent back for something that is no delivery: a peer's own ping.

        Raises:
            Refused: it is an error.

        """
        return None

    def is_ack(self, payload: bytes) -> bool:
        """Whether it tells the sender that a message was taken."""
        return False

    def frame(self, payload: bytes) -> bytes:
        """A client's frame with the payload."""
        return client_frame(payload, self.opcode)


class Hubbub(Dialect):
    """Hubbub's own protocol: a token at the handshake, `sync` to listen, `send`, which is acknowledged."""

    path = "/ws"
    acknowledges = True

    def headers(self, user: int) -> dict[str, str]:
        return {"Authorization": f"Bearer {token(f'user{user}')}"}

    def joining(self) -> Sequence[Step]:
        ask = msgspec.json.encode({"action": "sync", "ref": "join"})
        return (Step(ask, lambda payload: b'"ref":"join"' in payload and b'"type":"ok"' in payload),)

    def message(self, said: str) -> bytes:
        return msgspec.json.encode({"action": "send", "ref": "say", "room": ROOM, "text": said})

    def answer(self, payload: bytes) -> None:
        if b'"type":"error"' in payload:
            raise Refused(payload.decode())

    def is_ack(self, payload: bytes) -> bool:
        return b'"ref":"say"' in payload and b'"type":"ok"' in payload


class Json(Dialect):
    """What the tutorial of Django Channels speaks: to connect is to listen, and a message is an object with a text."""

    path = f"/ws/chat/{ROOM}/"

    def joining(self) -> Sequence[Step]:
        return ()

    def message(self, said: str) -> bytes:
        return msgspec.json.encode({"message": said})


class Subscribed(Dialect):
    """Plain text to a peer that subscribes whoever connects."""

    def joining(self) -> Sequence[Step]:
        return ()


class SocketIo(Dialect):
    """Socket.IO 5 over Engine.IO 4, without long polling; `listen` and `message` are events."""

    path = "/socket.io/?EIO=4&transport=websocket"

    def opening(self) -> Sequence[Step]:
        return (
            Step(None, lambda payload: payload.startswith(b"0{")),
            Step(b"40", lambda payload: payload.startswith(b"40")),
        )

    def joining(self) -> Sequence[Step]:
        return (Step(b'42["listen"]', lambda payload: payload == b'42["listening"]'),)

    def message(self, said: str) -> bytes:
        return b"42" + msgspec.json.encode(["message", said])

    def answer(self, payload: bytes) -> bytes | None:
        if payload.startswith(b"44"):
            raise Refused(payload.decode())
        return b"3" if payload == b"2" else None


class Nats(Dialect):
    """The protocol of NATS, which is a stream of lines and payloads, cut into frames anywhere."""

    opcode = BINARY_FRAME
    is_stream = True
    shares_frames = True

    def opening(self) -> Sequence[Step]:
        hello = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1, "echo": True}
        return (
            Step(None, lambda payload: payload.startswith(b"INFO ")),
            Step(b"CONNECT " + msgspec.json.encode(hello) + b"\r\nPING\r\n", lambda payload: b"PONG\r\n" in payload),
        )

    def joining(self) -> Sequence[Step]:
        return (Step(f"SUB {ROOM} 1\r\nPING\r\n".encode(), lambda payload: b"PONG\r\n" in payload),)

    def message(self, said: str) -> bytes:
        return f"PUB {ROOM} {len(said)}\r\n{said}\r\n".encode()

    def answer(self, payload: bytes) -> bytes | None:
        if b"-ERR" in payload:
            raise Refused(payload.decode())
        return b"PONG\r\n" if b"PING\r\n" in payload else None


class Centrifuge(Dialect):
    """Centrifugo's JSON protocol; a frame has one or several objects, a line each."""

    path = "/connection/websocket"
    shares_frames = True

    def opening(self) -> Sequence[Step]:
        return (Step(b'{"id":1,"connect":{}}', _replies_to(1)),)

    def joining(self) -> Sequence[Step]:
        return (Step(msgspec.json.encode({"id": 2, "subscribe": {"channel": ROOM}}), _replies_to(2)),)

    def message(self, said: str) -> bytes:
        return msgspec.json.encode({"id": 3, "publish": {"channel": ROOM, "data": {"text": said}}})

    def answer(self, payload: bytes) -> bytes | None:
        if b'"error":' in payload or b'"disconnect":' in payload:
            raise Refused(payload.decode())
        return b"{}" if b"{}" in payload.split(b"\n") else None


class ApiGateway(Dialect):
    """A WebSocket API as AWS has it: to connect is to listen, and the route `send` goes to all."""

    def joining(self) -> Sequence[Step]:
        return ()

    def message(self, said: str) -> bytes:
        return msgspec.json.encode({"action": "send", "text": said})

    def answer(self, payload: bytes) -> None:
        if b'"message"' in payload and b'"connectionId"' in payload:
            raise Refused(payload.decode())


def _replies_to(number: int) -> Callable[[bytes], bool]:
    return lambda payload: f'"id":{number},'.encode() in payload

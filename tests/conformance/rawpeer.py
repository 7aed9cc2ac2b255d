"""A WebSocket peer that writes bytes and reads bytes: the tests say every one of them, the wrong ones too.

It knows RFC 6455's layout of a frame and of a handshake, and none of its rules.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MASK = bytes.fromhex("37fa213d")
KEY = base64.b64encode(bytes(range(16))).decode()
BOUND_S = 15.0
"""How long anything here may take before the test fails."""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    bits: int = FIN,
    mask: bytes | None = MASK,
    length: bytes | None = None,
) -> bytes:
    """A frame's bytes.

    Args:
        opcode: its low four bits are used.
        payload: before masking.
        bits: FIN and the reserved ones.
        mask: None leaves it unmasked.
        length: the seven bits of the length and what extends them, where it is not to be the shortest form.

    """
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 65_536:
            length = b"\x7e" + size.to_bytes(2, "big")
        else:
            length = b"\x7f" + size.to_bytes(8, "big")
    if mask is None:
        return bytes([bits | opcode]) + length + payload
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return bytes([bits | opcode, 0x80 | length[0]]) + length[1:] + mask + masked


def closing(code: int, reason: str | bytes = b"") -> bytes:
    """A CLOSE frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + (reason.encode() if isinstance(reason, str) else reason))


class Frame(NamedTuple):
    """What came: opcode and payload of a final, unmasked frame."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int | None:
        """A CLOSE frame's code; None for one without."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else None

    @property
    def reason(self) -> str:
        """A CLOSE frame's reason."""
        return self.payload[2:].decode()


class Answer(NamedTuple):
    """An HTTP response; `line` is its first."""

    status: int
    headers: dict[str, str]
    body: bytes
    line: str

    @property
    def message(self) -> str:
        """What its JSON document says."""
        document: dict[str, str] = json.loads(self.body)
        return document["message"]


def request(
    target: str = "/ws", *, method: str = "GET", drop: tuple[str, ...] = (), extra: tuple[str, ...] = (), **changed: str
) -> bytes:
    """A handshake's bytes; fields are changed by their name with `_` for `-`, left out by `drop`, added by `extra`."""
    fields = {
        "Host": "chat.example",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    by_lower = {name.lower(): name for name in fields}
    for name, value in changed.items():
        wire_name = name.replace("_", "-")
        fields[by_lower.get(wire_name.lower(), wire_name)] = value
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in drop]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, *extra, "", ""]).encode("latin-1")


class Peer:
    """A TCP connection to the gateway.

    Attributes:
        id: its connection's id; set by who knows it.

    """

    id = ""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def dial(cls, port: int) -> Peer:
        """Connect and say nothing."""
        async with asyncio.timeout(BOUND_S):
            return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))

    @classmethod
    async def open(cls, port: int, head: bytes | None = None) -> Peer:
        """Connect and shake hands."""
        peer = await cls.dial(port)
        await peer.send(head or request())
        answer = await peer.answer()
        assert answer.status == 101, answer
        return peer

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def cut(self) -> None:
        """Be gone without a word: the kernel sends what it sends for a process that died."""
        self._writer.transport.abort()

    def stop_reading(self) -> None:
        """Take nothing more from the socket."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that also reads

    def read_again(self) -> None:
        """Take again what comes."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise

    async def send(self, *data: bytes) -> None:
        """Write bytes, in one segment as far as that is ours to say."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the server has cut this connection")
        self._writer.write(b"".join(data))
        async with asyncio.timeout(BOUND_S):
            await self._writer.drain()

    async def trickle(self, data: bytes) -> None:
        """Write byte by byte, each in a segment of its own."""
        for n in range(len(data)):
            self._writer.write(data[n : n + 1])
            await asyncio.sleep(0)

    def end(self) -> None:
        """Send FIN, and go on reading."""
        self._writer.write_eof()

    async def nothing_until(self, other: Awaitable[Any]) -> None:
        """The server says nothing to this peer before something else has come to its end."""
        first = asyncio.ensure_future(self._reader.read(1))
        await other
        assert not first.done(), f"the server said something: {first}"
        first.cancel()
        await asyncio.wait({first})

    async def answer(self) -> Answer:
        """The HTTP response that comes next, with its body if it has a length."""
        async with asyncio.timeout(BOUND_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body, status)

    async def receive(self, bits: int = FIN) -> Frame:
        """The frame that comes next, which must be whole, unmasked and in the shortest form.

        Args:
            bits: FIN and the reserved ones that it must have.

        """
        async with asyncio.timeout(BOUND_S):
            first, second = await self._reader.readexactly(2)
            assert first & 0xF0 == bits, f"the server sent a fragment or other reserved bits: {first:#04x}"
            assert not second & 0x80, "the server masks"
            size = second
            if second > 125:
                size = int.from_bytes(await self._reader.readexactly(2 if second == 126 else 8), "big")
                assert size > (125 if second == 126 else 65_535), "the server's length is not in its shortest form"
            return Frame(first & 0x0F, await self._reader.readexactly(size))

    async def text(self) -> str:
        """The text frame that comes next."""
        came = await self.receive()
        assert came.opcode == TEXT, came
        return came.payload.decode()

    async def json(self) -> Any:
        """The JSON in the text frame that comes next."""
        return json.loads(await self.text())

    async def closed(self, *, skip: bool = False) -> Frame:
        """The CLOSE frame that comes next; the server must then end the connection without another byte.

        Args:
            skip: whether other frames may come before it.

        """
        came = await self.receive()
        while skip and came.opcode != CLOSE:
            came = await self.receive()
        assert came.opcode == CLOSE, came
        await self.ended()
        return came

    async def ended(self) -> None:
        """The server ends the connection, and nothing comes before that."""
        async with asyncio.timeout(BOUND_S):
            try:
                rest = await self._reader.read()
            except ConnectionResetError:
                rest = b""
        assert rest == b"", f"the server still sent {rest!r}"


def accept_of(key: str) -> str:
    """What the server must answer to a key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
